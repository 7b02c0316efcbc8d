"""The exercises of notebook 10: a MERGE in Spark, a comparison of tables, a cluster of the right size."""

import functools
import inspect
import math
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils import settings
from lakehouse_utils.course.exercises import Right, Wrong, exercise, open_table
from lakehouse_utils.lake import Lake

_Row = tuple[int, str | None]

_MEASUREMENTS = settings.CHECKOUT / "benchmarks" / "engines.csv"
_MILLION_LINES, _LIMIT_S = 20_000, 3600  # of 10.3
_COUNTED = {(1, 1): 17, (1, 2): 0, (3, 100_001): 5, (2, 100_002): 0}  # of 10.1: (store_id, product_id): quantity


@exercise(
    "10.1",
    "Merge a stock count in Spark",
    expects=DeltaTable,
)
def check_stock_count(answer: DeltaTable, lake: Lake) -> Right:
    """practice/stocks after the count: rows that were changed, removed (counted with 0) or added."""
    table = lake.delta("practice", "stocks")
    if table is None or answer.table_uri.rstrip("/") != lake.uri("practice", "stocks"):
        raise Wrong('The table should be the one at lake.uri("practice", "stocks").')
    given = _quantities(table)
    before = _quantities(open_table(lake, "silver", "stocks"))
    if given == before:
        raise Wrong("The copy has the same rows as before. Merge into the table whose address is `practice`.")
    if not given.keys() & (before.keys() - _COUNTED.keys()):
        raise Wrong("The old rows are gone. MERGE changes rows that match, and leaves the others as they are.")
    if (1, 1) not in given:
        raise Wrong(
            "Product 1 was counted with 17 in store 1, but its row is gone. Use WHEN MATCHED AND ... THEN DELETE."
        )
    if given[1, 1] == before[1, 1] + 17:
        raise Wrong("The count was added to the old quantity of product 1. It should replace it.")
    if given[1, 1] != 17:
        raise Wrong(f"Store 1 has {given[1, 1]} of product 1, but 17 were counted. You need WHEN MATCHED THEN UPDATE.")
    if (1, 2) in given:
        raise Wrong(
            "Product 2 was counted with 0 in store 1, but its row still exists. Use WHEN MATCHED AND ... DELETE."
        )
    if (100_001, 3) in given:
        raise Wrong("There is a store 100001: store_id and product_id are swapped in the INSERT.")
    if (3, 100_001) not in given:
        raise Wrong("Product 100001 is new in store 3, but it is missing. You need WHEN NOT MATCHED THEN INSERT.")
    if given[3, 100_001] != 5:
        raise Wrong("Store 3 should have 5 of product 100001.")
    if (2, 100_002) in given:
        raise Wrong("Product 100002 was counted with 0 and is new. Use WHEN NOT MATCHED AND ... THEN INSERT.")
    others = {key for key in before.keys() | given.keys() if before.get(key) != given.get(key)} - _COUNTED.keys()
    if others:
        store, product = min(others)
        raise Wrong(
            f"Product {product} of store {store} was not counted, but its row has changed ({len(others)} such rows)."
            " Match by store_id AND product_id, and change only rows that are in the count."
        )
    since_copy = list(takewhile(lambda commit: commit["operation"] not in ("WRITE", "CREATE TABLE"), table.history()))
    merges = [commit for commit in since_copy if commit["operation"] == "MERGE"]
    if not merges:
        raise Wrong("No commit of the table is a MERGE. Write one statement, so that it is one commit.")
    if any(commit.get("engineInfo", "").startswith("delta-rs") for commit in merges):
        raise Wrong("delta-rs committed a merge. Let Spark do it, with spark.sql.")
    if len(since_copy) > 1:
        raise Wrong(
            f"There are {len(since_copy)} commits since the copy was made, but one statement can do it all."
            " Run the line of the stub that makes the copy before you try again."
        )
    metrics = since_copy[0]["operationMetrics"]
    changes = ", ".join(
        f"{metrics[f'numTargetRows{change}']} {change.lower()}" for change in ("Updated", "Deleted", "Inserted")
    )
    return Right(f"One statement, one commit. Rows according to the log: {changes}.")


def _quantities(table: DeltaTable) -> dict[tuple[int, int], int]:
    """{(store_id, product_id): quantity} of a table of stocks."""
    rows = table.to_pyarrow_table(columns=["store_id", "product_id", "quantity"]).to_pylist()
    quantities = {(row["store_id"], row["product_id"]): row["quantity"] for row in rows}
    if len(quantities) < len(rows):
        raise Wrong("A store has a product twice. Match by store_id AND product_id.")
    return quantities


@exercise("10.2", "Tell whether two tables are equal")
def check_comparison(answer: Callable[[str, str], int], lake: Lake) -> Right:
    """A function of two addresses: how many rows of either table have no match in the other."""
    if not callable(answer):
        raise Wrong(f"Put the function itself into `answer`, not {type(answer).__name__}: the check calls it.")
    try:
        inspect.signature(answer).bind("one", "other")
    except TypeError:
        raise Wrong("The function should take two arguments, the addresses of the tables.") from None
    a, b, c = (1, "a"), (2, "b"), (3, None)
    pairs: dict[str, tuple[list[tuple[int, str | None]], list[tuple[int, str | None]], int]] = {
        "the same rows": ([a, b, c], [a, b, c], 0),
        "the same rows in another order": ([a, b, c], [c, b, a], 0),
        "a changed row": ([a, b, c], [a, (2, "x"), c], 2),
        "a row twice": ([a, b, c], [a, b, c, b], 1),
        "one row fewer": ([a, b, c], [a, b], 1),
        "another row twice": ([a, a, b], [a, b, b], 2),
        "a row three times": ([a, b, c], [a, b, b, b, c], 2),
    }
    for number, (case, (one, other, expected)) in enumerate(pairs.items()):
        first, second = (lake.uri("practice", "pairs", str(number), name) for name in ("first", "second"))
        for address, rows in ((first, one), (second, other)):
            table = pa.table({"id": [id for id, _ in rows], "name": [name for _, name in rows]})
            write_deltalake(address, table, mode="overwrite", storage_options=lake.storage_options)
        for addresses, changed in (((first, second), "second"), ((second, first), "first")):
            given: Any = answer(*addresses)
            if isinstance(given, bool) or not isinstance(given, (int, float, np.integer, np.floating)):
                raise Wrong(f"The function should return a number; it returned {given!r}.")
            if given != expected:
                raise Wrong(
                    f"With {case} in the {changed} table it returns {given}, but {expected} is right."
                    f" {_advice(case, int(given))}"
                )
    return Right("It finds equal tables, and changed, duplicate and missing rows, in both directions.")


