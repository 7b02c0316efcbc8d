"""The embedded S3 server on the command line: `python -m lakehouse_utils.embedded_s3 start | stop | status | env`."""

import os
import shlex
import sys

import click

from lakehouse_utils import settings
from lakehouse_utils.embedded_s3.server import Server, ensure, status, stop
from lakehouse_utils.errors import LakehouseError


class _Commands(click.Group):
    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except LakehouseError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands)
def main() -> None:
    """The S3 server of this checkout."""


@main.command("start")
def _start_command() -> None:
    """Start it, unless it runs."""
    state_dir = settings.load().state_dir
    word = "is already running" if status(state_dir) else "started"
    _say(f"The S3 server {word}", ensure(state_dir))


@main.command("stop")
def _stop_command() -> None:
    """Stop it; what is stored stays."""
    stopped = stop(settings.load().state_dir)
    click.echo("The S3 server has stopped; what it stores stays." if stopped else "The S3 server was not running.")


@main.command("status")
def _status_command() -> None:
    """Say whether it runs; exit code 1 if not."""
    server = status(settings.load().state_dir)
    if not server:
        click.echo("The S3 server is not running.")
        sys.exit(1)
    _say("The S3 server is running", server)


@main.command("env")
def _env_command() -> None:
    """Print what a shell needs to use it: eval "$(python -m lakehouse_utils.embedded_s3 env)"."""
    config = settings.load()
    settings.apply_to_process(config)  # for NO_PROXY
    server = ensure(config.state_dir)
    leftovers = (
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_ENDPOINT_URL_S3",
    )
    exports = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,  # the only one boto3 reads
        "LAKEHOUSE_URI": server.uri,
        "NO_PROXY": os.environ["NO_PROXY"],
        "no_proxy": os.environ["no_proxy"],
    }
    click.echo(f"unset {' '.join(leftovers)}")
    for name, value in exports.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _say(what: str, server: Server) -> None:
    click.echo(f"{what}: {server.endpoint}, bucket {server.bucket}, process {server.pid}.")


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.embedded_s3")
