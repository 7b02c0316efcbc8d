"""The embedded S3 server on the command line."""

import os
import sys

import pytest
from click.testing import CliRunner
from support.s3_servers import client, run_program

from lakehouse_utils import embedded_s3
from lakehouse_utils.embedded_s3.__main__ import main


def test_commands_report_the_state(state_dir, monkeypatch):
    """`start`, `status` and `stop` print what they did and found, and `status` sets the exit code."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(state_dir))

    def run(command: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [command])
        return result.exit_code, result.stdout

    assert run("status") == (1, "The S3 server is not running.\n")
    assert run("stop") == (0, "The S3 server was not running.\n")
    started = run("start")
    server = embedded_s3.status(state_dir)
    description = f"{server.endpoint}, bucket lakehouse, process {server.pid}.\n"
    assert started == (0, f"The S3 server has started: {description}")
    assert run("start") == (0, f"The S3 server is already running: {description}")
    assert run("status") == (0, f"The S3 server is running: {description}")
    assert run("stop") == (0, "The S3 server has stopped. Its data is kept.\n")
    assert embedded_s3.status(state_dir) is None


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_env_gives_a_shell_access(s3_server, s3_state_dir):
    """The output of `env` lets boto3 in a shell use the server, whatever its environment says of AWS and proxies."""
    script = f"""
        eval "$({sys.executable} -m lakehouse_utils.embedded_s3 env)" &&
        {sys.executable} -c '
import boto3, os
boto3.client("s3").put_object(Bucket="lakehouse", Key="from-a-shell", Body=b"hello")
print(os.environ["LAKEHOUSE_URI"], os.environ["AWS_REGION"])'
    """
    hostile = {
        "AWS_PROFILE": "does-not-exist",
        "AWS_SESSION_TOKEN": "stale",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "example.org",
        "no_proxy": "",
    }
    done = run_program("sh", "-c", script, env=hostile | {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)})
    assert done.stdout == "s3://lakehouse us-east-1\n", done.stderr
    assert client(s3_server).get_object(Bucket="lakehouse", Key="from-a-shell")["Body"].read() == b"hello"


def test_error_is_one_line_without_a_traceback(state_dir):
    """An error is printed as one line on stderr, with exit code 1."""
    state_dir.write_text("a file")
    environment = {"LAKEHOUSE_STATE_DIR": str(state_dir)}
    done = run_program(sys.executable, "-m", "lakehouse_utils.embedded_s3", "start", env=environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: The S3 server cannot use its folder")
    assert done.stderr.count("\n") == 1
