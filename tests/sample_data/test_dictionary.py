"""data/README.md says what sources.toml and the generator say, and sources.toml describes every raw file."""

import csv
import gzip
import json
import re
import tomllib

import pyarrow.parquet as pq
import pytest

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.sample_data.sample_data import SOURCES, dictionary, refresh

DATA = SOURCES.parent
README = (DATA / "README.md").read_text(encoding="utf-8")
TABLES = tomllib.loads(SOURCES.read_text(encoding="utf-8"))
TYPES = r"integer|double|boolean|date|timestamp|text|decimal\(\d+,\d+\)"


def test_the_readme_is_up_to_date():
    mend = "python -m lakehouse_utils.sample_data --readme data/README.md"
    assert refresh(README) == README, f"data/README.md is out of date. To mend it: {mend}"


def test_a_readme_without_its_marks_is_not_touched():
    with pytest.raises(LakehouseError, match="marks .*quirks"):
        refresh(README.replace("<!-- end of quirks -->", ""))


def test_the_dictionary_names_every_table_and_column():
    text = dictionary()
    for name, table in TABLES.items():
        assert f"### {name}\n" in text
        assert all(f"| `{column}` | {about['type']} |" in text for column, about in table["columns"].items())


def test_every_file_and_every_column_is_described():
    """A column of any raw file, in whatever format, stands in sources.toml, and the other way round."""
    seen = {name: set() for name in TABLES}
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
        seen[path.name.partition(".")[0]] |= set(columns)
    assert seen == {name: set(table["columns"]) for name, table in TABLES.items()}


def test_the_descriptions_are_well_formed():
    for name, table in TABLES.items():
        assert set(table) <= {"description", "key", "order_by", "history", "columns"}, name
        assert table["key"] and set(table["key"]) <= set(table["columns"]), name
        assert table.get("order_by", table["key"][0]) in table["columns"], name
        for column, about in table["columns"].items():
            where = f"{name}.{column}"
            allowed = {"type", "description", "required", "min", "max", "allowed", "references"}
            assert set(about) <= allowed and about["description"].endswith("."), where
            assert re.fullmatch(TYPES, about["type"]), where
            assert not column.startswith("_"), where
            if "references" in about:
                target, _, key = about["references"].partition(".")
                assert key in TABLES[target]["key"], where
    assert [name for name, table in TABLES.items() if table.get("history")] == ["customers", "products"]


def test_the_diagram_has_every_relation():
    drawn = set(re.findall(r"(\w+) \S+--\S+ (\w+) :", README))
    described = {
        (about["references"].partition(".")[0], name)
        for name, table in TABLES.items()
        for about in table["columns"].values()
        if "references" in about
    }
    assert drawn == described
