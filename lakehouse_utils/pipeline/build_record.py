"""What a table was built from, recorded in the table's own log, and whether that is still true.

Every commit of the pipeline carries application transactions (see `lake/delta_log.py`): `pipeline`, by which the commit
is recognized as its own; the position of each input up to which the table covers it; and a digest of the description
and of the SQL. The tables' histories show whether the record is still correct. It does not count after

- another program changed the table's rows, for example by RESTORE or DELETE;
- an input was replaced, restored, rebuilt or lost rows since the recorded position;
- the description or the SQL changed.

Then `refresh` in `silver.py` and `gold.py` computes the table from all rows of its inputs and writes what differs.
OPTIMIZE, VACUUM and checkpoints change no rows, so they do no harm.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from deltalake import CommitProperties, DeltaTable, Transaction

from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import Commit, DeltaLog, MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors

DEFINITION = "definition"  # app id of the digest of the description and of the SQL

# App ids of the pipeline's commits; the values are versions of the table.
_OWN = "pipeline"  # the version that the commit was meant to become
_ENGINE_COMMIT = "pipeline: engine commit"  # an earlier commit, in which the engine wrote the rows
_REBUILT = "pipeline: rebuilt"  # only in a commit that may also have removed rows

_MAX_LAG = 50  # commits without new rows after which a table records the position of its input again

Transactions = Mapping[str, int]  # versions of application transactions, by app id


@dataclass(frozen=True)
class Position:
    """A point in the history of a table: a version, and the digest of its commit file.

    A table with another commit at this version is another table, or has lost commits.
    """

    version: int
    digest: int

    def transactions(self, label: str) -> dict[str, int]:
        """What a commit records if its table covers the input `label` up to this position."""
        return {label: self.version, f"{label} commit": self.digest}


@dataclass(frozen=True)
class CommitRecord:
    """What a commit of the pipeline records: transactions by app id, and whether it rebuilds the table.

    A commit that rebuilds a table may remove rows for other reasons than that newer rows replace them. `read_version`
    is given if the commit is only right directly after this version (-1: if there was no table).
    """

    transactions: Transactions
    rebuilds: bool = False
    read_version: int | None = None

    @property
    def first(self) -> tuple[str, int]:
        """The app id and the version of the first transaction, by which a commit of rows is recognized."""
        return next(iter(self.transactions.items()))

    def properties(self, table: DeltaTable | None, engine_commit: int | None = None) -> CommitProperties:
        """The properties of the next commit to `table` (None: of the commit that creates it).

        `engine_commit` is the version of the commit in which the engine has already written the rows, if it does not
        take properties. The commit fails with CommitFailedError if another one of the pipeline comes first; a commit
        that creates or rebuilds the table fails if any other commit comes first.
        """
        version = 0 if table is None else table.version() + 1
        own = {_OWN: version}
        if self.rebuilds:
            own[_REBUILT] = version
        if engine_commit is not None:
            own[_ENGINE_COMMIT] = engine_commit
        # A stale overwrite would keep the rows of the other commit, and a stale creation would replace its columns.
        retries = 0 if self.rebuilds or self.read_version is not None or table is None else None
        transactions = [Transaction(app_id, value) for app_id, value in {**self.transactions, **own}.items()]
        return CommitProperties(max_commit_retries=retries, app_transactions=transactions)


@dataclass(frozen=True)
class BuildRecord:
    """What the last commit of the pipeline recorded, and what happened to the table after it.

    `foreign_change` says what another program did to the rows, to follow "it"; None if nothing. `restored_to` is the
    version that it restored, if it did so. `head` is the table's current position; None if there is no table.
    """

    head: Position | None = None
    transactions: Transactions = field(default_factory=dict)
    foreign_change: str | None = None
    restored_to: int | None = None

    def covered(self, label: str) -> Position | None:
        """The position up to which the table covers an input; None if it does not say."""
        version, digest = self.transactions.get(label), self.transactions.get(f"{label} commit")
        return None if version is None or digest is None else Position(version, digest)

    def has_other_definition(self, definition: int) -> bool:
        """Whether the table was built by another description or SQL than the one with this digest."""
        return self.transactions.get(DEFINITION, definition) != definition


@dataclass(frozen=True)
class InputChange:
    """What happened to an input after the position that a table covers.

    `rebuild` says why the table has to be computed from all rows of the input, as a clause; None if what was added is
    enough. `adds_rows` says whether any row was added or changed, `added` has the add actions of new files.
    `commits` is the number of commits.
    """

    rebuild: str | None
    adds_rows: bool = False
    added: list[dict[str, object]] = field(default_factory=list)
    commits: int = 0

    @property
    def is_worth_recording(self) -> bool:
        """Whether there were so many commits that a clean-up of the log may soon remove the recorded position."""
        return self.commits > _MAX_LAG


def why_rebuild(
    record: BuildRecord, changes: Iterable[InputChange], definition: int, name_of_definition: str
) -> str | None:
    """Why a table has to be computed from all rows of its inputs, to follow "because"; None if what is new is enough.

    `definition` is the digest of the description and the SQL; `name_of_definition` is what a user calls them.
    """
    if record.foreign_change:
        return f"it {record.foreign_change}"
    if record.has_other_definition(definition):
        return f"{name_of_definition} has changed"
    return next((change.rebuild for change in changes if change.rebuild), None)


def is_own(app_id: str) -> bool:
    """Whether an app id is one of those that say something about the commit itself, not about an input."""
    return app_id in (_OWN, _ENGINE_COMMIT, _REBUILT)


def read(ref: TableRef, table: DeltaTable | None) -> BuildRecord:
    """The build record of a table. Reads the log backwards to the last commit of the pipeline, usually one file.

    Raises StorageError if the log cannot be read.
    """
    if table is None:
        return BuildRecord()
    with translate_errors(f"read the log of {ref.label}", ref.lake):
        return read_at(ref, DeltaLog.of_ref(ref), table.version())


def read_at(ref: TableRef, log: DeltaLog, head: int) -> BuildRecord:
    """Like `read`, for the table's version `head`."""
    later = list[Commit]()
    try:
        for version in range(head, -1, -1):
            commit = log.commit(version)
            if _OWN in commit.transactions:
                return _record(ref, log, commit, later)
            later.append(commit)
    except MissingCommitError:
        pass  # a clean-up removed the commits before a checkpoint
    position = Position(head, later[0].digest) if later else None
    return BuildRecord(position, restored_to=_last_restored(ref, later))


