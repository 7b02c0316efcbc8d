"""The exercises of notebook 07: the valid rows of a delivery, predictions of appends, a layout for a mix of queries."""

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from duckdb import DuckDBPyRelation

from lakehouse_utils.course import views
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_LINES = range(1, 13)
# Why a line of `supplied` is not valid, as a hint.
_INVALID_LINES = {
    2: "The price of line 2 is NaN. NaN passes `price >= 0`, because it counts as greater than all numbers.",
    3: "Line 3 has no price.",
    4: "The price of line 4 is negative.",
    5: "The price of line 5 has three decimals: Delta would round 12.505 without an error.",
    6: "Line 6 has no product_id.",
    7: "The time of line 7 has no zone.",
    9: "Product 9 occurs twice, in lines 9 and 10. You cannot know which price is right.",
    10: "Product 9 occurs twice, in lines 9 and 10. You cannot know which price is right.",
}
# Why a line is valid although a condition that is slightly wrong rejects it.
_VALID_LINES = {
    1: "Line 1 is missing. Its price has two decimals, but `19.99 * 100` is not a whole number in floating point.",
    8: "Line 8 is missing. Its time has a zone: an offset, +02:00.",
    11: "Line 11 is missing. A price of 0 is valid.",
    12: "Line 12 is missing. Its time has a zone: an offset to the west, -05:00.",
}


@exercise("07.1", "Find the rows that may be loaded", expects=object)
def check_valid_lines(answer: Any, lake: Lake) -> Right:  # noqa: ANN401, ARG001 - any collection of line numbers
    """The numbers of the lines that meet every rule, in any order, as a collection or as a column of a table."""
    numbers = _numbers(answer)
    if numbers and all(isinstance(number, (bool, np.bool_)) for number in numbers):
        raise Wrong("That is true or false for each line. Filter `supplied` by it, and take the column `line`.")
    if any(isinstance(number, str) for number in numbers):
        raise Wrong("These are texts. A line number is a number, without quotes.")
    lines = sorted(map(_whole, numbers))
    if outside := [line for line in lines if line not in _LINES]:
        raise Wrong(f"There is no line {outside[0]}. Lines have the numbers 1 to 12; positions in a list begin with 0.")
    if repeated := [line for line in lines if lines.count(line) > 1]:
        raise Wrong(f"Line {repeated[0]} is in the answer {lines.count(repeated[0])} times.")
    if not lines:
        raise Wrong("No line meets all of your conditions. Try them one at a time, and see which one rejects line 1.")
    if lines == sorted(_INVALID_LINES):
        raise Wrong("These are the lines that may not be loaded.")
    for line, hint in _INVALID_LINES.items():
        if line in lines:
            raise Wrong(hint)
    if not {1, 11} & {*lines} and {8, 12} <= {*lines}:
        raise Wrong("Lines 1 and 11 are missing. `Z` is a time zone too: UTC.")
    for line, hint in _VALID_LINES.items():
        if line not in lines:
            raise Wrong(hint)
    return Right("Four of twelve lines may be loaded; each of the other eight breaks one rule.")


_EXPECTED = "Put the line numbers into a list, such as [1, 2]."


def _numbers(answer: Any) -> list[Any]:  # noqa: ANN401 - any collection of line numbers
    """The elements of a collection, or of the column `line` (or the only column) of a table of any library.

    A table may also be a dict of columns, as from DuckDB's `fetchnumpy`, or a list of rows.
    """
    if isinstance(answer, pl.LazyFrame):
        answer = answer.collect()
    elif isinstance(answer, DuckDBPyRelation):
        answer = answer.to_arrow_table()
    if isinstance(answer, (pd.DataFrame, pl.DataFrame, pa.Table, dict)):
        names = [*(answer.column_names if isinstance(answer, pa.Table) else getattr(answer, "columns", answer))]
        if "line" not in names and len(names) != 1:
            raise Wrong(f"{_EXPECTED} The answer has the columns {', '.join(map(str, names))}.")
        answer = answer["line" if "line" in names else names[0]]
    if isinstance(answer, (str, pl.Expr)) or not isinstance(answer, Iterable):
        raise Wrong(f"{_EXPECTED} The answer is of type {type(answer).__name__}.")
    return [_number(value) for value in answer]


