"""Parameters of a test of which `make test` takes a few, and `make test-all` all."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def slow_but(quick: Iterable[Any], parameters: Iterable[Any]) -> list[ParameterSet]:
    """All `parameters`, tuples or single values; those that are not among `quick` are marked as slow."""
    quick, parameters = list(quick), list(parameters)
    if unknown := [values for values in quick if values not in parameters]:
        raise ValueError(f"not among the parameters: {unknown}")
    return [
        pytest.param(
            *(values if isinstance(values, tuple) else (values,)), marks=() if values in quick else pytest.mark.slow
        )
        for values in parameters
    ]
