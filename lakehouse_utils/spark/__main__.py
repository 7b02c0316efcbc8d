"""The Spark cluster on the command line: `python -m lakehouse_utils.spark start | stop | status`."""

import os
import sys

import click

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.spark.cluster import Cluster, start, status, stop


class _Commands(click.Group):
    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except LakehouseError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands)
def main() -> None:
    """The Spark cluster of this checkout."""


@main.command("start")
def _start_command() -> None:
    """Start it, unless it runs with these settings."""
    config = settings.load()
    before = status(config.state_dir)
    cluster = start(config, tell=click.echo)
    word = "is already running" if cluster == before else "runs"
    _say(f"Apache Spark {cluster.version} {word}", cluster)
    click.echo(
        "Next:\n"
        f"  {os.path.relpath(sys.executable)} ingestion_processor.py --engine spark --spark-remote {cluster.remote}\n"
        "  make spark-cluster-stop"
    )


@main.command("stop")
def _stop_command() -> None:
    """Stop it; what it downloaded stays."""
    stopped = stop(settings.load().state_dir)
    click.echo("The Spark cluster has stopped." if stopped else "The Spark cluster was not running.")


@main.command("status")
def _status_command() -> None:
    """Say whether it runs; exit code 1 if not."""
    cluster = status(settings.load().state_dir)
    if not cluster:
        click.echo("The Spark cluster is not running.")
        sys.exit(1)
    _say(f"Apache Spark {cluster.version} is running", cluster)


def _say(what: str, cluster: Cluster) -> None:
    click.echo(f"{what}: {cluster.remote}, a master and {cluster.workers} workers with one core each.")


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.spark")