def _whole(number: Any) -> int:  # noqa: ANN401 - an element of any collection
    try:
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        raise Wrong(f"{_EXPECTED} {number!r} is not a line number.") from None
    if whole != number:
        raise Wrong(f"A line number is a whole number, and {number} is not.")
    return whole


def _number(value: Any) -> Any:  # noqa: ANN401 - an element of any collection
    if isinstance(value, pa.Scalar):
        return value.as_py()
    if isinstance(value, tuple) and len(value) == 1:  # fetchall()
        return value[0]
    return value.get("line", value) if isinstance(value, dict) else value  # to_pylist(), rows(named=True)


_PREDICTIONS = ("rejected", "stored", "changed")
_TEN_UTC = datetime(2026, 1, 5, 10, tzinfo=UTC)
_USUAL: dict[str, Any] = {"quantity": 1, "amount": Decimal("5.00"), "weight": 1.0, "sold_at": _TEN_UTC}
_TYPES = {
    "quantity": pa.int32(),
    "amount": pa.decimal128(6, 2),
    "weight": pa.float64(),
    "sold_at": pa.timestamp("us", "UTC"),
}
_SENT: dict[str, tuple[str, pa.Array]] = {
    "A": ("quantity", pa.array([2.0])),
    "B": ("quantity", pa.array([2.9])),
    "C": ("amount", pa.array(["7.005"])),
    "D": ("amount", pa.array([None], pa.decimal128(6, 2))),
    "E": ("weight", pa.array([float("nan")])),
    "F": ("sold_at", pa.array([_TEN_UTC.replace(tzinfo=None)], pa.timestamp("us"))),
    "G": ("sold_at", pa.array([_TEN_UTC], pa.timestamp("us", "America/Sao_Paulo"))),
}
_PREDICTION_HINTS = {
    "A": "2.0 becomes the integer 2: the same value.",
    "B": "2.9 is cast to int32 as well. Which integer comes out, and does an error say so?",
    "C": "A text is cast to decimal(6,2). What happens to the third decimal?",
    "D": "A constraint must be true for the row. What is NULL > 0?",
    "E": "How does NaN compare with 0? Step 4 has the same case.",
    "F": "A time without a zone is a timestamp_ntz. Does this table have that feature?",
    "G": "It is another way to write the same point in time; Delta stores it in UTC.",
}


@exercise("07.2", "Predict what happens to each append", expects=dict)
def check_predictions(answer: Mapping[str, str], lake: Lake) -> Right:  # noqa: ARG001 - the appends are tried locally
    """For each append, what delta-rs does with it. The check performs the appends on a table in a temporary folder."""
    predictions = {str(append).strip().upper(): str(text).strip().lower() for append, text in answer.items()}
    if missing := sorted(_SENT.keys() - predictions.keys()):
        raise Wrong(f"There is no prediction for {', '.join(missing)}.")
    if unknown := sorted(predictions.keys() - _SENT.keys()):
        raise Wrong(f"There is no append {unknown[0]}: they are A to G.")
    for append, prediction in predictions.items():
        if prediction not in _PREDICTIONS:
            raise Wrong(f'{append}: write "rejected", "stored" or "changed", not {prediction!r}.')
    for append, result in _results().items():
        if predictions[append] != result:
            raise Wrong(f"{append} is not {predictions[append]}. {_PREDICTION_HINTS[append]}")
    return Right("Two rows are rejected, three are stored as sent, and two are changed without an error.")


def _results() -> dict[str, str]:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        usual = pa.table({name: pa.array([value], _TYPES[name]) for name, value in _USUAL.items()})
        write_deltalake(folder, usual)
        for name, condition in {"amount_positive": "amount > 0", "weight_not_negative": "weight >= 0"}.items():
            DeltaTable(folder).alter.add_constraint({name: condition})
        for append, (column, values) in _SENT.items():
            old_files = set(DeltaTable(folder).file_uris())
            try:
                write_deltalake(
                    folder, usual.set_column(usual.column_names.index(column), column, values), mode="append"
                )
            except Exception:  # noqa: BLE001 - delta-rs raises errors of several kinds
                results[append] = "rejected"
                continue
            (new_file,) = set(DeltaTable(folder).file_uris()) - old_files
            stored = pq.read_table(new_file)[column].to_pylist()[0]
            results[append] = "stored" if _is_same(values.to_pylist()[0], stored) else "changed"
    return results


