#!/usr/bin/env python3
"""The main job: raw files to bronze, silver and gold, on any S3. Run it again whenever new files have arrived.

    python ingestion_processor.py
    python ingestion_processor.py --landing s3://my-bucket/raw --lake s3://my-bucket/lake --report report.json

What it does is in `lakehouse_utils/pipeline/`; this file is the command line: options, progress, the final table.
"""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import gold, sources
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.run import ENGINES, LAYERS, RunReport, open_engine, run

ROWS_WERE_QUARANTINED = 3
INTERRUPTED = "Interrupted. What is finished stays; the next run goes on from there."


def names(allowed: tuple[str, ...] | None = None):
    """An option's value like `a,b`, as a tuple; of these names only, where any are given."""

    def parse(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in found:
            if allowed and name not in allowed:
                raise click.BadParameter(f"{name!r} is not one of {', '.join(allowed)}.")
        return found

    return parse


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--landing", metavar="DIR|s3://...", help="Where the raw files are.  [default: data/landing]")
@click.option("--lake", "address", metavar="s3://...", help="Where the tables are.  [default: the embedded server]")
@click.option("--layers", default=",".join(LAYERS), show_default=True, callback=names(LAYERS), help="Which layers.")
@click.option("--tables", default="", callback=names(), help="Which tables, by name.  [default: all]")
@click.option("--sources", "described", type=click.Path(path_type=Path), help="Description of your own source tables.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="What does the work.")
@click.option("--spark-remote", metavar="sc://...", help="A Spark Connect server.  [default: a Sail of its own]")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write what was done, as JSON.")
@click.option("--strict", is_flag=True, help=f"Exit with {ROWS_WERE_QUARANTINED} when rows were quarantined.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--verbose", is_flag=True, help="Show tracebacks of errors.")
def main(
    landing, address, layers, tables, described, engine, spark_remote, report_file, strict, quiet, verbose
) -> None:
    """Bring the lakehouse up to date with the raw files: landing -> bronze -> silver -> gold.

    What is there already is left alone, so that it may be stopped, and started again, at any time. Rows that don't
    parse or break a rule go to quarantine/<table> in the lake, with their file, line and the reason.
    """
    watch = Watch(quiet)
    try:
        config = settings.load()
        tables_described = sources.load(described or sources.SHOP)
        unknown = set(tables) - tables_described.keys() - set(gold.TABLES)
        if unknown:
            known = ", ".join([*tables_described, *gold.TABLES])
            raise LakehouseError(f"--tables: no table is called {', '.join(sorted(unknown))}; there are {known}.")
        if report_file:
            write_report(None, report_file)
        if engine == "local" and __name__ == "__main__":
            sys.meta_path.insert(0, WithoutPandas())
        with watch:
            lake = Lake.open(address, config)
            worker = open_engine(engine, lake, spark_remote)
            report = run(lake, landing or config.landing, tables_described, watch, layers, tables, worker)
        if report_file:
            write_report(report, report_file)
    except LakehouseError as error:
        fail(str(error), verbose)
    except KeyboardInterrupt:
        fail(INTERRUPTED, verbose, code=130)
    except Exception as error:  # nobody foresaw it: still one sentence, and the way to more
        if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl+C
            fail(INTERRUPTED, verbose, code=130)
        said = " ".join(str(error).split())
        fail(f"Unexpected {type(error).__name__}: {said} (--verbose shows where.)", verbose)
    watch.sums_up(report)
    sys.exit(ROWS_WERE_QUARANTINED if strict and report.quarantined else 0)


def fail(sentence: str, verbose: bool, code: int = 1) -> None:
    console = plain_console(stderr=True)
    if verbose:
        console.print_exception()
    console.print(Text.assemble(("Error:", "bold red"), " ", sentence))
    sys.exit(code)


def plain_console(**options) -> Console:
    """A console for text that isn't ours: [red] and :apple: in a file's name or an error are printed as they are."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)


def write_report(report: RunReport | None, path: Path) -> None:
    """Write the report; without one, try whether it could be, so that the work isn't done in vain."""
    try:
        with path.open("a" if report is None else "w", encoding="utf-8") as file:
            if report:
                file.write(json.dumps(report.as_json(), indent=2) + "\n")
    except OSError as error:
        raise LakehouseError(f"The report can't be written to {path}: {error.strerror}. Check --report.") from None


class Watch:
    """Shows the work: bars in a terminal, a line a table in a pipe, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.out = plain_console(quiet=quiet)
        self.errors = plain_console(stderr=True)
        self.bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=self.out,
            disable=not self.out.is_terminal or quiet,
        )
        self.bar = None

    def __enter__(self) -> "Watch":
        self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        self.bars.stop()

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        self.bar = self.bars.add_task(f"{layer}.{table}", total=size_bytes, state="")

    def on_advance(self, size_bytes: int) -> None:
        self.bars.advance(self.bar, size_bytes)

    def on_table_end(self, layer: str, table: str, counts: TableCounts) -> None:
        self.bars.update(self.bar, total=1, completed=1, state=in_words(counts))
        if not self.out.is_terminal:
            self.out.print(f"{layer}.{table}: {in_words(counts)}")

    def on_note(self, sentence: str) -> None:
        if not self.quiet:
            self.errors.print(f"Note: {sentence}")

    def on_refused_file(self, sentence: str) -> None:
        self.errors.print(f"Could not read {sentence}")

    def sums_up(self, report: RunReport) -> None:
        """The final table, and where the lake is."""
        if self.out.is_terminal:
            table = Table(title=Text(f"{report.lake}, {report.seconds:.1f} s"))
            table.add_column("table")
            for name in ("read", "added", "changed", "quarantined", "version"):
                table.add_column(name, justify="right")
            for name, counts in report.rows.items():
                style = "yellow" if counts.quarantined else None if counts.read else "dim"
                figures = (counts.read, counts.added, counts.changed, counts.quarantined, counts.version)
                table.add_row(name, *("" if n is None else f"{n:,}" for n in figures), style=style)
            self.out.print(table)
        if not report.changed_anything:
            self.out.print("Nothing new: every table was up to date, and none was written.")
        if report.quarantined:
            self.out.print(
                f"{report.quarantined:,} rows or files are in quarantine:"
                f" {report.lake}/quarantine/<table> says which and why."
            )
        if not self.out.is_terminal:
            self.out.print(f"{report.lake} is up to date after {report.seconds:.1f} s.")


def in_words(counts: TableCounts) -> str:
    """`1,500 read, 3 added`: what isn't zero."""
    figures = {name: getattr(counts, name) for name in ("read", "added", "changed", "quarantined")}
    return ", ".join(f"{n:,} {name}" for name, n in figures.items() if n) or "nothing new"


class WithoutPandas:
    """Only Spark's client uses pandas, but DuckDB and Arrow import it wherever it is, and that takes seconds."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left out of this process", name=name)


if __name__ == "__main__":
    main()
