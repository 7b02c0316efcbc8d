"""Drafts of descriptions: what they guess from real-looking files, and that the files then get to silver."""

import datetime as dt
import gzip
import json
import tomllib
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support import lakes

import ingestion_processor
from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.describe import draft

BRAZIL = (
    "Nº Sócio;Nome / Razão social;CPF;Data de nascimento;Mensalidade (R$);Ativo?;Última alteração\n"
    "1.001; João da Conceição ;123.456.789-00;31/12/1980;1.234,50;Sim;01/03/2026 09:15\n"
    '1.002;"Padaria ""Pão"";\nFilial";-;-;89,90;Não;28/02/2026 23:59\n'
    "3;Zé;123.456.789-01;01/02/1980;5;Sim;01/03/2026 10:00\n"
)
US = (
    "Order ID,Order Date,Shipped,Amount,Zip,Paid\n"
    '1,01/31/2026 1:05 PM,02/01/2026,"1,234.50",01234,yes\n'
    "2,02/03/2026 11:05 AM,02/03/2026,5.00,90210,no\n"
    "3,02/03/2026 12:00 AM,n/a,0.5,10001,no\n"
)
LINES = (
    "sensor\tmeasured at\tvalue\nA\t2026-01-01T10:00Z\t1.5e-3\nA\t2026-01-01T11:00Z\t2\nB\t2026-01-01T10:00Z\t7.25\n"
)
JSON = (
    '{"id": 1, "page": "home", "seconds": 1.5, "day": "2026-01-01", "ok": true, "tags": ["a"],'
    ' "big": 12345678901234567890}\n'
    '{"id": 2, "page": null, "seconds": 12.25, "day": "2026-01-02", "ok": false}\n'
)


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    (tmp_path / "landing" / "2026-03-05").mkdir(parents=True)
    return tmp_path / "landing"


def deliver(landing: Path, name: str, content: str | bytes) -> Path:
    path = landing / "2026-03-05" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()


FILES: dict[str, str | bytes] = {
    "socios.csv": BRAZIL,
    "us_orders.csv": US,
    "measurements.csv": LINES,
    "visits.jsonl.gz": gzip.compress(JSON.encode()),
    "stock.parquet": parquet(
        pa.table(
            {
                "Artikel-Nr.": [1, 2],
                "price": pa.array([Decimal("1.50"), Decimal("12.25")], pa.decimal128(9, 2)),
                "weight": [0.5, 1.25],
                "day": [dt.date(2026, 1, 1), dt.date(2026, 1, 2)],
                "at": pa.array([dt.datetime(2026, 1, 1, 10, tzinfo=dt.UTC)] * 2, pa.timestamp("us", "UTC")),
                "gone": [True, None],
                "written": ["01.02.2026", "31.12.2025"],
            }
        )
    ),
}


def test_drafts_get_their_files_to_silver(landing, lake, tmp_path):
    """The draft for several files is a valid description, with which every row of the files gets to silver."""
    paths = [deliver(landing, name, content) for name, content in FILES.items()]
    path = tmp_path / "sources.toml"
    path.write_text(draft(paths), encoding="utf-8")
    lakes.job(lake, landing, path, layers=("bronze", "silver"))
    assert [name for name in lakes.names(lake) if name.startswith("quarantine.")] == []
    rows = {name: lakes.rows(lake.delta("silver", name)) for name in sources.load(path)}
    assert {name: len(of_table) for name, of_table in rows.items()} == {
        "socios": 3,
        "us_orders": 3,
        "measurements": 3,
        "visits": 2,
        "stock": 2,
    }
    (first,) = (row for row in rows["socios"] if row["no_socio"] == 1001)
    assert {name: value for name, value in first.items() if name not in lakes.OWN} == {
        "no_socio": 1001,
        "nome_razao_social": "João da Conceição",
        "cpf": "123.456.789-00",
        "data_de_nascimento": dt.date(1980, 12, 31),
        "mensalidade_r": Decimal("1234.50"),
        "ativo": True,
        "ultima_alteracao": dt.datetime(2026, 3, 1, 9, 15, tzinfo=dt.UTC),
    }
    (order,) = (row for row in rows["us_orders"] if row["order_id"] == 3)
    assert (order["order_date"], order["shipped"], order["zip"]) == (
        dt.datetime(2026, 2, 3, tzinfo=dt.UTC),
        None,
        "10001",
    )


def test_the_draft_of_an_export(landing):
    """The draft has the delimiter, encoding, title lines, notations, headers, a key, and comments at guesses."""
    text = "Relatório de sócios\nEmitido em 05/03/2026;;;;;;\n" + BRAZIL
    drafted = draft([deliver(landing, "socios.csv", text.encode("cp1252"))])
    described = tomllib.loads(drafted)["socios"]
    columns = described.pop("columns")
    assert described == {
        "key": ["no_socio"],
        "delimiter": ";",
        "encoding": "windows-1252",
        "skip_rows": 2,
        "decimal": ",",
        "thousands": ".",
        "date_format": "%d/%m/%Y",
        "timestamp_format": "%d/%m/%Y %H:%M",
        "true_values": ["Sim"],
        "false_values": ["Não"],
        "null_values": ["", "NULL", "-"],
        "trim": True,
    }
    assert columns["no_socio"] == {"type": "integer", "from": "Nº Sócio"}
    assert columns["cpf"] == {"type": "text"}
    assert columns["mensalidade_r"] == {"type": "decimal(10,2)", "from": "Mensalidade (R$)", "required": True}
    assert "# a guess: unique in the sample; so are" in drafted
    assert 'encoding = "windows-1252"  # a guess' in drafted
    assert "times without an offset: set time_zone" in drafted


