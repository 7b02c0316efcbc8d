"""The exercises of notebook 08: a join by time, the tables that a batch changes, a cursor in the commit."""

import secrets
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

_CITIES = {1: "Lima", 2: "Porto", 3: "Lima", 4: "Quito", 5: "Oslo", 6: "Unknown"}
_CITIES_OF_CUSTOMER = {1: ("Lima", "Porto", "Quito"), 2: ("Oslo",)}  # first to current
_CUSTOMERS = {1: 1, 2: 1, 3: 1, 4: 1, 5: 2}  # of the visits
_CHOICES = {
    "bronze.customers",
    "silver.customers",
    "silver.customers_history",
    "gold.dim_customers",
    "gold.fact_sales",
}

_LAST_BATCH = "2026-03-07"

# Of the rows that exercise 08.3 inserts; id 3 is late.
_TIMES = {1: 10, 2: 20, 3: 5, 4: 30, 5: 40, 6: 50, 7: 60, 8: 70, 9: 80}

Load = Callable[[DeltaTable, DeltaTable], Any]


@exercise("08.1", "Join by time", expects=dict)
def check_cities(answer: dict[Any, Any], lake: Lake) -> Right:  # noqa: ARG001 - the data is in the notebook
    """The city of each visit, from the version that was in force."""
    cities: dict[Any, str | None] = {}
    for visit, city in answer.items():
        if visit not in _CITIES:
            raise Wrong(f"There is no visit {visit!r}. The keys of the dict should be the values of visit_id.")
        cities[int(visit)] = city if isinstance(city, str) else None  # pandas has NaN or NA for a missing city
    if cities == _CITIES:
        return Right("Each visit has the city of its time, at the bounds and before the first version too.")
    if 6 not in cities:
        raise Wrong("Visit 6 is missing, because it has no customer. A LEFT JOIN keeps it.")
    if missing := _CITIES.keys() - cities.keys():
        raise Wrong(
            f"Visit {min(missing)} is missing. The first version of a customer also applies to everything before it."
        )
    if unknown := sorted({city for city in cities.values() if city} - set(_CITIES.values())):
        raise Wrong(f"history_rows has no city {unknown[0]!r}. Take the cities as they are in its column city.")
    if cities[6] != _CITIES[6]:
        raise Wrong(f"Visit 6 has no customer, so its city should be 'Unknown', and not {answer[6]!r}.")
    raise Wrong(_hint_on_times(cities))


def _hint_on_times(cities: dict[Any, str | None]) -> str:
    known = {visit: city for visit, city in cities.items() if city not in (None, _CITIES[6])}
    for visit, city in known.items():
        if city not in _CITIES_OF_CUSTOMER[_CUSTOMERS[visit]]:
            return f"The customer of visit {visit} never lived in {city}. Compare customer_id as well as the times."
    of_customer_1 = {cities[visit] for visit in (1, 2, 3, 4)}
    if of_customer_1 == {"Quito"}:
        return "All visits of customer 1 are in Quito: that is the current version. Compare the times as well."
    if of_customer_1 == {"Lima"}:
        return "All visits of customer 1 are in Lima: that is the first version. Compare the times as well."
    if cities[2] == "Lima" or cities[4] == "Porto":
        return "A visit at the very moment of a change belongs to the new version: valid_to is exclusive."
    if 4 not in known:
        return "Visit 4 should be in Quito. The current version has no valid_to, and no time is less than NULL."
    for visit in (1, 5):
        if visit not in known:
            return f"Visit {visit} is before the customer's first version, which applies to all time before it too."
    visit = next(visit for visit, city in _CITIES.items() if cities[visit] != city)
    return f"Visit {visit} has the wrong city. Compare its time with valid_from and valid_to of the customer."


