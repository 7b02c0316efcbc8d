"""Notebook 10: right answers that are written differently."""

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from lakehouse_utils.course.exercises import Right, Wrong, nb10
from lakehouse_utils.lake import Lake


class Comparison:
    """A comparison of two tables without Spark."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def __call__(self, one: str, other: str) -> int:
        return self.compare(one, other)

    def compare(self, one: str, other: str) -> int:
        with self._lake.duckdb() as connection:
            first, second = (Counter(connection.sql(f"FROM delta_scan('{uri}')").fetchall()) for uri in (one, other))
        return ((first - second) + (second - first)).total()


@pytest.mark.parametrize(
    "kind",
    [
        lambda comparison: comparison,
        lambda comparison: comparison.compare,
        lambda comparison: functools.partial(comparison.compare),
        lambda comparison: lambda one, other: np.int64(comparison(one, other)),
        lambda comparison: lambda one, other, columns="*": float(comparison(one, other)),
    ],
)
def test_comparison_as_any_callable(kind: Callable[[Comparison], Callable[[str, str], int]], lake: Lake) -> None:
    """A function, a method, an object that can be called; an integer of any type, or a float that is one."""
    assert isinstance(nb10.check_comparison(kind(Comparison(lake)), lake), Right)


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64])
def test_cluster_size_as_any_number(kind: Callable[[int], float], lake: Lake) -> None:
    """The number of nodes is accepted in any type of number, and no other number is."""
    size = nb10._smallest_cluster()
    assert isinstance(nb10.check_cluster_size(kind(size), lake), Right)
    for other in (size - 1, size + 1, size + 0.5):
        with pytest.raises(Wrong):
            nb10.check_cluster_size(other, lake)
