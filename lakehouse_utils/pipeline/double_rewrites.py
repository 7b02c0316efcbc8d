"""Finds tables in which rows are duplicated, or replaced rows are back, because delta-rs accepted conflicting commits.

Two programs open a table at the same version. One compacts it, and the other, which still has the old version,
compacts, Z-orders or overwrites it. delta-rs 1.6.6 accepts the second commit for seven such pairs of operations, and
the table then has the rows of both. `rewrite.py` commits in a way that makes delta-rs refuse each of these second
commits, but this does not help if neither of the two programs uses it.

The log shows such a double rewrite afterwards: the second commit removes files that the first one had already removed,
or it is an overwrite that leaves files of earlier versions in the table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import Commit, DeltaLog
from lakehouse_utils.lake.s3_errors import translate_errors


@dataclass(frozen=True)
class DoubleRewrite:
    """The commit `version` was accepted although it was based on a version before `earlier_version`.

    `earlier_version` is None if its commit is no longer in the log, or was not examined. `paths` are the files that
    both commits removed, or, after an overwrite, those that it should have removed.
    """

    version: int
    operation: str
    earlier_version: int | None
    earlier_operation: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        earlier = "an earlier commit" if self.earlier_version is None else f"version {self.earlier_version}"
        by = f" ({self.earlier_operation})" if self.earlier_operation else ""
        return f"version {self.version} ({self.operation or 'a commit'}) did not take {earlier}{by} into account"


def find_double_rewrites(commits: Iterable[Commit], live: Iterable[str]) -> list[DoubleRewrite]:
    """The double rewrites among `commits`, in order, whose wrong rows are still in the table after the last commit.

    `live` are the paths of the table's files before the first of these commits. A double rewrite is over when an
    overwrite replaces all files, or a RESTORE goes back to a version before it.
    """
    files = _Files(live)
    double: list[DoubleRewrite] = []
    over: dict[DoubleRewrite, int] = {}  # the version that removed the wrong rows
    for commit in commits:
        twice = files.apply(commit)
        if commit.operation == "RESTORE":
            # A version has only files that it, or an earlier version, added for the first time.
            over = {
                found: commit.version
                for found in double
                if not files.any_from(found.version, over.get(found, commit.version))
            }
        elif _is_complete_overwrite(commit):
            survivors = tuple(path for path in files.live if files.added_by[path] != commit.version)
            if not survivors:
                over |= {found: commit.version for found in double if found not in over}
            elif not twice:
                earlier = max(files.added_by[path] for path in survivors)
                double.append(
                    DoubleRewrite(commit.version, commit.operation, None if earlier < 0 else earlier, "", survivors)
                )
        if twice and commit.operation != "RESTORE":
            double.append(_double_rewrite(commit, twice, files.removed_by))
    return [found for found in double if found not in over]


def examine(ref: TableRef, since: int, until: int) -> list[DoubleRewrite]:
    """The double rewrites in the versions after `since`, up to `until`, whose wrong rows are still in the table.

    `since` is -1 for the whole log. Raises StorageError, and MissingCommitError if the log does not have the versions.
    """
    log = DeltaLog.of_ref(ref)
    with translate_errors(f"read the log of {ref.label}", ref.lake):
        if since < 0:
            versions = [version for version in log.versions() if version <= until]
            if not versions:  # another program removed the commits up to a checkpoint in the meantime
                return []
            since = versions[0] if versions[0] > 0 else -1
        before = ref.open(since) if since >= 0 else None
        live = pa.table(before.get_add_actions(flatten=True))["path"].to_pylist() if before else []
        return find_double_rewrites(log.commits(range(since + 1, until + 1)), map(unquote, live))


class _Files:
    """The live files of a table, commit by commit."""

    def __init__(self, live: Iterable[str]) -> None:
        self.live = set(live)
        self.added_by = dict.fromkeys(self.live, -1)  # by path: the version that added the file for the first time
        self.removed_by: dict[str, Commit] = {}

    def apply(self, commit: Commit) -> tuple[str, ...]:
        """Apply a commit. Returns the paths that it removes although they are not live."""
        removed = [unquote(remove["path"]) for remove in commit.of_kind("remove")]
        twice = tuple(path for path in removed if path not in self.live)
        self.live.difference_update(removed)
        self.removed_by = dict.fromkeys(removed, commit) | self.removed_by
        for path in (unquote(add["path"]) for add in commit.of_kind("add")):
            self.live.add(path)
            self.added_by.setdefault(path, commit.version)
            self.removed_by.pop(path, None)
        return twice

    def any_from(self, first: int, end: int) -> bool:
        """Whether any live file was added for the first time by a version from `first` to before `end`."""
        return any(first <= self.added_by[path] < end for path in self.live)


def _double_rewrite(commit: Commit, paths: tuple[str, ...], removed_by: dict[str, Commit]) -> DoubleRewrite:
    earlier = next((removed_by[path] for path in paths if path in removed_by), None)
    if earlier is None:
        return DoubleRewrite(commit.version, commit.operation, None, "", paths)
    return DoubleRewrite(commit.version, commit.operation, earlier.version, earlier.operation, paths)


def _is_complete_overwrite(commit: Commit) -> bool:
    """Whether the commit was meant to remove all files that the table had."""
    parameters = commit.info.get("operationParameters", {})
    is_partial = parameters.get("predicate") or parameters.get("partitionBy") not in (None, "[]")
    return commit.operation == "WRITE" and parameters.get("mode") == "Overwrite" and not is_partial
