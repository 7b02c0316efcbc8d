"""The main job: raw files to bronze, silver and gold, on any S3. Run it again whenever new files have arrived.

    python ingestion_processor.py
    python ingestion_processor.py --landing s3://my-bucket/raw --lake s3://my-bucket/lake --report report.json

This file is the command line: options, progress, exit codes. The work is done in `lakehouse_utils/pipeline/`.
"""

import importlib.abc
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self, TextIO, cast

import click
from deltalake.exceptions import DeltaError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from lakehouse_utils import machine_errors, settings
from lakehouse_utils.errors import LakehouseError, LocalServerError, SettingError, StorageError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import checks, gold, run_history, sources
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.describe import draft
from lakehouse_utils.pipeline.landing import printable
from lakehouse_utils.pipeline.maintenance import Options, maintain
from lakehouse_utils.pipeline.report import SKIPPED, MaintenanceReport, ReportFile, RunReport, TableMaintenance, counted
from lakehouse_utils.pipeline.run import ENGINES, LAYERS, Selection, open_engine, run
from lakehouse_utils.pipeline.status import HEADINGS, TableStatus, as_row, status
from lakehouse_utils.pipeline.steps import is_interrupted_query

NAME_WIDTH = 25  # characters, so that the counts of most tables are aligned
EXIT_ERROR = 1
EXIT_INVALID_OPTION = 2  # click's
EXIT_QUARANTINED = 3
EXIT_REFUSED = 4
EXIT_PROBLEMS = 5
EXIT_INTERRUPTED = 130
INTERRUPTED = "Interrupted. Finished tables stay as they are; the next run continues from there."


