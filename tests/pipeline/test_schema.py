"""The JSON Schema with which editors check descriptions."""

import tomllib

import pytest
from jsonschema import Draft7Validator

from lakehouse_utils.pipeline import schema, sources

SCHEMA_PATH = sources.SHOP.with_suffix(".schema.json")


def errors(text: str) -> list[str]:
    return [error.message for error in Draft7Validator(schema.json_schema()).iter_errors(tomllib.loads(text))]


def test_the_schema_file_is_up_to_date():
    """data/sources.schema.json is what the models of descriptions give."""
    fix = ".venv/bin/python -m lakehouse_utils.pipeline.schema > data/sources.schema.json"
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema.as_text(), f"the schema is out of date. To fix it: {fix}"


def test_the_shop_names_the_schema_and_meets_it():
    """Editors find the schema by the first line of data/sources.toml, and the shop's description is valid."""
    text = sources.SHOP.read_text(encoding="utf-8")
    assert text.startswith(f"#:schema ./{SCHEMA_PATH.name}\n")
    Draft7Validator.check_schema(schema.json_schema())
    assert errors(text) == []


@pytest.mark.parametrize(
    ("settings", "column", "is_valid"),
    [
        ("", 'type = "integer", from = "Nº"', True),
        ('date_format = ["%d/%m/%Y", "iso"]', 'type = "date", from = ["a", "b"], date_format = "iso"', True),
        ("", 'typ = "integer"', False),
        ('delimiters = ";"', 'type = "text"', False),
        ('delimiter = ";;"', 'type = "text"', False),
        ('decimal = ";"', 'type = "text"', False),
        ('name = "t"', 'type = "text"', False),
        ("history = 1", 'type = "text"', False),
        ("", 'type = "text", headers = "a"', False),
    ],
)
def test_the_schema_accepts_what_is_valid(settings, column, is_valid):
    """Settings that a description may have are valid for editors, and misspelt or wrong ones are not."""
    found = errors(f'[t]\nkey = ["k"]\n{settings}\n[t.columns]\nk = {{ {column} }}\n')
    assert (found == []) == is_valid, found


def test_every_setting_is_explained():
    """Editors show a description for each setting."""
    for name, definition in schema.json_schema()["definitions"].items():
        for setting, about in definition["properties"].items():
            assert about.get("description"), f"{name}.{setting}"
