"""Kernels get the test run's S3 server, and nothing of the developer's Jupyter."""

from pathlib import Path

import pytest

from lakehouse_utils import embedded_s3


@pytest.fixture
def kernels(s3_state_dir: Path, s3_server: embedded_s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test needs that starts kernels."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
