"""Parameters of a test of which `make test` takes a few, `make test-all` more, and `make test-nightly` the rest."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def slow_but(
    quick: Iterable[Any], parameters: Iterable[Any], *, slow: Iterable[Any] | None = None
) -> list[ParameterSet]:
    """All `parameters`, tuples or single values; those that are not among `quick` are marked as slow.

    If `slow` is given, only those are marked as slow, and the others that are not among `quick` as nightly.
    """
    quick, parameters = list(quick), list(parameters)
    slow = parameters if slow is None else list(slow)
    if unknown := [values for values in (*quick, *slow) if values not in parameters]:
        raise ValueError(f"not among the parameters: {unknown}")
    marks = (
        () if values in quick else pytest.mark.slow if values in slow else pytest.mark.nightly for values in parameters
    )
    return [
        pytest.param(*(values if isinstance(values, tuple) else (values,)), marks=mark)
        for values, mark in zip(parameters, marks, strict=True)
    ]
