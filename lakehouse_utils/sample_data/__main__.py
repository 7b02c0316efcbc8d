"""`python -m lakehouse_utils.sample_data --scale 1 --out data/landing` writes the raw files of the bicycle shop."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.sample_data.batches import generate
from lakehouse_utils.sample_data.dictionary import updated_readme
from lakehouse_utils.sample_data.writer import OnProgress


@click.command()
@click.option("--scale", type=float, default=1, show_default=True, help="How much data: 1 is about 1,600 orders.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write to. It must be empty or new.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Write no raw files; update the derived parts of this README instead.",
)
def main(scale: float, out: Path | None, readme: Path | None) -> None:
    """Write the raw files of a bicycle shop: a full load and six daily batches."""
    try:
        if readme:
            text = updated_readme(readme.read_text(encoding="utf-8"))
            readme.write_text(text, encoding="utf-8", newline="\n")
            click.echo(f"{readme} is up to date.")
            return
        if not out:
            raise click.UsageError("Missing option --out FOLDER: the folder to write to.")
        with _shown_progress() as on_progress:
            summary = generate(out, scale, progress=on_progress)
    except LakehouseError as error:
        raise click.ClickException(str(error)) from None
    rows = sum(summary.files.values())
    click.echo(f"Wrote {rows:,} rows in {len(summary.files)} files, {summary.bytes / 1e6:,.1f} MB, to {out}.")


@contextmanager
def _shown_progress() -> Iterator[OnProgress]:
    """Show a progress bar in a terminal, and one line per batch elsewhere."""
    if not sys.stderr.isatty():
        shown: set[str] = set()

        def show_batch(batch: str, _done: int, _total: int) -> None:
            if batch not in shown:
                shown.add(batch)
                click.echo(f"writing {batch}", err=True)

        yield show_batch
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda batch, done, total: bar.update(task, description=batch, completed=done, total=total)


if __name__ == "__main__":
    main()
