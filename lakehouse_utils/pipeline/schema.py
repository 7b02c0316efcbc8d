"""The JSON Schema of descriptions, for editors: `python -m lakehouse_utils.pipeline.schema > data/sources.schema.json`.

It is made from the models that check descriptions, so it names every setting with its type, default and meaning.
"""

import json
import sys
from typing import Any

from lakehouse_utils.pipeline.sources import Source


def json_schema() -> dict[str, Any]:
    """The schema of a whole `sources.toml`: one section per table."""
    table = Source.model_json_schema(by_alias=True)
    definitions = table.pop("$defs")
    del table["properties"]["name"]  # the section's name
    table["required"].remove("name")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Descriptions of source tables",
        "description": "One section per table, named after the files: [orders] describes orders.csv, orders.jsonl, ...",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"$ref": "#/definitions/Source"},
        "definitions": _moved({**definitions, "Source": table}),
    }


def _moved(node: Any) -> Any:  # noqa: ANN401  any part of a JSON document
    """References to `$defs` as references to `definitions`, as in draft 7 of JSON Schema, which editors know."""
    if isinstance(node, dict):
        return {key: _moved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value) for value in node]
    return node.replace("#/$defs/", "#/definitions/") if isinstance(node, str) else node


def as_text() -> str:
    """The schema as it is in `data/sources.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text())