def comma_separated(
    allowed: tuple[str, ...] | None = None,
) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """A parser for an option's value such as `a,b`. If `allowed` is given, other names are invalid."""

    def parse(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in names:
            if allowed and name not in allowed:
                raise click.BadParameter(f"{name!r} is not one of {', '.join(allowed)}.")
        return names

    return parse


class JobCommand(click.Command):
    """The command; an invalid option also ends in a report, so that the file never has yesterday's success."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options. Raises UsageError."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if path := report_path_in(given):
                report = RunReport("", "")
                report.end(EXIT_INVALID_OPTION, error)
                report.error = {"class": "UsageError", "message": error.format_message()}
                try_to_write(ReportFile(path, report))
            raise


def report_path_in(arguments: list[str]) -> Path | None:
    """The value of --report among unparsed arguments."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--report" and (equals or number + 1 < len(arguments)):
            return Path(value if equals else arguments[number + 1])
    return None


@click.command(cls=JobCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--landing",
    metavar="DIR|s3://...",
    help="Folder with the raw files.  [default: LAKEHOUSE_LANDING, or data/landing]",
)
@click.option(
    "--lake",
    "lake_uri",
    metavar="s3://...",
    help="Address of the tables.  [default: LAKEHOUSE_URI, or the embedded server]",
)
@click.option(
    "--layers",
    default=",".join(LAYERS),
    show_default=True,
    callback=comma_separated(LAYERS),
    help="Run only these layers, separated by commas.",
)
@click.option(
    "--tables", default="", callback=comma_separated(), help="Run only these source and gold tables.  [default: all]"
)
@click.option(
    "--rebuild",
    "rebuilt_tables",
    default="",
    metavar="LAYER.TABLE,...",
    callback=comma_separated(),
    help="Rebuild these tables, and then the tables built from them.",
)
@click.option(
    "--sources",
    "sources_path",
    type=click.Path(path_type=Path),
    help="TOML file that describes your own tables.  [default: data/sources.toml]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="Compute the tables with DuckDB in this process, or on a Spark server.",
)
@click.option(
    "--spark-remote", metavar="sc://...", help="Address of a running Spark Connect server.  [default: start Sail]"
)
@click.option(
    "--maintain",
    "is_maintenance",
    is_flag=True,
    help="Load nothing; compact small files, and delete old files that are no longer needed.",
)
@click.option("--dry-run", is_flag=True, help="With --maintain: show what would be done, and change nothing.")
@click.option(
    "--describe", "describe", is_flag=True, help="Print a draft of a description for FILES, and do nothing else."
)
@click.option(
    "--check",
    "check",
    is_flag=True,
    help=f"Only check all tables: files, keys, references, progress. Exit with code {EXIT_PROBLEMS} if one is wrong.",
)
@click.option(
    "--status",
    "show_status",
    is_flag=True,
    help="Only show all tables: rows, files, bytes, last commit and batch, and what --maintain would do.",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path),
    help="Write a report of the run to this file, as JSON, even if the run fails.",
)
@click.option(
    "--strict",
    is_flag=True,
    help=f"Exit with code {EXIT_QUARANTINED} if rows were quarantined or a new file lacks a described column.",
)
@click.option("--quiet", is_flag=True, help="Print only errors.")
@click.option("--verbose", is_flag=True, help="Print the traceback of an error.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def main(
    *,
    is_maintenance: bool,
    dry_run: bool,
    describe: bool,
    check: bool,
    show_status: bool,
    files: tuple[Path, ...],
    landing: str | None,
    lake_uri: str | None,
    layers: tuple[str, ...],
    tables: tuple[str, ...],
    rebuilt_tables: tuple[str, ...],
    sources_path: Path | None,
    engine: str,
    spark_remote: str | None,
    report_path: Path | None,
    strict: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Bring the lakehouse up to date with the raw files: landing -> bronze -> silver -> gold.

    Only new files are loaded, so you can stop the job and start it again at any time. Rows that cannot be parsed or
    that break a rule go to quarantine/<table> in the lake, with their file, line and reason.
    """
    if describe != bool(files):
        raise click.UsageError("--describe needs at least one FILE, and FILE needs --describe.")
    if dry_run and not is_maintenance:
        raise click.UsageError("Add --maintain to use --dry-run.")
    of_a_run = {
        "--rebuild": rebuilt_tables,
        "--describe": describe,
        "--strict": strict,
        "--spark-remote": spark_remote,
        "--engine": engine != "local",
    }
    if is_maintenance:
        refuse_together("--maintain", of_a_run | {"--landing": landing, "--check": check, "--status": show_status})
    if check or show_status:
        of_some_tables = {"--tables": tables, "--layers": layers != LAYERS}
        action, other = ("--check", {"--status": show_status}) if check else ("--status", {})
        refuse_together(action, of_a_run | of_some_tables | other)
    escape_unprintable_letters()
    output = Output(sys.stdout)
    command = "maintain" if is_maintenance else "check" if check else "status" if show_status else "run"
    failure = "could not be maintained" if is_maintenance else "could not be brought up to date"
    display = RunDisplay(quiet, output, failure)
    report: RunReport | MaintenanceReport = (
        MaintenanceReport(lake_uri or "", dry_run)
        if is_maintenance
        else RunReport(engine, lake_uri or "", command=command)
    )
    report_file: ReportFile | None = None
    lake: Lake | None = None
    may_be_empty = command != "run"  # the lake, as far as this command has seen
    try:
        if report_path and not describe:
            new_file = ReportFile(report_path, report)
            new_file.write()  # in place of the last run's, in case this run is killed
            report_file = new_file
        machine_errors.raise_open_file_limit()
        if describe:
            click.echo(draft(files), nl=False)
            return
        config = settings.load()
        described = sources.load(sources_path or sources.SHOP)
        if not is_maintenance:
            require_known_tables(tables, [*described, *gold.TABLES])
        if engine == "local" and __name__ == "__main__":
            sys.meta_path.insert(0, PandasBlocker())
        with display:
            lake = Lake.open(lake_uri, config)
            report.lake = lake.root
            selection = Selection(layers, tables, rebuilt_tables)
            context = RunContext(lake, open_engine(engine, lake, spark_remote), display, config.state_dir)
            if isinstance(report, MaintenanceReport):
                maintain(lake, described, display, Options(selection, dry_run), report)
            elif check:
                for table in checks.check(context, described):
                    may_be_empty = False
                    report.problems += table.problems
                    display.show_check(table)
            elif show_status:
                report.tables += status(lake, described)
            else:
                run(context, landing or config.landing, described, selection, report)
        code = exit_code(report, strict)
        report.end(code)
        if may_be_empty and not report.tables and not lake.tables():
            display.on_note(f"there are no tables at {lake.root} (--lake, LAKEHOUSE_URI)")
        else:
            record_run(lake, report)
        if report_file:
            report_file.write()
        display.show_summary(report)
        output.require_written()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the command line reports any error in one line
        interrupted = isinstance(error, KeyboardInterrupt) or is_interrupted_query(error)
        code = EXIT_INTERRUPTED if interrupted else EXIT_ERROR
        report.end(code, error, interrupted=interrupted)
        if report_file:
            try_to_write(report_file)
        if lake and not isinstance(error, StorageError):
            record_run(lake, report)
        fail(INTERRUPTED if interrupted else sentence_of(error), verbose, code)
    sys.exit(code)


def refuse_together(action: str, options: dict[str, Any]) -> None:
    """Raise UsageError if an option was given that does not apply to this action."""
    if given := [name for name, value in options.items() if value]:
        raise click.UsageError(f"{action} cannot be combined with {', '.join(given)}.")


def record_run(lake: Lake, report: RunReport | MaintenanceReport) -> None:
    """Add a run to the lake's table of runs. If that fails, print a note; the run itself does not fail."""
    if report.command in ("check", "status") or (isinstance(report, MaintenanceReport) and report.dry_run):
        return  # they change nothing
    try:
        run_history.append(lake, report)
    except (LakehouseError, DeltaError, OSError, KeyboardInterrupt) as error:
        sentence = printable(" ".join(str(error).split())) or "interrupted"
        plain_console(stderr=True).print(f"Note: could not add this run to operations.runs: {sentence}")


def exit_code(report: RunReport | MaintenanceReport, strict: bool) -> int:
    """The exit code of a run that did its work."""
    if isinstance(report, MaintenanceReport):
        return 0
    if report.problems:
        return EXIT_PROBLEMS
    if report.refused:
        return EXIT_REFUSED
    return EXIT_QUARANTINED if strict and (report.quarantined or report.missing_columns) else 0


def sentence_of(error: BaseException) -> str:
    """What to print for an error."""
    if isinstance(error, LocalServerError):  # has lines of the server's log
        return "\n".join(map(printable, str(error).splitlines()))
    message = printable(" ".join(str(error).split()))
    if isinstance(error, LakehouseError):
        return message
    if machine_error := machine_errors.recognize(error, "finish"):
        return str(machine_error)
    return f"Unexpected {type(error).__name__}: {message} (Run again with --verbose to see where.)"


def require_known_tables(names: tuple[str, ...], known: list[str]) -> None:
    """Raise SettingError for a table name that does not exist."""
    if unknown := sorted(set(names) - set(known)):
        raise SettingError(
            f"--tables: no table is called {', '.join(unknown)}. The tables are {', '.join(known)}.", setting="--tables"
        )


def try_to_write(report_file: ReportFile) -> None:
    """Write the report of a run that failed. If that fails too, say so, and go on to the run's own error."""
    try:
        report_file.write()
    except SettingError as error:
        plain_console(stderr=True).print(f"Note: {printable(str(error))}")


def fail(sentence: str, verbose: bool, code: int = EXIT_ERROR) -> NoReturn:
    """Print an error and exit."""
    console = plain_console(stderr=True)
    if verbose:
        console.print_exception()
    console.print(Text.assemble(("Error:", "bold red"), " ", sentence))
    sys.exit(code)


def plain_console(file: "Output | None" = None, *, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text unchanged, even [red] or :apple: in the name of a file or in an error."""
    return Console(
        file=cast("IO[str]", file),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        stderr=stderr,
        quiet=quiet,
    )


def escape_unprintable_letters() -> None:
    """Write a letter that the terminal or the file cannot show as an escape, instead of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Output:
    """The standard output. If it cannot be written, the rest is dropped and the job goes on.

    Not being able to print is no reason to leave tables half done. A program that reads only the first lines, such as
    `head`, is not an error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._error: OSError | None = None
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        return self._try(lambda stream: stream.write(text)) or len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the file."""
        return sys.stdout.fileno()

    def require_written(self) -> None:
        """Raise SettingError if a part of the output was lost, unless its reader ended."""
        if self._error and not isinstance(self._error, BrokenPipeError):
            raise SettingError(
                f"The command finished, but its output could not be written: {self._error.strerror}. Redirect"
                " it to another place.",
                setting="stdout",
            )

    def _try(self, action: Callable[[TextIO], Any]) -> Any:  # noqa: ANN401 - what the action returns
        if self._stream is None:
            return None
        try:
            return action(self._stream)
        except OSError as error:
            self._error = error
            self._stream = None
            # The interpreter writes what is left in the buffer at its end, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


class RunDisplay:
    """Shows a run: one line per table, and in a terminal also a bar for the table that is being worked on.

    `show_summary` says at the end what to do next. With --quiet only errors are shown.
    """

    def __init__(self, quiet: bool, output: Output, failure: str = "could not be brought up to date") -> None:
        self._quiet = quiet
        self._failure = failure
        self._output = plain_console(output, quiet=quiet)
        self._errors = plain_console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=self._output,
            disable=quiet or not self._output.is_terminal,
            transient=True,
        )
        self._bar = TaskID(0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        """See Progress."""
        self._bar = self._bars.add_task(f"{layer}.{table}", total=size_bytes)

    def on_advance(self, size_bytes: int) -> None:
        """See Progress."""
        self._bars.advance(self._bar, size_bytes)

    def on_table_end(self, layer: str, table: str, counts: TableCounts) -> None:
        """See Progress."""
        self._show_table(layer, table, describe(counts), count_style(counts))

    def on_table_maintained(self, layer: str, table: str, done: TableMaintenance) -> None:
        """See MaintenanceProgress."""
        self._show_table(layer, table, str(done), "yellow" if done.left_alone else "dim" if done.is_idle else "none")

    def _show_table(self, layer: str, table: str, text: str, style: str) -> None:
        self._bars.remove_task(self._bar)
        name = f"{layer}.{table}" if layer else table
        if self._output.is_terminal:
            self._output.print(Text.assemble(("✓ ", "green"), name.ljust(NAME_WIDTH), " ", (text, style)))
        else:
            self._output.print(f"{name}: {text}")

    def on_table_failed(self, layer: str, table: str) -> None:
        """See Progress."""
        self._bars.remove_task(self._bar)
        self._errors.print(f"{layer}.{table} {self._failure}")

    def on_note(self, sentence: str) -> None:
        """See Progress."""
        if not self._quiet:
            self._errors.print(f"Note: {printable(sentence)}")

    def on_refused_file(self, sentence: str) -> None:
        """See Progress."""
        self._errors.print(f"Could not read {printable(sentence)}")

    def show_check(self, table: checks.Checked) -> None:
        """Print a checked table, and what is wrong with it."""
        for problem in table.problems:
            self._errors.print(f"{problem.table} ({problem.check}): {printable(problem.sentence)}")
        if not table.problems:
            self._output.print(f"{table.label}: {counted(table.rows, 'row')} in {counted(table.files, 'file')}")

    def _show_end_of_check(self, report: RunReport) -> None:
        """The end of the output of a check."""
        if report.problems:
            self._errors.print(f"{counted(len(report.problems), 'problem')} in {report.lake}.")
        else:
            self._output.print(f"No problems in {report.lake}.")

    def show_summary(self, report: RunReport | MaintenanceReport) -> None:
        """The end of the output: what changed, what is in quarantine, and what to do next."""
        if isinstance(report, MaintenanceReport):
            self._show_end_of_maintenance(report)
            return
        if report.command == "check":
            self._show_end_of_check(report)
            return
        if report.command == "status":
            self._show_status(report.tables)
            return
        if report.quarantined:
            self._output.print(
                f"{report.quarantined:,} rows or files were quarantined: see {report.lake}/quarantine/<table> for each,"
                " with the reason."
            )
        if not report.changed_anything:
            self._output.print("Nothing new: every table was up to date already.")
        self._output.print(f"{report.lake} is up to date after {report.seconds:.1f} s.")
        if self._output.is_terminal:
            self._output.print("Next: `make lab` opens the notebooks, which read these tables.")

    def _show_status(self, tables: list[TableStatus]) -> None:
        """One line per table, with aligned columns: text to the left, numbers to the right."""
        lines = [list(HEADINGS), *map(as_row, tables)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        texts = {"table", "last commit", "last batch", "--maintain"}
        for line in lines:
            cells = [
                cell.ljust(width) if heading in texts else cell.rjust(width)
                for heading, cell, width in zip(HEADINGS, line, widths, strict=True)
            ]
            self._output.print(printable("  ".join(cells).rstrip()))

    def _show_end_of_maintenance(self, report: MaintenanceReport) -> None:
        if report.status == SKIPPED:
            return
        saved = sum(done.files_before - done.files_after for done in report.tables.values())
        freed = f"{saved:,} fewer files to read, {report.bytes_freed / 1e6:,.1f} MB freed"
        if report.dry_run:
            self._output.print(f"Nothing was changed. Without --dry-run: {freed}.")
        else:
            self._output.print(f"Maintained {report.lake} in {report.seconds:.1f} s: {freed}.")


def describe(counts: TableCounts) -> str:
    """The counts that are not zero: `1,500 read, 3 added`."""
    rows = {name: getattr(counts, name) for name in ("read", "added", "changed", "quarantined")}
    return ", ".join(f"{number:,} {name}" for name, number in rows.items() if number) or "nothing new"


def count_style(counts: TableCounts) -> str:
    """The color of a table's counts in a terminal: yellow if rows were quarantined, dim if nothing was new."""
    if counts.quarantined:
        return "yellow"
    return "none" if counts.read else "dim"


class PandasBlocker(importlib.abc.MetaPathFinder):
    """Makes this process run as if pandas were not installed.

    pyarrow imports pandas, if it can, as soon as an array is made of Python values, and that takes a second or more.
    Neither pyarrow nor DuckDB has an option to prevent it, and nothing in the local engine needs pandas.
    """

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> None:
        """Refuse `import pandas`, and leave everything else to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("This process does not use pandas", name=fullname)


if __name__ == "__main__":
    main()