def test_the_draft_of_json_lines_and_of_tabs(landing):
    """Types of JSON and numbers with exponents are drafted, and a key of several columns is found."""
    drafted = tomllib.loads(draft([deliver(landing, "v.jsonl", JSON), deliver(landing, "m.csv", LINES)]))
    assert {name: column["type"] for name, column in drafted["v"]["columns"].items()} == {
        "id": "integer",
        "page": "text",
        "seconds": "decimal(10,2)",
        "day": "date",
        "ok": "boolean",
        "tags": "text",
        "big": "text",
    }
    assert (drafted["m"]["delimiter"], drafted["m"]["key"]) == ("\t", ["sensor", "measured_at"])
    assert drafted["m"]["columns"]["value"]["type"] == "double"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.234", "5.678"], {"type": "decimal(10,3)"}),
        (["1.234,5", "5"], {"type": "decimal(10,1)", "decimal": ",", "thousands": "."}),
        (["1 234,5", "12 345,25"], {"type": "decimal(10,2)", "decimal": ",", "thousands": " "}),
        (["1'234", "5"], {"type": "integer", "thousands": "'"}),
        (["00123", "45678"], {"type": "text"}),
        (["1", "x"], {"type": "text"}),
        (["1", "-"], {"type": "integer", "null_values": ["", "NULL", "-"]}),
        (["01/02/2026", "13/02/2026"], {"type": "date", "date_format": "%d/%m/%Y"}),
        (["01/02/2026", "02/13/2026"], {"type": "date", "date_format": "%m/%d/%Y"}),
        (["31.12.26", "01.01.99"], {"type": "date", "date_format": "%d.%m.%y"}),
        (["2026-02-30", "x"], {"type": "text"}),
        (["2026-02-28", "2026-03-01"], {"type": "date"}),
        (["2026-02-28 10:00:00", "2026-03-01"], {"type": "timestamp"}),
        (["S", "N"], {"type": "boolean", "true_values": ["S"], "false_values": ["N"]}),
        (["N", "N"], {"type": "text"}),
        (["Oui", "non"], {"type": "boolean", "true_values": ["Oui"], "false_values": ["non"]}),
        (["True", "False"], {"type": "boolean"}),
        (["0", "1"], {"type": "integer"}),
        (["", ""], {"type": "text"}),
    ],
)
def test_the_draft_of_a_column(landing, values, expected):
    """The type and the notation that fit all values of a column."""
    lines = "".join(json.dumps({"k": f"k{number}", "v": value}) + "\n" for number, value in enumerate(values))
    described = tomllib.loads(draft([deliver(landing, "t.jsonl", lines)]))["t"]
    column = {name: value for name, value in described["columns"]["v"].items() if name != "required"}
    settings = {name: value for name, value in described.items() if name not in ("key", "columns")}
    assert settings | column == expected


def test_the_draft_of_two_files_of_one_table(landing, tmp_path):
    """A second file of a table that is read differently gets an entry in formats."""
    (landing / "lisbon").mkdir()
    other = landing / "lisbon" / "t.csv"
    other.write_text("id;town\n3;Faro\n4;Beja\n", encoding="utf-8")
    drafted = draft([deliver(landing, "t.csv", "id,town\n1,Turku\n2,Pori\n"), other])
    path = tmp_path / "sources.toml"
    path.write_text(drafted, encoding="utf-8")
    source = sources.load(path)["t"]
    assert (source.key, source.format_of("lisbon/t.csv").delimiter) == (["id"], ";")
    assert source.format_of("2026-03-05/t.csv").delimiter == ","


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"PK", "its name does not end in .csv, .jsonl, .ndjson, one of these and .gz, or .parquet"),
        ("t.csv", b"", "the file has no rows; describe a file with at least one"),
        ("t.csv", b"a,b\n", "the file has no rows"),
        ("t.parquet", b"PAR1", "could not read the file"),
        ("t.csv.gz", b"x", "could not read the file: Not a gzipped file"),
    ],
)
def test_a_file_that_cannot_be_described(landing, name, content, message):
    """A file without rows or in another format is refused with its path and the reason."""
    path = deliver(landing, name, content)
    with pytest.raises(UnreadableFileError) as error:
        draft([path])
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_the_command_prints_a_draft(landing):
    """--describe prints the draft and does nothing else; it needs files, and files need it."""
    path = deliver(landing, "t.csv", "id,town\n1,Turku\n2,Pori\n")
    run = CliRunner().invoke
    result = run(ingestion_processor.main, ["--describe", str(path)])
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["t"]["key"] == ["id"]
    for arguments in (["--describe"], [str(path)]):
        result = run(ingestion_processor.main, arguments)
        assert result.exit_code == 2
        assert "--describe needs at least one FILE, and FILE needs --describe." in result.stderr
    result = run(ingestion_processor.main, ["--describe", str(landing / "none.csv")])
    assert (result.exit_code, result.stderr.startswith("Error: ")) == (1, True)
    assert "none.csv: could not read the file: No such file or directory" in result.stderr
