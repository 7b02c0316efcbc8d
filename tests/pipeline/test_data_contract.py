"""The source descriptions as a data contract of the Open Data Contract Standard."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft201909Validator

from lakehouse_utils.pipeline import data_contract, sources

_SCHEMA = json.loads(Path(__file__).with_name("open_data_contract").joinpath("v3.1.0.schema.json").read_text("utf-8"))
_EVERY_RULE = """
[visits]
key = ["site", "visit_id"]
[visits.columns]
site = { type = "text", pattern = '[A-Z]{2}', max_length = 2 }
visit_id = { type = "integer" }
seconds = { type = "decimal(8,1)", required = true, min = 0.5, max = 3600 }
ratio = { type = "double", min = 0 }
is_new = { type = "boolean", allowed = [true] }
day = { type = "date", min = "2020-01-01", allowed = ["2026-01-01", "2026-01-02"] }
at = { type = "timestamp", max = "2030-01-01 00:00:00" }
page_id = { type = "integer", references = "pages.page_id", description = "The page." }
shop = { type = "integer", references = "shops.shop_id" }
[pages]
description = "A page."
key = ["page_id"]
[pages.columns]
page_id = { type = "integer" }
"""


def _errors(contract: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft201909Validator(_SCHEMA).iter_errors(contract)]


def _properties(contract: dict[str, Any], table: str) -> dict[str, dict[str, Any]]:
    (entry,) = [entry for entry in contract["schema"] if entry["name"] == table]
    return {column["name"]: column for column in entry["properties"]}


@pytest.fixture
def every_rule(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "sources.toml"
    path.write_text(_EVERY_RULE, encoding="utf-8")
    return data_contract.export(sources.load(path), id="web", version="2.1.0")


def test_contract_of_the_shop_follows_the_standard() -> None:
    """The shop's contract is valid by the standard's JSON schema, and has every table and column."""
    shop = sources.load()
    contract = data_contract.export(shop)
    assert _errors(contract) == []
    assert {table["name"]: [column["name"] for column in table["properties"]] for table in contract["schema"]} == {
        name: list(source.columns) for name, source in shop.items()
    }


def test_contract_with_every_rule_follows_the_standard(every_rule: dict[str, Any]) -> None:
    """A description that uses every type and rule gives a valid contract."""
    assert _errors(every_rule) == []
    assert (every_rule["id"], every_rule["version"]) == ("web", "2.1.0")


def test_contract_survives_yaml(every_rule: dict[str, Any]) -> None:
    """Written as YAML and read again, a contract is the same."""
    for contract in (every_rule, data_contract.export(sources.load())):
        assert yaml.safe_load(yaml.safe_dump(contract, sort_keys=False)) == contract


def test_rules_are_exported(every_rule: dict[str, Any]) -> None:
    """Each rule of a column is in the contract, in the place that the standard has for it."""
    column = _properties(every_rule, "visits")
    assert column["site"]["logicalTypeOptions"] == {"pattern": "^(?:[A-Z]{2})$", "maxLength": 2}
    assert column["seconds"]["logicalTypeOptions"] == {"minimum": 0.5, "maximum": 3600}
    assert column["seconds"]["required"] is True
    assert "required" not in column["ratio"]
    assert column["day"]["logicalTypeOptions"] == {"minimum": "2020-01-01"}
    assert column["at"]["logicalTypeOptions"]["timezone"] is True
    assert column["day"]["quality"][0]["arguments"] == {"validValues": ["2026-01-01", "2026-01-02"]}
    assert column["is_new"]["quality"][0]["arguments"] == {"validValues": [True]}


def test_types_are_exported(every_rule: dict[str, Any]) -> None:
    """A column has the standard's logical type and Delta's type."""
    types = {
        name: (column["logicalType"], column["physicalType"])
        for name, column in _properties(every_rule, "visits").items()
    }
    assert types["visit_id"] == ("integer", "long")
    assert types["seconds"] == ("number", "decimal(8,1)")
    assert types["ratio"] == ("number", "double")
    assert types["site"] == ("string", "string")
    assert types["at"] == ("timestamp", "timestamp")


def test_key_is_exported(every_rule: dict[str, Any]) -> None:
    """Key columns have their positions and are required, and a quality rule says that the key is unique."""
    column = _properties(every_rule, "visits")
    assert [(column[name]["primaryKeyPosition"], column[name]["required"]) for name in ("site", "visit_id")] == [
        (1, True),
        (2, True),
    ]
    (rule,) = every_rule["schema"][0]["quality"]
    assert (rule["metric"], rule["arguments"], rule["mustBe"]) == (
        "duplicateValues",
        {"properties": ["site", "visit_id"]},
        0,
    )


def test_reference_is_exported_if_its_table_is_described(every_rule: dict[str, Any]) -> None:
    """A reference to a described column becomes a relationship; another one would point outside the contract."""
    column = _properties(every_rule, "visits")
    assert column["page_id"]["relationships"] == [{"to": "pages.page_id"}]
    assert "relationships" not in column["shop"]
