"""data/README.md is what sources.toml and the generator make of it, and sources.toml describes every raw file."""

import csv
import gzip
import json
import re
import tomllib

import pyarrow.parquet as pq
import pytest

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.formats import ValueSettings
from lakehouse_utils.pipeline.sources import Column, Source
from lakehouse_utils.sample_data.dictionary import dictionary, section, updated_readme

DATA = sources.SHOP.parent
README = (DATA / "README.md").read_text(encoding="utf-8")
SHOP = sources.load()
TYPES = r"integer|double|boolean|date|timestamp|text|decimal\(\d+,\d+\)"


def test_readme_is_up_to_date():
    """The derived parts of data/README.md are as the generator makes them."""
    fix = "python -m lakehouse_utils.sample_data --readme data/README.md"
    assert updated_readme(README) == README, f"data/README.md is out of date. To fix it: {fix}"


def test_readme_without_a_mark():
    """A README without one of the marks is refused."""
    with pytest.raises(LakehouseError, match=r"The marks .*quirks.* are missing"):
        updated_readme(README.replace("<!-- end of quirks -->", ""))


def test_dictionary_has_every_table_and_column():
    """The dictionary has a section for each table, and a row for each column with its type."""
    text = dictionary()
    for name, source in SHOP.items():
        assert f"### {name}\n" in text
        assert all(f"| `{column}` | {described.type} |" in text for column, described in source.columns.items())


def test_dictionary_shows_every_rule():
    """Each kind of rule on a column changes what the dictionary says about the column."""
    examples = {"required": "true", "min": "1", "max": "9", "allowed": "[5]", "references": '"u.v"'}
    examples |= {"pattern": "'[0-9]'", "max_length": "9"}
    kinds = (
        Column.model_fields.keys() - ValueSettings.model_fields.keys() - {"type", "description", "headers", "optional"}
    )  # no rules
    assert examples.keys() == kinds, "give an example of the new kind of rule here"
    for kind, value in examples.items():
        with_rule, without = (
            Source(name="t", key=["k"], columns={"k": {"type": "text"}, "c": {"type": "integer"} | rule})
            for rule in (tomllib.loads(f"{kind} = {value}"), {})
        )
        assert section(with_rule) != section(without), f"lakehouse_utils/sample_data/dictionary.py does not show {kind}"


def test_sources_explain_every_entry():
    """The comment at the top of sources.toml explains each entry that a description may have."""
    comment = sources.SHOP.read_text(encoding="utf-8").partition("\n[")[0]
    fields = Source.model_fields | Column.model_fields
    for entry in {field.alias or name for name, field in fields.items()} - {"name"}:
        assert re.search(rf"\b{entry}\b", comment), (
            f"the comment at the top of data/sources.toml does not explain {entry}"
        )


def test_sources_describe_every_file_and_column():
    """sources.toml describes exactly the columns of the raw files, whatever their format."""
    columns_in_files = {name: set() for name in SHOP}
    for path in (DATA / "landing").glob("*/*"):
        if path.suffix == ".parquet":
            columns = pq.read_schema(path).names
        elif path.suffix == ".jsonl":
            columns = set()
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    columns |= set(dict(json.loads(line)))
                except (ValueError, TypeError):
                    continue  # a broken line
        else:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            columns = next(csv.reader([data.splitlines()[0].decode("utf-8-sig")]))
        columns_in_files[path.name.partition(".")[0]] |= set(columns)
    assert columns_in_files == {name: set(source.columns) for name, source in SHOP.items()}


def test_sources_are_well_formed():
    """Keys, ordering columns and references name described columns, and every description is a sentence."""
    for name, source in SHOP.items():
        assert source.description.endswith("."), name
        assert source.key, name
        assert set(source.key) <= set(source.columns), name
        assert source.order_by is None or source.order_by in source.columns, name
        for column, described in source.columns.items():
            where = f"{name}.{column}"
            assert described.description.endswith("."), where
            assert re.fullmatch(TYPES, described.type), where
            assert not column.startswith("_"), where
            if described.references:
                target, _, key = described.references.partition(".")
                assert key in SHOP[target].key, where
    assert {"customers", "products"} <= {name for name, source in SHOP.items() if source.history}  # gold reads these


def test_diagram_has_every_relation():
    """The diagram in data/README.md has exactly the relations that sources.toml describes."""
    drawn = set(re.findall(r"(\w+) \S+--\S+ (\w+) :", README))
    described = {
        (column.references.partition(".")[0], name)
        for name, source in SHOP.items()
        for column in source.columns.values()
        if column.references
    }
    assert drawn == described, "change the diagram in data/README.md by hand"
