"""The exercises of notebook 08: a join by time, the tables that a batch changes, a cursor in the commit."""

import secrets
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

_CITIES = {1: "Lima", 2: "Porto", 3: "Lima", 4: "Quito", 5: "Oslo", 6: "Unknown"}
_CHOICES = {
    "bronze.customers",
    "silver.customers",
    "silver.customers_history",
    "gold.dim_customers",
    "gold.fact_sales",
}

Load = Callable[[DeltaTable, DeltaTable], Any]


@exercise("08.1", "Join by time", expects=dict)
def check_cities(answer: dict[Any, Any], lake: Lake) -> Right:  # noqa: ARG001 - the data is in the notebook
    """The city of each visit, from the version that was in force."""
    cities = {int(visit): city for visit, city in answer.items()}
    if cities == _CITIES:
        return Right("Each visit has the city of its time, at the bounds and before the first version too.")
    if unknown := cities.keys() - _CITIES.keys():
        raise Wrong(f"There is no visit {min(unknown)}. The keys of the dict should be the values of visit_id.")
    if 6 not in cities:
        raise Wrong("Visit 6 is missing, because it has no customer. A LEFT JOIN keeps it.")
    if missing := _CITIES.keys() - cities.keys():
        raise Wrong(
            f"Visit {min(missing)} is missing. The first version of a customer also applies to everything before it."
        )
    if cities[6] != _CITIES[6]:
        raise Wrong(f"Visit 6 has no customer, so its city should be 'Unknown', and not {cities[6]!r}.")
    if {cities[visit] for visit in (1, 2, 3, 4)} == {"Quito"}:
        raise Wrong("All visits of customer 1 are in Quito: that is the current version. Compare the times as well.")
    if cities[2] == "Lima" or cities[4] == "Porto":
        raise Wrong("A visit at the very moment of a change belongs to the new version: valid_to is exclusive.")
    if cities[4] in (None, "Unknown"):
        raise Wrong("Visit 4 should be in Quito. The current version has no valid_to, and no time is less than NULL.")
    early = [visit for visit in (1, 5) if cities[visit] != _CITIES[visit]]
    if early and all(cities[visit] in (None, "Unknown") for visit in early):
        raise Wrong(
            f"Visit {early[0]} is earlier than the customer's first version, which also applies to all time before it."
        )
    visit = next(visit for visit, city in _CITIES.items() if cities[visit] != city)
    raise Wrong(f"Visit {visit} has the wrong city. Compare its time with valid_from and valid_to of the customer.")


@exercise("08.2", "Predict what a batch changes", expects=(set, list, tuple, frozenset))
def check_changed(answer: Any, lake: Lake) -> Right:  # noqa: ANN401 - any collection
    """The tables that the last run changed, as the lake's table of runs says."""
    given = set(answer)
    if unknown := sorted(given - _CHOICES, key=str):
        raise Wrong(f"{unknown[0]!r} is not one of the five tables. Write <layer>.<table>, as in the task.")
    runs = open_table(lake, "operations", "runs").to_pyarrow_table(filters=[("command", "=", "run")]).to_pylist()
    last = max(runs, key=lambda run: run["started_at"])
    changed = {entry["name"] for entry in last["tables"] if entry["status"] == "changed"} & _CHOICES
    if given == changed:
        return Right(f"Only {' and '.join(sorted(changed))} got a new version: no value changed.")
    if missing := changed - given:
        raise Wrong(_MISSING.get(min(missing), "A table is missing."))
    raise Wrong(_SURPLUS.get(min(given - changed), "A table is too many."))


_MISSING = {
    "bronze.customers": "Bronze keeps every record of every new file, whatever its values are.",
    "silver.customers": "The row in silver has updated_at and says which file it comes from, and both are new.",
}
_SURPLUS = {
    "gold.fact_sales": "Facts are built again if a version of their customer is new. Is there a new version?",
    "gold.dim_customers": "The dimension has the rows of the history. Did the history get a new row?",
    "silver.customers_history": "The history leaves out a version without a change: see the statement history.",
}


@exercise("08.3", "Find the fault in an incremental load", expects=FunctionType)
def check_load(answer: Load, lake: Lake) -> Right:
    """The function loads three versions, one of them late and one an update, and does nothing if nothing is new."""
    name = f"feed-{secrets.token_hex(4)}"
    tables = _Tables(lake, name)
    tables.insert([(1, 10), (2, 20)])
    tables.load(answer, [1, 2], "Both rows of the first version")
    tables.load(answer, [1, 2], "A second call without a new version", may_commit=False)
    tables.insert([(3, 5)])
    tables.load(answer, [1, 2, 3], "A late row: its time is before those that were copied. It")
    tables.open("source").update({"time": "99"}, predicate="id = 1")
    tables.load(answer, [1, 2, 3], "An update in source", may_commit=None)
    tables.insert([(4, 30)])
    tables.insert([(5, 40)])
    tables.load(answer, [1, 2, 3, 4, 5], "Two new versions")
    return Right("No row is lost or repeated, and the cursor is in the commit of its rows.")


class _Tables:
    """A source with a change data feed, and an empty target."""

    def __init__(self, lake: Lake, name: str) -> None:
        self._lake, self._name = lake, name
        self._write("source", [], configuration={"delta.enableChangeDataFeed": "true"})
        self._write("target", [])

    def _write(self, table: str, rows: list[tuple[int, int]], **options: Any) -> None:
        columns = {"id": pa.array([row[0] for row in rows], pa.int64())}
        columns["time"] = pa.array([row[1] for row in rows], pa.int64())
        uri = self._lake.uri("exercises", self._name, table)
        write_deltalake(uri, pa.table(columns), mode="append", storage_options=self._lake.storage_options, **options)

    def insert(self, rows: list[tuple[int, int]]) -> None:
        self._write("source", rows)

    def open(self, table: str) -> DeltaTable:
        return open_table(self._lake, "exercises", self._name, table)

    def load(self, function: Load, expected: list[int], case: str, may_commit: bool | None = True) -> None:
        """Call the learner's function, and look at the target. Raises Wrong."""
        before, source = self.open("target").version(), self.open("source")
        try:
            function(source, self.open("target"))
        except DeltaError as error:
            if may_commit is not False:
                raise
            raise Wrong(f"{case} raised {error}. If source has no new version, your function should return.") from None
        target = self.open("target")
        ids = sorted(row["id"] for row in target.to_pyarrow_table().to_pylist())
        if missing := sorted(set(expected) - set(ids)):
            raise Wrong(f"{case} should be in target, but id {missing[0]} is missing.")
        if len(ids) > len(expected):
            twice = next(id for id in ids if ids.count(id) > 1)
            raise Wrong(f"{case}: id {twice} is in target more than once.")
        commits = target.version() - before
        if may_commit is False and commits:
            raise Wrong(f"{case} made a commit. It should make none.")
        if commits > 1:
            raise Wrong(f"Your function made {commits} commits. A crash between them would separate rows and cursor.")
        cursor = target.transaction_version("source")
        if may_commit and cursor is None:
            raise Wrong("The commit has no application transaction `source`. Where is the cursor?")
        if may_commit and cursor != source.version():
            raise Wrong(f"The cursor is {cursor}, but the function has read source up to version {source.version()}.")
