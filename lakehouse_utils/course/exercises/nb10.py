"""The exercises of notebook 10: old versions, a MERGE in Spark, a comparison of tables, a cluster of the right size."""

import functools
import math
from itertools import takewhile
from numbers import Integral
from types import FunctionType

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils import settings
from lakehouse_utils.course.exercises import Right, Wrong, exercise

_MEASURED = settings.CHECKOUT / "benchmarks" / "engines.csv"
_MILLION, _SECONDS = 20_000, 3600  # of 10.4
_COUNTED = {(1, 1): 17, (1, 2): 0, (3, 100_001): 5, (2, 100_002): 0}  # of 10.2: (store_id, product_id): quantity


@exercise(
    "10.1",
    "Count every version with Spark",
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
    if not all(isinstance(version, Integral) for version in answer):
        raise Wrong("The keys should be versions, as whole numbers: 0, 1, ...")
    if not all(isinstance(rows, Integral) for rows in answer.values()):
        raise Wrong("The values should be whole numbers: `.count()` gives one, a DataFrame is only a plan.")
    if len(answer) > 1 and set(answer.values()) == {right[last]}:
        raise Wrong("Each version has as many rows as the newest: without versionAsOf, Spark reads the newest.")
    if missing := sorted(set(right) - set(answer)):
        also = " Versions begin at 0." if missing == [0] else ""
        raise Wrong(f"Version {missing[0]} is missing: there are {len(right)}, from 0 to {last}.{also}")
    if other := sorted(set(answer) - set(right)):
        raise Wrong(f"There is no version {other[0]}: the newest is {last}.")
    if all(answer[n] == right[n] - right.get(n - 1, 0) for n in right):
        raise Wrong("These are the rows that each commit added; a version is the whole table, as it was then.")
    if off := [version for version in right if answer[version] != right[version]]:
        raise Wrong(f"Version {off[0]} has {right[off[0]]:,} rows, and not {answer[off[0]]:,}.")
    return Right(f"From {right[0]:,} rows to {right[last]:,}, in {last} commits.")


@exercise(
    "10.2",
    "Merge a stock count in Spark",
    expects=DeltaTable,
)
def stock_count(answer, lake):
    """practice/stocks after the count: changed, removed at 0, new."""
    there = lake.delta("practice", "stocks")
    if there is None or answer.table_uri.rstrip("/") != lake.uri("practice", "stocks"):
        raise Wrong('The table should be the one at lake.uri("practice", "stocks").')
    given = _quantities(there)
    before = _quantities(lake.delta("silver", "stocks"))
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
    others = {key for key in before.keys() | given.keys() if before.get(key) != given.get(key)} - _COUNTED.keys()
    if others:
        store, product = min(others)
        raise Wrong(
            f"Product {product} of store {store} wasn't counted, and is not as it was ({len(others)} such rows):"
            " match by store_id AND product_id, and leave what the count doesn't name."
        )
    since_copy = list(takewhile(lambda commit: commit["operation"] not in ("WRITE", "CREATE TABLE"), there.history()))
    merges = [commit for commit in since_copy if commit["operation"] == "MERGE"]
    if not merges:
        raise Wrong("No commit of the table is a MERGE: write one statement, so that it is one commit.")
    if any(commit.get("engineInfo", "").startswith("delta-rs") for commit in merges):
        raise Wrong("A merge was committed by delta-rs: let Spark do it, with spark.sql.")
    if len(since_copy) > 1:
        raise Wrong(
            f"It took {len(since_copy)} commits since the copy was made: one statement can do all of it."
            " Run the stub's line that makes the copy before you try again."
        )
    told = since_copy[0]["operationMetrics"]
    done = ", ".join(f"{told[f'numTargetRows{what}']} {what.lower()}" for what in ("Updated", "Deleted", "Inserted"))
    return Right(f"One statement, one commit. The log tells of rows: {done}.")


def _quantities(table):
    """{(store_id, product_id): quantity} of a table of stocks."""
    held = table.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    given = {(row["store_id"], row["product_id"]): row["quantity"] for row in held}
    if len(given) < len(held):
        raise Wrong("A product is there twice in one store: match by store_id AND product_id.")
    return given


@exercise(
    "10.3",
    "Tell whether two tables are equal",
    expects=(FunctionType, functools.partial),
)
def compare(answer, lake):
    """A function of two addresses: how many rows of either find no partner in the other."""
    a, b, c = (1, "a"), (2, "b"), (3, None)
    pairs = {
        "the same rows": ([a, b, c], [a, b, c], 0),
        "the same rows in another order": ([a, b, c], [c, b, a], 0),
        "a changed row": ([a, b, c], [a, (2, "x"), c], 2),
        "a row twice": ([a, b, c], [a, b, c, b], 1),
        "a row less": ([a, b, c], [a, b], 1),
        "another row twice": ([a, a, b], [a, b, b], 2),
        "a row three times": ([a, b, c], [a, b, b, b, c], 2),
    }
    for number, (what, (one, other, right)) in enumerate(pairs.items()):
        first, second = (lake.uri("practice", "pairs", str(number), side) for side in ("first", "second"))
        for address, rows in ((first, one), (second, other)):
            ids, names = (pa.array(column) for column in zip(*rows, strict=True))
            table = pa.table({"id": ids, "name": names})
            write_deltalake(address, table, mode="overwrite", storage_options=lake.storage_options)
        for addresses, side in (((first, second), "second"), ((second, first), "first")):
            given = answer(*addresses)
            if not isinstance(given, Integral) or isinstance(given, bool):
                raise Wrong(f"The function should return a number; it returned {given!r}.")
            if given != right:
                said = f"With {what} in the {side} table it says {given}, and {right} is right."
                raise Wrong(f"{said} {_advice(what, given)}")
    return Right("Equal, unequal, doubled, lost: it tells them apart, in both directions.")


def _advice(what, given):
    if what.startswith("the same rows"):
        return "In a join NULL is equal to nothing, not even to NULL; EXCEPT ALL takes two NULLs for the same."
    if what == "a changed row":
        return "The old row has no partner, and the new one neither."
    if what == "a row twice" and given == 0:
        return "EXCEPT alone forgets how often a row comes."
    if what == "another row twice":
        return "Each table has a row too many: add up both directions, row by row, without offsetting them."
    return "Rows that only one of them has count, whichever it is."


@exercise(
    "10.4",
    "Find the smallest cluster that is in time",
    expects=(int, np.integer),
)
def smallest_cluster(answer, lake):
    """The least number of nodes that load 20,000 million lines within an hour."""
    right = _smallest()
    if answer < 1:
        raise Wrong("A cluster has at least one node.")
    if answer == right:
        seconds, alone = _seconds(right), _seconds(1, engine="local", cores=192, start_up=60)
        return Right(
            f"{right:,} nodes: {seconds:,.0f} seconds and ${right * 0.25 * seconds / 3600:,.2f} a night; one node less"
            f" takes {_seconds(right - 1):,.0f}. But before you order them: one machine of 192 cores with DuckDB takes"
            f" {alone:,.0f} seconds by the same model, and costs ${9.6 * alone / 3600:,.2f}."
        )
    if abs(answer - right * 4) < 4 or answer == _smallest(cores=1):
        raise Wrong("That is a number of cores. A node has 4 of them: how many nodes?")
    mistakes = {
        "That would do if twice the cores did twice the work: keep the efficiency of the model.": {"efficiency": 1},
        "The hour begins when you ask for the cluster: its start is part of it.": {"start_up": 0},
        "That is for DuckDB's core-seconds: leave out `engine`, and it is Spark's.": {"engine": "local"},
        "The model counts in million lines: it is 20_000 of them, not 20.": {"million": 20},
    }
    for advice, other in mistakes.items():
        if answer == _smallest(**other):
            raise Wrong(advice)
    if answer < right:
        raise Wrong(f"With {answer:,} nodes it takes {_seconds(answer):,.0f} seconds: an hour has 3,600.")
    raise Wrong(f"{answer:,} nodes are in time, but fewer will do: try one less, again and again.")


def _smallest(**other):
    return next(nodes for nodes in range(1, 1_000_000) if _seconds(nodes, **other) <= _SECONDS)


def _seconds(nodes, million=_MILLION, engine="spark", efficiency=0.9, start_up=240, cores=4):
    """The model of step 7."""
    if nodes < 1:
        return math.inf
    measured_on, fixed, core_seconds = _line(engine)
    working = nodes * cores * efficiency ** math.log2(nodes * cores / measured_on)
    return start_up + fixed + million * core_seconds / working


@functools.cache
def _line(engine):
    """The cores that were measured on; the fixed seconds, and the core-seconds for a million lines."""
    with _MEASURED.open(encoding="utf-8") as file:
        cores = int(file.readline().split()[1])
    measured = pd.read_csv(_MEASURED, comment="#")
    loads = measured[(measured["engine"] == engine) & (measured["step"] != "merge")]
    seconds = loads.groupby("rows")["seconds"].sum()
    slope, fixed = np.polyfit(seconds.index / 1e6, seconds, 1, w=1 / seconds)
    return cores, max(0.0, fixed), slope * cores
