"""The exception classes: one documented hierarchy, whose members cross a process boundary whole."""

import inspect
import pickle
import re

import pytest

from lakehouse_utils import errors
from lakehouse_utils.errors import LakehouseError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, LakehouseError)]


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
def test_an_error_survives_pickle_with_its_fields(error_class):
    """Class, message and fields of an error are the same after a round trip through pickle, as from Spark's workers."""
    parameters = inspect.signature(error_class.__init__).parameters.values()
    fields = {each.name: f"some {each.name}" for each in parameters if each.kind is each.KEYWORD_ONLY}
    error = error_class("Could not read it.", **fields)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))
    assert vars(copy) == fields


def test_the_hierarchy_in_the_docstring_is_that_of_the_classes():
    """The module's docstring draws every class below its base class."""
    drawn, path = {}, []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"([│├└─ ]*)(\w+Error)\b", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    bases = {error_class.__name__: error_class.__base__.__name__ for error_class in CLASSES}
    assert drawn == bases, "draw each class below its base class in the docstring of lakehouse_utils/errors.py"
