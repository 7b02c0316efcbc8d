"""The exercises of notebook 10: old versions, a MERGE in Spark, a comparison of tables, a cluster of the right size."""

import math
from types import FunctionType

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils import settings
from lakehouse_utils.exercises import Right, Wrong, exercise

_MEASURED = settings.CHECKOUT / "benchmarks" / "engines.csv"
_MILLION, _SECONDS = 20_000, 3600  # of 10.4


@exercise(
    "10.1",
    "Count every version with Spark",
    hint='`.option("versionAsOf", n)` goes between `format("delta")` and `load(...)`; `.count()` gives a number.',
    expects=dict,
)
def versions(answer, lake):
    """{version: rows} of bronze/orders, from 0 to the newest."""
    newest = lake.delta("bronze", "orders")
    right = {}
    for version in range(newest.version() + 1):
        newest.load_as_version(version)
        right[version] = newest.count()
    last = max(right)
    if not all(isinstance(n, int) for pair in answer.items() for n in pair):
        raise Wrong("Keys and values should be whole numbers: `.count()` gives one, a DataFrame is only a plan.")
    if len(answer) > 1 and set(answer.values()) == {right[last]}:
        raise Wrong("Each version has as many rows as the newest: without versionAsOf, Spark reads the newest.")
    if missing := sorted(set(right) - set(answer)):
        also = " Versions begin at 0." if missing == [0] else ""
        raise Wrong(f"Version {missing[0]} is missing: there are {len(right)}, from 0 to {last}.{also}")
    if other := sorted(set(answer) - set(right)):
        raise Wrong(f"There is no version {other[0]}: the newest is {last}.")
    if off := [version for version in right if answer[version] != right[version]]:
        raise Wrong(f"Version {off[0]} has {right[off[0]]:,} rows, and not {answer[off[0]]:,}.")
    return Right(f"From {right[0]:,} rows to {right[last]:,}, in {last} commits.")


@exercise(
    "10.2",
    "Merge a stock count in Spark",
    hint="Three clauses: `WHEN MATCHED AND ... THEN DELETE`, `WHEN MATCHED THEN UPDATE`, `WHEN NOT MATCHED ...`.",
    expects=DeltaTable,
)
def stock_count(answer, lake):
    """practice/stocks after the count: changed, removed at 0, new."""
    there = lake.delta("practice", "stocks")
    if there is None or answer.table_uri.rstrip("/") != lake.uri("practice", "stocks"):
        raise Wrong('The table should be the one at lake.uri("practice", "stocks").')
    held = there.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    given = {(row["store_id"], row["product_id"]): row["quantity"] for row in held}
    if len(given) < len(held):
        raise Wrong("A product is there twice in one store: match by store_id AND product_id.")
    if not given or (1, 1) not in given:
        raise Wrong("The rows of before are gone: MERGE changes what matches, and leaves the rest.")
    if given[1, 1] != 17:
        raise Wrong(f"Store 1 has {given[1, 1]} of product 1, and 17 were counted: WHEN MATCHED THEN UPDATE.")
    if (1, 2) in given:
        raise Wrong("Product 2 was counted with 0 in store 1, and its row is still there: WHEN MATCHED AND ... DELETE.")
    if (3, 100_001) not in given:
        raise Wrong("Product 100001 is new in store 3, and missing: WHEN NOT MATCHED THEN INSERT.")
    if given[3, 100_001] != 5:
        raise Wrong("Store 3 should have 5 of product 100001.")
    if (2, 100_002) in given:
        raise Wrong("Product 100002 was counted with 0 and was never there: WHEN NOT MATCHED AND ... THEN INSERT.")
    merges = [c for c in there.history() if c["operation"] == "MERGE"]
    if not merges:
        raise Wrong("No commit of the table is a MERGE: write one statement, so that it is one commit.")
    if any(commit["engineInfo"].startswith("delta-rs") for commit in merges):
        raise Wrong("A merge was committed by delta-rs: let Spark do it, with spark.sql.")
    if len(merges) > 1:
        raise Wrong(f"It took {len(merges)} merges: one statement can do all of it, in one commit.")
    return Right("One statement, one commit: a row updated, one deleted, one inserted.")