def advance(ref: TableRef, log: DeltaLog, earlier: BuildRecord, commits: Sequence[Commit]) -> BuildRecord:
    """The build record of a table after `commits`, which follow in order on the head of the `earlier` record.

    It is what `read` returns. Raises StorageError if the log cannot be read.
    """
    newest_first = list(reversed(commits))
    for number, commit in enumerate(newest_first):
        if _OWN in commit.transactions:
            with suppress(MissingCommitError):
                return _record(ref, log, commit, newest_first[:number])
    head = Position(newest_first[0].version, newest_first[0].digest)
    if not earlier.transactions:  # the pipeline has never made a commit, or its commits are no longer in the log
        return BuildRecord(head, restored_to=_newer(_last_restored(ref, newest_first), earlier.restored_to))
    foreign = [commit for commit in newest_first if commit.adds_rows or commit.removes_rows]
    return BuildRecord(
        head,
        earlier.transactions,
        _what(foreign[0]) if foreign else earlier.foreign_change,
        _newer(_last_restored(ref, foreign), earlier.restored_to),
    )


def _newer(restored_to: int | None, earlier: int | None) -> int | None:
    return earlier if restored_to is None else restored_to


def unchanged_since(commits: Iterable[Commit], earlier: Sequence[Position] = ()) -> list[Position]:
    """The positions after which a table's rows did not change, among `earlier` ones and those of later `commits`.

    At most as many as matter: a table that covers an even earlier position records it again.
    """
    positions = list(earlier)
    for commit in commits:
        if commit.adds_rows or commit.removes_rows or _REBUILT in commit.transactions:
            positions.clear()
        positions.append(Position(commit.version, commit.digest))
    return positions[-_MAX_LAG - 2 :]


