"""The Spark cluster on the command line: `python -m lakehouse_utils.spark start | stop | status`."""

import os
import sys

import click

from lakehouse_utils import settings
from lakehouse_utils.command_line import CommandGroup
from lakehouse_utils.spark.cluster import Cluster, start, status, stop


@click.group(cls=CommandGroup)
def main() -> None:
    """Start, stop or describe the Spark cluster of this checkout."""


@main.command("start")
def start_command() -> None:
    """Start the cluster if it is not running with these settings."""
    config = settings.load()
    before = status(config.state_dir)
    cluster = start(config, notify=click.echo)
    _print("is already running" if cluster == before else "has started", cluster)
    click.echo(
        "Next:\n"
        f"  {os.path.relpath(sys.executable)} ingestion_processor.py --engine spark --spark-remote {cluster.remote}\n"
        "  make spark-cluster-stop"
    )


@main.command("stop")
def stop_command() -> None:
    """Stop the cluster. The software that it downloaded is kept."""
    was_running = stop(settings.load().state_dir)
    click.echo("The Spark cluster has stopped." if was_running else "The Spark cluster was not running.")


@main.command("status")
def status_command() -> None:
    """Print whether the cluster is running. The exit code is 1 if it is not."""
    cluster = status(settings.load().state_dir)
    if not cluster:
        click.echo("The Spark cluster is not running.")
        sys.exit(1)
    _print("is running", cluster)


def _print(state: str, cluster: Cluster) -> None:
    processes = f"a master and {cluster.workers} workers with one core each"
    click.echo(f"Apache Spark {cluster.version} {state}: {cluster.remote}, {processes}.")


if __name__ == "__main__":
    main(prog_name="python -m lakehouse_utils.spark")