@exercise("08.2", "Predict what a batch changes", expects=(set, list, tuple, frozenset))
def check_changed(answer: Any, lake: Lake) -> Right:  # noqa: ANN401 - any collection
    """The tables in which the run of the last batch added or changed rows, as the lake's table of runs says."""
    given = set(answer)
    if unknown := sorted(given - _CHOICES, key=str):
        raise Wrong(f"{unknown[0]!r} is not one of the five tables. Write <layer>.<table>, as in the task.")
    changed = _changed_by_the_last_batch(lake)
    if given == changed:
        return Right(f"Only {' and '.join(sorted(changed))} have new or changed rows: no value changed.")
    if missing := changed - given:
        raise Wrong(_MISSING.get(min(missing), "A table is missing."))
    raise Wrong(_SURPLUS.get(min(given - changed), "A table is too many."))


def _changed_by_the_last_batch(lake: Lake) -> set[str]:
    """The tables that the run with the batch of step 8 changed. Raises Wrong if there was no such run."""
    runs = lake.delta("operations", "runs")
    for run in runs.to_pyarrow_table(filters=[("command", "=", "run")]).to_pylist() if runs else []:
        changed = {entry["name"]: entry["last_batch"] for entry in run["tables"] if entry["status"] == "changed"}
        if changed.get("bronze.customers") == _LAST_BATCH:
            return changed.keys() & _CHOICES
    raise Wrong("Run the lesson up to step 8 first.")


_MISSING = {
    "bronze.customers": "Bronze keeps every record of every new file, whatever its values are.",
    "silver.customers": "The row in silver has updated_at and says which file it comes from, and both are new.",
}
_SURPLUS = {
    "gold.fact_sales": (
        "fact_sales was computed again, because silver.orders was restored. But its rows are the same as before: see"
        " added and changed in operations.runs."
    ),
    "gold.dim_customers": "The dimension has the rows of the history. Did the history get a new row?",
    "silver.customers_history": (
        "The history leaves out a version without a change: see the statement history. If the table has a new version,"
        " that commit only moves the cursor."
    ),
}


@exercise("08.3", "Find the fault in an incremental load", expects=Callable)
def check_load(answer: Load, lake: Lake) -> Right:
    """The function loads late rows, no updates, and nothing twice, and does nothing if nothing is new."""
    tables = _Tables(lake)
    tables.insert(1, 2)
    tables.load(answer, [1, 2], "Both rows of the first version")
    tables.load(answer, [1, 2], "A second call without a new version", may_commit=False)
    tables.insert(3)
    tables.load(answer, [1, 2, 3], "A late row: its time is before those that were copied. It")
    tables.update(1)
    tables.load(answer, [1, 2, 3], "An update in source", may_commit=None)
    tables.insert(4)
    tables.insert(5)
    tables.load(answer, [1, 2, 3, 4, 5], "Two new versions")
    tables.insert(6)
    opened = tables.open("source")
    tables.insert(7)
    tables.call(answer, opened, "A version that another writer adds while `source` is open")
    added = "A version that another writer added while `source` was open"
    try:
        tables.load(answer, [1, 2, 3, 4, 5, 6, 7], added, may_commit=None)
    except Wrong as wrong:
        raise Wrong(f"{wrong} Without `ending_version`, load_cdf reads more than source.version() says.") from None
    tables.insert(8, 9)
    tables.update(8)
    tables.delete(9)
    try:
        tables.load(answer, [1, 2, 3, 4, 5, 6, 7, 8, 9], "A row that was inserted and deleted between two calls")
    except Wrong as wrong:
        raise Wrong(f"{wrong} Read the feed: a snapshot has only what is left.") from None
    tables = _Tables(lake, 1, 2)
    try:
        tables.load(answer, [1, 2], "Both rows of a source whose only version is 0")
        tables.load(answer, [1, 2], "A second call while the cursor is 0", may_commit=False)
    except Wrong as wrong:
        raise Wrong(f"{wrong} The cursor 0 is a version too: compare with `is None`.") from None
    return Right("No row is lost or repeated, and the cursor is in the commit of its rows.")