@exercise(
    "10.3",
    "Tell whether two tables are equal",
    hint="`one.exceptAll(other)` has the rows of `one` that find no partner in `other`. Both directions count.",
    expects=FunctionType,
)
def compare(answer, lake):
    """A function of two addresses: how many rows of either find no partner in the other."""
    rows = [(1, "a"), (2, "b"), (3, None)]
    tables = {
        "the same rows": rows,
        "the same rows in another order": rows[::-1],
        "a changed row": [(1, "a"), (2, "x"), (3, None)],
        "a row twice": [*rows, (2, "b")],
        "a row less": rows[:2],
    }
    right = dict(zip(tables, (0, 0, 2, 1, 1), strict=True))
    for number, held in enumerate(tables.values()):
        ids, names = (pa.array(column) for column in zip(*held, strict=True))
        address = lake.uri("practice", "pairs", str(number))
        table = pa.table({"id": ids, "name": names})
        write_deltalake(address, table, mode="overwrite", storage_options=lake.storage_options)
    first = lake.uri("practice", "pairs", "0")
    for number, what in enumerate(tables):
        other = lake.uri("practice", "pairs", str(number))
        for pair, side in (((first, other), "second"), ((other, first), "first")):
            given = answer(*pair)
            if not isinstance(given, int) or isinstance(given, bool):
                raise Wrong(f"The function should return a number; it returned {given!r}.")
            if given != right[what]:
                said = f"With {what} in the {side} table it says {given}, and {right[what]} is right."
                raise Wrong(f"{said} {_advice(what, given)}")
    return Right("Equal, unequal, doubled, lost: it tells them apart, in both directions.")


def _advice(what, given):
    if what == "a changed row":
        return "The old row has no partner, and the new one neither."
    if what == "a row twice" and given == 0:
        return "EXCEPT alone forgets how often a row comes."
    return "Rows that only one of them has count, whichever it is."


@exercise(
    "10.4",
    "Find the smallest cluster that is in time",
    hint="Call `estimate` for 1, 2, 3 ... nodes, and stop at the first that needs at most 3,600 seconds.",
    expects=(int, np.integer),
)
def smallest_cluster(answer, lake):
    """The least number of nodes that load 20,000 million lines within an hour."""
    right = _smallest()
    if answer < 1:
        raise Wrong("A cluster has at least one node.")
    if answer == right:
        return Right(f"{right:,} nodes; with one less it takes {_seconds(right - 1) / 60:.1f} minutes.")
    if answer < right:
        if answer == _smallest(efficiency=1):
            raise Wrong("That would do if twice the cores did twice the work: keep the efficiency of the model.")
        if answer == _smallest(start_up=0):
            raise Wrong("The hour begins when you ask for the cluster: its start is part of it.")
        raise Wrong(f"With {answer:,} nodes it takes {_seconds(answer) / 60:.1f} minutes: that is more than an hour.")
    raise Wrong(f"{answer:,} nodes are in time, but fewer will do: try one less, again and again.")


def _smallest(**other):
    return next(nodes for nodes in range(1, 1_000_000) if _seconds(nodes, **other) <= _SECONDS)


def _seconds(nodes, efficiency=0.9, start_up=240, cores=4):
    """The model of step 7, for Spark."""
    with _MEASURED.open(encoding="utf-8") as file:
        measured_on = int(file.readline().split()[1])
    if nodes < 1:
        return math.inf
    fixed, slope = _line(measured_on)
    working = nodes * cores * efficiency ** math.log2(nodes * cores / measured_on)
    return start_up + max(fixed + _MILLION * slope / working, _MILLION * 80 / (nodes * 300))


def _line(cores):
    measured = pd.read_csv(_MEASURED, comment="#")
    loads = measured[(measured["engine"] == "spark") & (measured["step"] != "merge")]
    seconds = loads.groupby("rows")["seconds"].sum()
    slope, fixed = np.polyfit(seconds.index / 1e6, seconds, 1, w=1 / seconds)
    return max(0.0, fixed), slope * cores
