"""Files with defects that real programs cause: the right values in silver, or rows in quarantine, on both engines."""

import datetime as dt
import io
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import lakes

from lakehouse_utils import embedded_s3
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.run import RunReport

NEEDS_SPARK = pytest.mark.skipif(
    find_spec("pysail") is None, reason="the extra spark isn't installed: make test installs it"
)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)


def parquet(columns: dict, **how: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **how)
    return buffer.getvalue()


FAR = [utc(9999, 12, 31), utc(2026, 5, 4, 8, 15), utc(1492, 10, 12, 6), utc(1, 1, 1)]
ENDS = [utc(2026, 2, 3), utc(1900, 1, 1), utc(9999, 12, 31, 23, 59, 59), utc(1, 1, 1)]
ZONES = {
    "paris": "Europe/Paris",
    "saopaulo": "America/Sao_Paulo",
    "tokyo": "Asia/Tokyo",
    "newyork": "America/New_York",
}
NAN = {"id": [1, 2, 3], "v": [1.5, float("nan"), None]}

# Per table: the name of its file, its content, its columns, further settings, and the rows in silver.
CASES = {
    "int96": (
        "parquet",
        parquet(
            {"id": range(4), "valid_to": pa.array([at.replace(tzinfo=None) for at in FAR], pa.timestamp("us"))},
            use_deprecated_int96_timestamps=True,
        ),
        {"id": "integer", "valid_to": "timestamp"},
        "",
        list(enumerate(FAR)),
    ),
    "zones": (
        "parquet",
        parquet(
            {"id": range(4)}
            | {
                name: pa.array(ENDS, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
                for name, zone in ZONES.items()
            }
        ),
        {"id": "integer"} | dict.fromkeys(ZONES, "timestamp"),
        "",
        [(number, at, at, at, at) for number, at in enumerate(ENDS)],
    ),
    "returns_a": (
        "csv",
        'id,town\r\r\n1,Turku\r\r\n2,\r\r\n3,"Pori"\r\r\n',
        {"id": "integer", "town": "text"},
        "",
        [(1, "Turku"), (2, None), (3, "Pori")],
    ),
    "returns_b": ("csv", "id,n\r\r\n1,5\r\r\n2,7\r\r\n", {"id": "integer", "n": "integer"}, "", [(1, 5), (2, 7)]),
    "returns_c": ("csv", "id,n\r\r\nTurku,1\r\r\n", {"id": "text", "n": "text"}, "", [("Turku", "1")]),
    "nfd": ("csv", "id,gro\u0308ße\n1,42\n2,44\n", {"id": "integer", "größe": "integer"}, "", [(1, 42), (2, 44)]),
    "nbsp": (
        "csv",
        "id,unit\u00a0price\n1,9.90\n",
        {"id": "integer", "unit_price": "decimal(8,2)"},
        "",
        [(1, Decimal("9.90"))],
    ),
    "zwsp": ("csv", "id,\u200bprice\n1,9.90\n", {"id": "integer", "price": "decimal(8,2)"}, "", [(1, Decimal("9.90"))]),
    "hyphen": ("csv", "order-id,qty\n17,2\n18,5\n", {"order_id": "integer", "qty": "integer"}, "", [(17, 2), (18, 5)]),
    "dot": (
        "csv",
        "id,reading.kwh\n1,30.5\n2,31.0\n",
        {"id": "integer", "reading_kwh": "decimal(8,1)"},
        "",
        [(1, Decimal("30.5")), (2, Decimal("31.0"))],
    ),
    "bom": (
        "csv",
        "\ufeff\ufeffid,city\n1,Turku\n2,Pori\n",
        {"id": "integer", "city": "text"},
        "",
        [(1, "Turku"), (2, "Pori")],
    ),
    "cr_lines": (
        "jsonl",
        json.dumps({"id": 1, "note": "first\nsecond"}) + "\r" + json.dumps({"id": 2, "note": "dos\r\nend"}) + "\r",
        {"id": "integer", "note": "text"},
        "",
        [(1, "first\nsecond"), (2, "dos\r\nend")],
    ),
    "json_nan": (
        "jsonl",
        '{"id": 1, "label": NaN}\n{"id": 2, "label": "NaN"}\n{"id": 3, "label": Infinity}\n{"id": 4, "label": [NaN]}\n',
        {"id": "integer", "label": "text"},
        "",
        [(2, "NaN")],
    ),
    "nan": ("parquet", parquet(NAN), {"id": "integer", "v": "double"}, "", [(1, 1.5), (3, None)]),
    "nan_is_null": (
        "parquet",
        parquet(NAN),
        {"id": "integer", "v": "double"},
        'null_values = ["", "NULL", "nan"]',
        [(1, 1.5), (2, None), (3, None)],
    ),
    "semicolons": (
        "csv",
        "sep=;\n'Nº';town\n1;'a;b'\n2;Ñandú\n".encode("utf-16"),
        {"id": "integer", "town": "text"},
        'delimiter = ";"\nquote = "\'"\nskip_rows = 1',
        [(1, "a;b"), (2, "Ñandú")],
    ),
}
REASONS = {
    "json_nan": {
        1: "invalid JSON: NaN is not a JSON value",
        3: "invalid JSON: Infinity is not a JSON value",
        4: "invalid JSON: NaN is not a JSON value",
    },
    "nan": {2: "v: 'nan' is not a valid double"},
}


@pytest.fixture(scope="module", params=["local", pytest.param("spark", marks=NEEDS_SPARK)])
def built(
    request: pytest.FixtureRequest,
    s3_server: embedded_s3.Server,
    s3_state_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    engine_of: Callable[[str, Lake], Engine],
) -> tuple[Lake, RunReport, list[str]]:
    """A lake with the tables of all cases, the report of the run, and its notes."""
    folder = tmp_path_factory.mktemp("messy")
    description = ""
    for table, (suffix, content, columns, settings, _) in CASES.items():
        path = folder / "landing" / "2026-03-01" / f"{table}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        description += f'[{table}]\nkey = ["{next(iter(columns))}"]\n{settings}\n[{table}.columns]\n'
        for column, type_ in columns.items():
            given = ', from = "Nº"' if (table, column) == ("semicolons", "id") else ""
            description += f'"{column}" = {{ type = "{type_}"{given} }}\n'
    (folder / "sources.toml").write_text(description, encoding="utf-8")
    progress = lakes.RecordingProgress()
    lake = lakes.at(f"{s3_server.uri}/messy-{request.param}-{uuid.uuid4().hex}", s3_state_dir)
    engine, layers = engine_of(request.param, lake), ("bronze", "silver")
    report = lakes.job(lake, folder / "landing", folder / "sources.toml", progress, engine, layers=layers)
    return lake, report, progress.sentences


@pytest.mark.parametrize("table", CASES)
def test_messy_file_reaches_silver(built, table):
    """Every case has exactly the expected rows in silver, and the others in quarantine with the reason."""
    lake, _, _ = built
    columns, expected = CASES[table][2], CASES[table][4]
    rows = [tuple(row[name] for name in columns) for row in lakes.rows(lake.delta("silver", table))]
    assert sorted(rows, key=repr) == sorted(expected, key=repr)
    quarantined = lake.delta("quarantine", table)
    reasons = {row["_source_line"]: row["reason"] for row in lakes.rows(quarantined)} if quarantined else {}
    assert reasons == REASONS.get(table, {})


def test_messy_files_cause_no_notes(built):
    """No column counts as missing."""
    assert built[2] == []
    assert built[1].missing_columns == []
    assert built[1].refused == []
