"""The source descriptions as a data contract that other tools can read: the Open Data Contract Standard, version 3.1.

`yaml.safe_dump(data_contract.export(sources.load()), sort_keys=False)` is the contract of the shop as a text.
"""

from collections.abc import Mapping
from typing import Any

from lakehouse_utils.pipeline.sources import Column, Source

STANDARD_VERSION = "v3.1.0"  # https://bitol-io.github.io/open-data-contract-standard/

_LOGICAL_TYPES = {
    "integer": "integer",
    "decimal": "number",
    "double": "number",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "text": "string",
}


def export(sources: Mapping[str, Source], *, id: str = "bicycle-shop", version: str = "1.0.0") -> dict[str, Any]:
    """The tables of `sources` as the content of a contract, ready to be written as YAML or JSON.

    `id` names the contract, and `version` is that of the contract, not of the standard. The contract has what a
    consumer of the data can rely on: columns, types, keys, references and rules. How the raw files are written (their
    delimiters and headers, for example) is not part of it.
    """
    return {
        "apiVersion": STANDARD_VERSION,
        "kind": "DataContract",
        "id": id,
        "version": version,
        "status": "active",
        "schema": [_table(source, sources) for source in sources.values()],
    }


def _table(source: Source, sources: Mapping[str, Source]) -> dict[str, Any]:
    unique_key = {"metric": "duplicateValues", "arguments": {"properties": list(source.key)}, "mustBe": 0}
    return {
        "name": source.name,
        "logicalType": "object",
        "physicalType": "table",
        **({"description": source.description} if source.description else {}),
        "properties": [_property(source, name, sources) for name in source.columns],
        "quality": [{**unique_key, "dimension": "uniqueness"}],
    }


def _property(source: Source, name: str, sources: Mapping[str, Source]) -> dict[str, Any]:
    column = source.columns[name]
    entry: dict[str, Any] = {
        "name": name,
        "logicalType": _LOGICAL_TYPES[column.data_type.name],
        "physicalType": column.data_type.delta,
    }
    if column.description:
        entry["description"] = column.description
    if name in source.key:
        entry |= {"primaryKey": True, "primaryKeyPosition": source.key.index(name) + 1}
    if source.is_required(name):
        entry["required"] = True
    if options := _options(column):
        entry["logicalTypeOptions"] = options
    if column.allowed is not None:
        valid = {"validValues": [_plain(value) for value in column.allowed]}
        entry["quality"] = [{"metric": "invalidValues", "arguments": valid, "mustBe": 0, "dimension": "conformity"}]
    if column.references is not None and _is_in(column.references, sources):
        entry["relationships"] = [{"to": column.references}]
    return entry


def _options(column: Column) -> dict[str, Any]:
    """The rules on a value for which the standard has options of the type."""
    options: dict[str, Any] = {}
    for rule, option in (("min", "minimum"), ("max", "maximum")):
        if (value := getattr(column, rule)) is not None:
            options[option] = str(value) if column.is_temporal else _number(value)
    if column.pattern is not None:
        options["pattern"] = f"^(?:{column.pattern})$"  # the description's pattern matches the whole text
    if column.max_length is not None:
        options["maxLength"] = column.max_length
    if column.data_type.name == "integer":
        options["format"] = "i64"
    if column.data_type.name == "timestamp":
        options |= {"timezone": True, "defaultTimezone": "Etc/UTC"}
    return options


def _number(value: Any) -> int | float:  # noqa: ANN401 - what TOML has
    return float(value) if isinstance(value, str) else value


def _plain(value: Any) -> bool | float | str:  # noqa: ANN401 - what TOML has
    """The value in a type of JSON."""
    return value if isinstance(value, (bool, int, float)) else str(value)


def _is_in(reference: str, sources: Mapping[str, Source]) -> bool:
    table, _, column = reference.partition(".")
    return table in sources and column in sources[table].columns