def _advice(case: str, given: int) -> str:
    if case.startswith("the same rows"):
        return "In a join NULL equals nothing, not even NULL. EXCEPT ALL treats two NULLs as the same."
    if case == "a changed row":
        return "The old row has no match, and the new row has none either."
    if case == "a row twice" and given == 0:
        return "EXCEPT without ALL, like a join, ignores how often a row occurs."
    if case == "a row three times" and given == 1:
        return "The row has two copies too many. UNION, like EXCEPT, keeps duplicates only with ALL."
    if case == "another row twice":
        return "Each table has one row too many. Add up both directions, row by row, so that they do not cancel out."
    return "A row that only one of the tables has counts as a difference, whichever table that is."


@exercise(
    "10.3",
    "Find the smallest cluster that is fast enough",
    expects=(int, float, np.integer, np.floating),
)
def check_cluster_size(answer: float, _lake: Lake) -> Right:
    """The smallest number of nodes that load 20,000 million lines within an hour."""
    if isinstance(answer, bool) or not float(answer).is_integer():
        raise Wrong(f"A cluster has a whole number of nodes, not {answer}. Is that a number of seconds or dollars?")
    answer = int(answer)
    expected = _smallest_cluster()
    if answer < 1:
        raise Wrong("A cluster has at least one node.")
    if answer == expected:
        seconds, alone = _load_seconds(expected), _load_seconds(1, engine="local", cores=192, start_up=60)
        return Right(
            f"{expected:,} nodes: {seconds:,.0f} seconds and ${expected * 0.25 * seconds / 3600:,.2f} a night; with one"
            f" node fewer it takes {_load_seconds(expected - 1):,.0f} seconds. But before you order them: by the same"
            f" model, one machine of 192 cores with DuckDB takes {alone:,.0f} seconds, and costs"
            f" ${9.6 * alone / 3600:,.2f}."
        )
    if abs(answer - expected * 4) < 4 or answer == _smallest_cluster(cores=1):
        raise Wrong("That is a number of cores. A node has 4 of them: how many nodes?")
    if answer == 192:
        raise Wrong("192 is the number of cores of the one machine. How many nodes does the cluster need?")
    mistakes: dict[str, dict[str, Any]] = {
        "That would be enough if twice the cores did twice the work. Use the efficiency of the model.": {
            "efficiency": 1
        },
        "The hour begins when you request the cluster, so its start is part of it.": {"start_up": 0},
        "That uses DuckDB's core-seconds, or one node's hours. Use Spark's defaults, and try numbers of nodes.": {
            "engine": "local"
        },
        "The model counts in million lines: use 20_000 and not 20.": {"million": 20},
        "The seconds of the model already contain the start of the cluster. Compare them with 3,600.": {
            "start_up": 480
        },
        "A node of this cluster has 4 cores.": {"cores": 192},
    }
    for advice, parameters in mistakes.items():
        if answer == _smallest_cluster(**parameters):
            raise Wrong(advice)
    if answer < expected:
        raise Wrong(f"With {answer:,} nodes it takes {_load_seconds(answer):,.0f} seconds; an hour has 3,600.")
    raise Wrong(f"{answer:,} nodes are fast enough, but fewer would be too. Try one node fewer until it is too slow.")


def _smallest_cluster(**parameters: Any) -> int:
    return next(nodes for nodes in range(1, 1_000_000) if _load_seconds(nodes, **parameters) <= _LIMIT_S)


def _load_seconds(  # noqa: PLR0913 - the parameters of the model
    nodes: int,
    million: float = _MILLION_LINES,
    engine: str = "spark",
    efficiency: float = 0.9,
    start_up: float = 240,
    cores: int = 4,
) -> float:
    """The model of step 6."""
    if nodes < 1:
        return math.inf
    measured_cores, fixed, core_seconds = _fit_line(engine)
    effective_cores = nodes * cores * efficiency ** math.log2(nodes * cores / measured_cores)
    return float(start_up + fixed + million * core_seconds / effective_cores)


@functools.cache
def _fit_line(engine: str) -> tuple[int, float, float]:
    """The number of cores that were measured; fixed seconds; core-seconds per million lines."""
    with _MEASUREMENTS.open(encoding="utf-8") as file:
        cores = int(file.readline().split()[1])
    measured = pd.read_csv(_MEASUREMENTS, comment="#")
    loads = measured[(measured["engine"] == engine) & (measured["step"] != "merge")]
    seconds = loads.groupby("rows")["seconds"].sum()
    slope, fixed = np.polyfit(seconds.index / 1e6, seconds, 1, w=1 / seconds)
    return cores, max(0.0, float(fixed)), float(slope) * cores
