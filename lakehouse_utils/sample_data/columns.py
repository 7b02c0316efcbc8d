"""Arrow columns from numpy arrays, and rows from Arrow columns."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse_utils.sample_data.draws import Integers

Table = dict[str, pa.Array]
Row = dict[str, object]

TWO_DIGITS = pa.array([f"{number:02d}" for number in range(100)])
FOUR_DIGITS = pa.array([f"{number:04d}" for number in range(10_000)])


def pick(words: Sequence[str] | pa.Array, positions: Integers) -> pa.Array:
    """The words at these positions."""
    return (words if isinstance(words, pa.Array) else pa.array(words)).take(pa.array(positions))


def as_text(numbers: Integers) -> pa.Array:
    """The numbers as text."""
    return pa.array(numbers).cast(pa.string())


def join(*parts: pa.Array | str) -> pa.Array:
    """Text columns and constant texts, one after the other."""
    return pc.binary_join_element_wise(*parts, "")


def where(mask: NDArray[np.bool_], yes: pa.Array | str, no: pa.Array | str) -> pa.Array:
    """`yes` where the mask is true, else `no`."""
    return pc.if_else(pa.array(mask), yes, no)


def money(cents: Integers) -> pa.Array:
    """Cents as text in dollars: 1999 is 19.99."""
    return join(as_text(cents // 100), ".", pick(TWO_DIGITS, cents % 100))


def rows_of(table: Table) -> Iterator[Row]:
    """The rows of a table of columns."""
    names = list(table)
    for values in zip(*(column.to_pylist() for column in table.values()), strict=True):
        yield dict(zip(names, values, strict=True))