def _is_same(sent: Any, stored: Any) -> bool:  # noqa: ANN401 - values of any type
    if isinstance(sent, str):
        sent = Decimal(sent)
    if isinstance(sent, float) and math.isnan(sent):
        return math.isnan(stored)
    return bool(sent == stored)


_LAYOUTS = ("as_it_arrived", "by_day", "by_customer", "z_order")
_FILTERS = {"one day": "day = DATE '2026-02-10'", "one customer": "customer_id = 1234"}
_TIMES_PER_DAY = {"one day": 2000, "one customer": 100}


@exercise("07.3", "Choose a layout for a day's queries", expects=(tuple, list))
def check_layout(answer: Sequence[Any], lake: Lake) -> Right:
    """The layout that needs the fewest requests for the day's queries, and their number."""
    if len(answer) != 2 or not isinstance(answer[0], str):
        raise Wrong('Put the name and the number into `answer`, in this order: ("by_day", 12345).')
    layout, number = answer
    if "/" in layout:
        raise Wrong(f"That is the address of a table. Give the name of the layout: one of {', '.join(_LAYOUTS)}.")
    if layout not in _LAYOUTS:
        raise Wrong(f"{layout!r} is not a layout. The names are {', '.join(_LAYOUTS)}.")
    if not isinstance(number, (int, float, np.integer, np.floating)):
        raise Wrong(f"The number of requests must be a number, not {number!r}.")
    measured = _measure(lake)
    if number in [times * measured[query, layout]["requests"] for query, times in _TIMES_PER_DAY.items()]:
        raise Wrong("That is only one of the two kinds of queries. Add the other one.")
    requests, read = _per_day(measured, "requests"), _per_day(measured, "bytes")
    best, fewest_bytes = (min(totals, key=totals.__getitem__) for totals in (requests, read))
    if layout != best and number == requests[best]:
        raise Wrong(f"The number is right, but {layout} does not need so few requests. Which layout does?")
    if layout == fewest_bytes:
        raise Wrong(f"{layout} reads the fewest bytes. The question is about requests.")
    if layout != best:
        raise Wrong(
            f"{layout} needs more requests than another layout. Count those of both queries, as often as they run."
        )
    if number == requests[best]:
        return Right(
            f"{int(number):,} requests per day, although the table that is partitioned by day reads fewer bytes."
        )
    one = {query: measured[query, best]["requests"] for query in _FILTERS}
    times_per_day = sum(_TIMES_PER_DAY.values())
    hints = {
        read[best]: "That is the number of bytes. Count the requests.",
        sum(one.values()): "That is one query of each kind. Multiply each by how often it runs per day.",
        100 * one["one day"] + 2000 * one["one customer"]: "The two numbers of queries are swapped: 2,000 times for one"
        " day, 100 times for one customer.",
        times_per_day * sum(one.values()): "That runs both queries 2,100 times. Weigh each by how often it runs.",
        round(requests[best] / times_per_day, 6): "That is the mean of one query. How many requests does a day need?",
        **{
            requests[other]: f"The layout is right, but the number is that of {other}."
            for other in _LAYOUTS
            if other != best
        },
    }
    advice = "The layout is right, but not the number. Multiply the requests of each query by how often it runs."
    raise Wrong(hints.get(round(float(number), 6), advice))


def _measure(lake: Lake) -> dict[tuple[str, str], dict[str, Any]]:
    with lake.duckdb() as connection:
        return {
            (query, layout): views.reads(
                connection,
                f"SELECT sum(amount) FROM delta_scan('{lake.uri('layouts', layout)}') WHERE {condition}",
            )
            for query, condition in _FILTERS.items()
            for layout in _LAYOUTS
        }


def _per_day(measured: Mapping[tuple[str, str], Mapping[str, Any]], what: str) -> dict[str, int]:
    return {
        layout: sum(times * measured[query, layout][what] for query, times in _TIMES_PER_DAY.items())
        for layout in _LAYOUTS
    }
