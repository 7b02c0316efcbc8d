"""Which files of a table a compaction rewrites, and which of them in one commit."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

import pyarrow as pa
from deltalake import DeltaTable

from lakehouse_utils.pipeline.rewrite import Layout, LiveFile
from lakehouse_utils.pipeline.table_objects import PLAIN_PATH

# A rewrite pays if it saves at least this many files, and rewrites at most this many bytes per saved file: a full scan
# gets about 2 ms faster for each file (measured on the embedded server), and rewriting 2 MB takes about 50 ms.
MIN_SAVED_FILES = 8
MAX_BYTES_PER_SAVED_FILE = 2 << 20
_MAX_REWRITE_BYTES, _MAX_REWRITE_FILES = 128 << 20, 2_000  # of one commit; limits local disk space


def live_files(table: DeltaTable, layout: Layout) -> list[LiveFile]:
    """The data files of a table at its open version."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    first = f"min.{layout.sort_key[0]}" if layout.sort_key else ""
    modified = [action["modification_time"] for action in actions]
    return [
        LiveFile(
            action["path"],
            action["size_bytes"],
            int(at.timestamp() * 1000) if isinstance(at, datetime) else int(at),
            action.get(first),
        )
        for action, at in zip(actions, modified, strict=True)
    ]


def plan_rewrites(files: Sequence[LiveFile], layout: Layout) -> list[list[LiveFile]]:
    """The groups of files that are worth rewriting, each in one commit.

    Small files are those below half of the target. The smallest are taken first, and only as many as are worth it, so a
    file that has grown is not rewritten again for a few small ones.
    """
    small = sorted(
        (file for file in files if file.size_bytes < layout.target_bytes / 2 and PLAIN_PATH.fullmatch(file.path)),
        key=lambda file: (file.size_bytes, file.path),
    )
    chosen, size_bytes, best = 0, 0, 0
    for file in small:
        chosen, size_bytes = chosen + 1, size_bytes + file.size_bytes
        saved = chosen - files_for(size_bytes, layout)
        if saved >= MIN_SAVED_FILES and size_bytes <= saved * MAX_BYTES_PER_SAVED_FILE:
            best = chosen
    groups: list[list[LiveFile]] = []
    for file in _in_order(small[:best]):
        if (
            not groups
            or total_bytes(groups[-1]) + file.size_bytes > _MAX_REWRITE_BYTES
            or len(groups[-1]) >= _MAX_REWRITE_FILES
        ):
            groups.append([])
        groups[-1].append(file)
    return [group for group in groups if len(group) > files_for(total_bytes(group), layout)]


def _in_order(files: list[LiveFile]) -> list[LiveFile]:
    """Files by the start of their key range, if all have one; otherwise in the order in which they were written."""
    with suppress(TypeError):  # missing values cannot be compared
        return sorted(files, key=lambda file: (file.min_key, file.modified_ms, file.path))
    return sorted(files, key=lambda file: (file.modified_ms, file.path))


def files_for(size_bytes: int, layout: Layout) -> int:
    """How many files a rewrite of so many bytes leaves."""
    return -(-size_bytes // layout.target_bytes)


def total_bytes(files: Iterable[LiveFile]) -> int:
    """The size of all these files."""
    return sum(file.size_bytes for file in files)