class _Tables:
    """A source with a change data feed, whose version 0 has the rows `ids`, and an empty target."""

    def __init__(self, lake: Lake, *ids: int) -> None:
        self._lake, self._name = lake, f"feed-{secrets.token_hex(4)}"
        self._inserted_until = [len(ids)]  # the number of inserted rows up to each version of source
        self._write("source", *ids, configuration={"delta.enableChangeDataFeed": "true"})
        self._write("target")

    def _write(self, table: str, *ids: int, **options: Any) -> None:
        columns = {"id": pa.array(ids, pa.int64()), "time": pa.array([_TIMES[id] for id in ids], pa.int64())}
        uri = self._lake.uri("exercises", self._name, table)
        write_deltalake(uri, pa.table(columns), mode="append", storage_options=self._lake.storage_options, **options)

    def insert(self, *ids: int) -> None:
        """Insert rows into source, in one commit."""
        self._write("source", *ids)
        self._inserted_until.append(self._inserted_until[-1] + len(ids))

    def update(self, id: int) -> None:
        """Change a row in source."""
        self.open("source").update({"time": "99"}, predicate=f"id = {id}")
        self._inserted_until.append(self._inserted_until[-1])

    def delete(self, id: int) -> None:
        """Delete a row from source."""
        self.open("source").delete(f"id = {id}")
        self._inserted_until.append(self._inserted_until[-1])

    def open(self, table: str) -> DeltaTable:
        return open_table(self._lake, "exercises", self._name, table)

    def call(self, function: Load, source: DeltaTable, case: str, may_commit: bool | None = True) -> None:
        """Call the learner's function. Raises Wrong if it fails in a way that has a hint."""
        try:
            function(source, self.open("target"))
        except pa.ArrowException as error:
            if "_view" not in str(error):
                raise
            raise Wrong(
                "`load_cdf` returns text as string_view: cast it to string, or use `.to_pandas()`."
                f" {case} raised {type(error).__name__}: {str(error).splitlines()[0]}."
            ) from None
        except DeltaError as error:
            if may_commit is not False:
                raise
            raise Wrong(f"{case} raised {error}. If source has no new version, your function should return.") from None

    def load(self, function: Load, expected: list[int], case: str, may_commit: bool | None = True) -> None:
        """Call the learner's function, and look at the target. Raises Wrong."""
        before, source = self.open("target").version(), self.open("source")
        self.call(function, source, case, may_commit)
        target = self.open("target")
        rows = target.to_pyarrow_table().to_pylist()
        ids = sorted(row["id"] for row in rows)
        if missing := sorted(set(expected) - set(ids)):
            raise Wrong(f"{case} should be in target, but id {missing[0]} is missing.")
        if len(ids) > len(expected):
            twice = next(id for id in ids if ids.count(id) > 1)
            raise Wrong(f"{case}: id {twice} is in target more than once.")
        if changed := [row["id"] for row in rows if row["time"] != _TIMES[row["id"]]]:
            raise Wrong(f"{case}: the row with id {changed[0]} has changed in target. Your function should append.")
        commits = target.version() - before
        if may_commit is False and commits:
            raise Wrong(f"{case} made a commit. It should make none.")
        for version in range(before + 1, target.version()):
            self._check_intermediate(version, commits)
        cursor = target.transaction_version("source")
        if may_commit and cursor is None:
            raise Wrong("The commit has no application transaction `source`. Where is the cursor?")
        if may_commit and cursor != source.version():
            raise Wrong(f"The cursor is {cursor}, but the function has read source up to version {source.version()}.")

    def _check_intermediate(self, version: int, commits: int) -> None:
        """Several commits are fine if a crash after each of them would neither lose nor repeat rows. Raises Wrong."""
        target = open_table(self._lake, "exercises", self._name, "target", version=version)
        cursor = target.transaction_version("source")
        expected = 0 if cursor is None else self._inserted_until[cursor]
        if target.count() != expected:
            raise Wrong(
                f"Your function made {commits} commits. A crash between them would separate rows and cursor: in version"
                f" {version} of target, the cursor is {cursor}, and there are {target.count()} rows."
            )
