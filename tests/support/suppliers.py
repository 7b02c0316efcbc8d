"""Suppliers that deliver raw files of one small table to a folder or to S3, and have them loaded into bronze."""

from collections.abc import Callable
from pathlib import Path

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import bronze
from lakehouse_utils.pipeline.context import NoProgress, RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.landing import Landing
from lakehouse_utils.pipeline.sources import Source

THINGS = Source(name="things", key=["id"], columns={"id": {"type": "integer"}, "name": {"type": "text"}})


class _Advances(NoProgress):
    """Calls a function for the bytes that are done."""

    def __init__(self, on_advance: Callable[[int], None]) -> None:
        self.on_advance = on_advance


def run_context(lake: Lake, on_advance: Callable[[int], None] = lambda size: None) -> RunContext:
    """A run on the local engine that shows nothing."""
    return RunContext(lake, LocalEngine(lake), _Advances(on_advance))


class Supplier:
    """Delivers files to a folder, or to S3, and has them loaded."""

    def __init__(self, lake: Lake, folder: Path, on_s3: bool) -> None:
        self.lake, self.folder, self.on_s3 = lake, folder, on_s3
        self.address = f"{lake.root}/landing at s3" if on_s3 else str(folder)

    def key(self, path: str) -> dict[str, str]:
        return {"Bucket": self.lake.bucket, "Key": self.lake.key("landing at s3", path)}

    def deliver(self, path: str, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        if self.on_s3:
            self.lake.s3.put_object(**self.key(path), Body=data)
        else:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)

    def remove(self, path: str) -> None:
        if self.on_s3:
            self.lake.s3.delete_object(**self.key(path))
        else:
            (self.folder / path).unlink()

    def load(self, on_advance: Callable[[int], None] = lambda size: None) -> tuple[TableCounts, list[str]]:
        landing = Landing(self.address, self.lake)
        files = [file for file in landing.files()[0] if file.table == "things"]
        counts, refused = bronze.refresh(run_context(self.lake, on_advance), landing, THINGS, files)
        assert counts.read == counts.added + counts.quarantined
        return counts, refused

    def table(self, layer: str = "bronze") -> list[dict]:
        table = self.lake.delta(layer, "things")
        rows = table.to_pyarrow_table().to_pylist() if table else []
        return sorted(rows, key=lambda row: (row["_source_file"], row["_ingested_at"], row["_source_line"] or 0))

    def loaded(self) -> list[tuple]:
        return [(row["_source_file"], row["_source_line"], row["id"]) for row in self.table()]

    def quarantined(self) -> list[tuple]:
        return [
            (row["_source_file"], row["_source_line"], row["raw"], row["reason"]) for row in self.table("quarantine")
        ]
