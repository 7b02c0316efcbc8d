"""What every step of the pipeline works with: the lake, the engine, and the progress display."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.log_states import LogStates


@dataclass
class TableCounts:
    """What one step did to one table, in rows.

    `version` is the table's version after the step, `last_batch` the newest batch whose rows it has, if that is known.
    `missing_columns` has a sentence for each new file that lacks a described column.
    `seconds` is how long the step took, with its further attempts.
    `rebuilt` says why the table was computed from all rows of its inputs; None if only what was new was read.
    """

    read: int = 0
    added: int = 0
    changed: int = 0
    quarantined: int = 0
    version: int | None = None
    rebuilt: str | None = None
    last_batch: str | None = field(default=None, compare=False)
    missing_columns: list[str] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)

    @property
    def changed_anything(self) -> bool:
        """Whether the table has other rows than before the step, or rows of it were quarantined."""
        return bool(self.added or self.changed or self.quarantined)


class Progress(Protocol):
    """Receives the events of a run, to show them."""

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        """Work on a table starts. `size_bytes` is the total size of its raw files; None for silver and gold."""

    def on_advance(self, size_bytes: int) -> None:
        """Another `size_bytes` of the raw files have been processed."""

    def on_table_end(self, layer: str, table: str, counts: TableCounts) -> None:
        """A table is up to date."""

    def on_table_failed(self, layer: str, table: str) -> None:
        """A table could not be brought up to date. The run goes on with others, and raises the error at its end."""

    def on_note(self, sentence: str) -> None:
        """Something that the user should know, but that does not stop the run."""

    def on_refused_file(self, sentence: str) -> None:
        """A raw file cannot be read at all. The sentence starts with its path."""


class NoProgress:
    """A Progress that shows nothing."""

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        """Nothing is shown."""

    def on_advance(self, size_bytes: int) -> None:
        """Nothing is shown."""

    def on_table_end(self, layer: str, table: str, counts: TableCounts) -> None:
        """Nothing is shown."""

    def on_table_failed(self, layer: str, table: str) -> None:
        """Nothing is shown."""

    def on_note(self, sentence: str) -> None:
        """Nothing is shown."""

    def on_refused_file(self, sentence: str) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class RunContext:
    """What every step of one run shares. `state_path` is a folder for what one run leaves to the next, if any.

    The context of a single step has the `whole_run` that it is part of.
    """

    lake: Lake
    engine: Engine
    progress: Progress
    state_path: Path | None = None
    whole_run: Self | None = None

    @cached_property
    def logs(self) -> LogStates:
        """What the tables' logs say, and the open tables."""
        return self.whole_run.logs if self.whole_run else LogStates(self.lake)

    def for_step(self, engine: Engine, progress: Progress) -> Self:
        """The same run for a step that uses this engine, and whose events go to `progress`."""
        return replace(self, engine=engine, progress=progress, whole_run=self)
