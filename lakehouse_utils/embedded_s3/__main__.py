"""The embedded S3 server on the command line: `python -m lakehouse_utils.embedded_s3 start | stop | status | env`."""

import os
import shlex
import sys

import click

from lakehouse_utils import settings
from lakehouse_utils.command_line import CommandGroup
from lakehouse_utils.embedded_s3.server import Server, ensure, status, stop

# Variables that would send the tools of a shell to another server, or to it with other credentials.
_UNSET = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL_S3")


@click.group(cls=CommandGroup)
def main() -> None:
    """Start, stop or describe the S3 server of this checkout."""


@main.command("start")
def start_command() -> None:
    """Start the server if it is not running."""
    state_dir = settings.load().state_dir
    was_running = status(state_dir) is not None
    _print("The S3 server is already running" if was_running else "The S3 server has started", ensure(state_dir))


@main.command("stop")
def stop_command() -> None:
    """Stop the server. Its data is kept."""
    was_running = stop(settings.load().state_dir)
    click.echo("The S3 server has stopped. Its data is kept." if was_running else "The S3 server was not running.")


@main.command("status")
def status_command() -> None:
    """Print whether the server is running. The exit code is 1 if it is not."""
    server = status(settings.load().state_dir)
    if not server:
        click.echo("The S3 server is not running.")
        sys.exit(1)
    _print("The S3 server is running", server)


@main.command("env")
def env_command() -> None:
    """Print the variables with which a shell uses the server: eval "$(python -m lakehouse_utils.embedded_s3 env)"."""
    config = settings.load()
    settings.apply_to_process(config)  # for NO_PROXY
    server = ensure(config.state_dir)
    exports = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,  # the only one that boto3 reads
        "LAKEHOUSE_URI": server.uri,
        "NO_PROXY": os.environ["NO_PROXY"],
        "no_proxy": os.environ["no_proxy"],
    }
    click.echo(f"unset {' '.join(_UNSET)}")
    for name, value in exports.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _print(sentence: str, server: Server) -> None:
    click.echo(f"{sentence}: {server.endpoint}, bucket {server.bucket}, process {server.pid}.")


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.embedded_s3")
