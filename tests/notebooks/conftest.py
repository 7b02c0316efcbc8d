"""The environment for tests that start kernels."""

from pathlib import Path

import pytest

from lakehouse_utils import embedded_s3


@pytest.fixture
def kernel_environment(
    s3_state_dir: Path, s3_server: embedded_s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels use the test run's S3 server, and none of the developer's Jupyter configuration."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