def changes_since(
    ref: TableRef,
    record: BuildRecord,
    covered: Position | None,
    *,
    accept_appends: bool = False,
    log: DeltaLog | None = None,
) -> InputChange:
    """What happened to the input `ref`, whose own record is `record`, after the position `covered`.

    `accept_appends` says that rows which another program added are as good as the pipeline's own. `log` is the input's
    log, if the caller has it. Raises StorageError if the log cannot be read.
    """
    if covered is None or record.head is None:
        return InputChange(f"its log does not say which version of {ref.label} it covers")
    if record.head == covered:
        return InputChange(None)
    log = log or DeltaLog.of_ref(ref)
    try:
        with translate_errors(f"read the log of {ref.label}", ref.lake):
            commits = list(log.commits(range(covered.version, record.head.version + 1)))
    except MissingCommitError:
        return InputChange(f"the log of {ref.label} no longer reaches back to version {covered.version}")
    if not commits or commits[0].digest != covered.digest:
        return InputChange(f"{ref.label} is not the table that it was built from")
    added: list[dict[str, object]] = []
    engine_commits = {commit.transactions.get(_ENGINE_COMMIT) for commit in commits}
    for commit in commits[1:]:
        is_by_pipeline = _OWN in commit.transactions or commit.version in engine_commits
        if _REBUILT in commit.transactions:
            return InputChange(f"{ref.label} was rebuilt")
        if not is_by_pipeline and (commit.removes_rows or (commit.adds_rows and not accept_appends)):
            return InputChange(f"{ref.label} {_what(commit)}")
        added += [add for add in commit.of_kind("add") if add["dataChange"]]
    has_changes = any(commit.adds_rows or commit.removes_rows for commit in commits[1:])
    return InputChange(None, has_changes, added, len(commits) - 1)


def _record(ref: TableRef, log: DeltaLog, own: Commit, later: list[Commit]) -> BuildRecord:
    """The record of the commit `own`. `later` are the commits after it, the newest first. Raises MissingCommitError."""
    # A commit that lost a race gets a later version than it was meant to; what came first is foreign.
    others = [*later, *log.commits(range(own.transactions[_OWN], own.version))]
    head = (later or [own])[0]
    engine_commit = own.transactions.get(_ENGINE_COMMIT)
    foreign = [
        commit
        for commit in sorted(others, key=lambda commit: -commit.version)
        if (commit.adds_rows or commit.removes_rows)
        and _OWN not in commit.transactions
        and commit.version != engine_commit
    ]
    foreign_change = _what(foreign[0]) if foreign else None
    return BuildRecord(
        Position(head.version, head.digest), own.transactions, foreign_change, _last_restored(ref, foreign)
    )


def _what(commit: Commit) -> str:
    if commit.operation == "RESTORE":
        return f"was restored to an earlier version (RESTORE at version {commit.version})"
    if commit.operation == "MERGE" and not commit.is_by_delta_rs:
        # By another program, or by a run on Spark that was stopped before it recorded the MERGE.
        return f"was changed by a MERGE that no run has recorded (version {commit.version})"
    return f"was changed by another program ({commit.operation or 'a commit'} at version {commit.version})"


def _last_restored(ref: TableRef, newest_first: list[Commit]) -> int | None:
    """The version that the last RESTORE among some commits went back to; None if there is no RESTORE."""
    restore = next((commit for commit in newest_first if commit.operation == "RESTORE"), None)
    if restore is None:
        return None
    if (version := restore.info.get("operationParameters", {}).get("version")) is not None:
        return int(version)
    # It names a time. Clocks are no help, so look for the version with the same files.
    files = _files(ref, restore.version)
    version = restore.version - 1
    while version > 0 and _files(ref, version) != files:
        version -= 1
    while version > 0 and _files(ref, version - 1) == files:
        version -= 1
    return version


def _files(ref: TableRef, version: int) -> set[str]:
    table = ref.open(version)
    return set(table.file_uris()) if table else set()
