"""Values in silver, in every notation that a description may name: exact or quarantined. On Spark as well, nightly."""

import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import lakes

from lakehouse_utils import settings
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.engines.protocol import Engine

NEEDS_SPARK = pytest.mark.skipif(
    find_spec("pysail") is None, reason="the extra spark isn't installed: make test installs it"
)
INVALID = object()


@pytest.fixture(params=["local", pytest.param("spark", marks=[NEEDS_SPARK, pytest.mark.nightly])])
def load(request: pytest.FixtureRequest, lake: Lake, tmp_path: Path, engine_of: Callable[[str, Lake], Engine]):
    """Load raw files, given by path, with a description, on each engine: bronze and silver."""

    def run(description: str, files: dict[str, str | bytes]) -> Lake:
        for name, content in files.items():
            path = tmp_path / "landing" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path = tmp_path / "sources.toml"
        path.write_text(description, encoding="utf-8")
        engine = engine_of(request.param, lake)
        lakes.job(lake, tmp_path / "landing", path, engine=engine, layers=("bronze", "silver"))
        return lake

    return run


def silver(lake: Lake, name: str) -> list[dict]:
    """The rows of a silver table by key `k` or `id`, without the columns that the pipeline adds."""
    rows = [{k: v for k, v in row.items() if k not in lakes.OWN} for row in lakes.rows(lake.delta("silver", name))]
    return sorted(rows, key=lambda row: str(next(iter(row.values()))).zfill(9))


def reasons(lake: Lake, name: str) -> dict[int, str]:
    table = lake.delta("quarantine", name)
    return {row["_source_line"]: row["reason"] for row in lakes.rows(table)} if table else {}


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)


# Per case: the column's type, settings of the table, and the value of each text; INVALID is quarantined.
CASES = {
    "minutes_with_zone": (
        'type="timestamp"',
        "",
        {
            "2026-02-03T04:05Z": utc(2026, 2, 3, 4, 5),
            "2026-02-03T04:05-05:00": utc(2026, 2, 3, 9, 5),
            "2026-02-03 04:05 UTC": utc(2026, 2, 3, 4, 5),
            "2026-02-03T04:05": utc(2026, 2, 3, 4, 5),
            "2026-02-03T04:05:09Z": utc(2026, 2, 3, 4, 5, 9),
            "2026-02-03T4:05+0530": utc(2026, 2, 2, 22, 35),
            "2026-02-03T24:05Z": INVALID,
            "2026-02-03T04:65Z": INVALID,
            "2026-02-30T04:05Z": INVALID,
            # UTC right behind the seconds
            "2026-02-03 04:05:06UTC": utc(2026, 2, 3, 4, 5, 6),
            "2026-02-03 04:05:06 UTC": utc(2026, 2, 3, 4, 5, 6),
            "2026-02-03T04:05:06.5UTC": utc(2026, 2, 3, 4, 5, 6, 500_000),
            "2026-02-03 04:05UTC": utc(2026, 2, 3, 4, 5),
            # more digits than microseconds
            "2026-02-03T04:05:06.123456789Z": INVALID,
            "2026-02-03T04:05:06.123456000Z": utc(2026, 2, 3, 4, 5, 6, 123_456),
            "2026-02-03T04:05:06.1234567": INVALID,
            "2026-02-03T04:05:06.5000000": utc(2026, 2, 3, 4, 5, 6, 500_000),
        },
    ),
    "integer_with_exponent": (
        'type="integer"',
        "",
        {"1e-400": INVALID, "35782737149014689315.0e-4": INVALID, "15e-1": INVALID, "1e3": 1000, "1.5e1": 15, "0e9": 0},
    ),
    "decimal_with_exponent": (
        'type="decimal(38,10)"',
        "",
        {
            "5471626565542874265262.e-16": INVALID,
            "547162.6565542874265262": INVALID,
            "1e-400": INVALID,
            "1.5e3": Decimal(1500),
            "15e-2": Decimal("0.15"),
            "1e-11": INVALID,
        },
    ),
    "numbers_of_germany": (
        'type="decimal(10,2)"',
        'decimal=","\nthousands="."',
        {
            "1.234,56": Decimal("1234.56"),
            "1234,5": Decimal("1234.50"),
            "-1.234.567,8": Decimal("-1234567.80"),
            "1.234": Decimal("1234.00"),
            " 7,00 ": Decimal("7.00"),
            ",5": Decimal("0.50"),
            "1.5": INVALID,
            "1.23,4": INVALID,
            "12.34.567,00": INVALID,
            "1,234.56": INVALID,
            "1,234": INVALID,  # three decimals
            "1.234,560": Decimal("1234.56"),
            "": None,
            "-": INVALID,
        },
    ),
    "numbers_of_france": (
        'type="double"',
        'decimal=","\nthousands=" "',
        {
            "1 234,5": 1234.5,
            "1\u00a0234,5": 1234.5,
            "1\u202f234\u202f567": 1234567.0,
            "1,5e3": 1500.0,
            "1.5": INVALID,
            "1 23": INVALID,
        },
    ),
    "numbers_of_switzerland": (
        'type="integer"',
        'thousands="\'"',
        {"1'234": 1234, "1\u2019234\u2019567": 1234567, "12'34": INVALID, "1234": 1234},
    ),
    "decimal_comma_alone": (
        'type="decimal(6,2)"',
        'decimal=","',
        {"1,5": Decimal("1.50"), "1.5": INVALID, "1,5,0": INVALID, "7": Decimal("7.00"), "NULL": None},
    ),
    "dates": (
        'type="date"',
        'date_format="%d/%m/%Y"',
        {
            "31/01/2026": dt.date(2026, 1, 31),
            "1/2/2026": dt.date(2026, 2, 1),
            " 01/02/2026 ": dt.date(2026, 2, 1),
            "30/02/2026": INVALID,
            "2026-01-31": INVALID,
            "31/01/26": INVALID,
            "31/01/2026x": INVALID,
            "31/01/2026 10:00": INVALID,
            "13/13/2026": INVALID,
            "01/02/0000": INVALID,
            "01/02/\uff12\uff10\uff12\uff16": INVALID,
        },
    ),
    "several_date_formats": (
        'type="date"',
        'date_format=["%d.%m.%y", "%Y%m%d", "iso"]',
        {
            "31.01.26": dt.date(2026, 1, 31),
            "31.01.68": dt.date(2068, 1, 31),
            "31.01.69": dt.date(1969, 1, 31),
            "20260131": dt.date(2026, 1, 31),
            "2026131": INVALID,
            "2026-01-31": dt.date(2026, 1, 31),
            "31/01/2026": INVALID,
        },
    ),
    "times_of_the_us": (
        'type="timestamp"',
        'timestamp_format=["%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p"]',
        {
            "01/31/2026 12:05 AM": utc(2026, 1, 31, 0, 5),
            "1/31/2026 1:05 AM": utc(2026, 1, 31, 1, 5),
            "01/31/2026 12:05 pm": utc(2026, 1, 31, 12, 5),
            "01/31/2026 1:05 PM": utc(2026, 1, 31, 13, 5),
            "01/31/2026 11:59:58 PM": utc(2026, 1, 31, 23, 59, 58),
            "01/31/2026 13:05 PM": INVALID,
            "01/31/2026 1:05": INVALID,
        },
    ),
    "times_with_offsets": (
        'type="timestamp"',
        'timestamp_format="%d.%m.%Y %H:%M:%S.%f%z"\ntime_zone="Europe/Berlin"',
        {
            "31.01.2026 18:30:00.5+0200": utc(2026, 1, 31, 16, 30, 0, 500_000),
            "31.01.2026 18:30:00.123456Z": utc(2026, 1, 31, 18, 30, 0, 123_456),
            "31.01.2026 18:30:00.123+23:00": INVALID,
            "31.01.2026 18:30:00.1": INVALID,
        },
    ),
    "berlin": (
        'type="timestamp"',
        'time_zone="Europe/Berlin"\ntimestamp_format=["%d.%m.%Y %H:%M", "iso"]',
        {
            "31.01.2026 18:30": utc(2026, 1, 31, 17, 30),
            "2026-07-31 18:30:00": utc(2026, 7, 31, 16, 30),
            "2026-07-31T18:30:00Z": utc(2026, 7, 31, 18, 30),
            "2026-07-31T18:30+01:00": utc(2026, 7, 31, 17, 30),
            "2026-07-31": utc(2026, 7, 30, 22),
            "29.03.2026 02:30": INVALID,  # clocks go from 2 to 3
            "29.03.2026 01:59": utc(2026, 3, 29, 0, 59),
            "29.03.2026 03:00": utc(2026, 3, 29, 1),
            "25.10.2026 02:30": utc(2026, 10, 25, 0, 30),  # twice: the first
            "25.10.2026 03:00": utc(2026, 10, 25, 2),
            "26.10.2026 01:00": utc(2026, 10, 26, 0),
            "": None,
        },
    ),
    "lord_howe": (
        'type="timestamp"',
        'time_zone="Australia/Lord_Howe"',
        {
            "2026-04-05 01:45:00": utc(2026, 4, 4, 14, 45),  # clocks go back by half an hour
            "2026-10-04 02:15:00": INVALID,
        },
    ),
    "booleans": (
        'type="boolean"',
        'true_values=["Sim", "S"]\nfalse_values=["Não", "N"]',
        {"Sim": True, "sim": True, " S ": True, "NÃO": False, "n": False, "true": INVALID, "1": INVALID, "": None},
    ),
    "null_values": (
        'type="integer"',
        'null_values=["", "-", "n/d"]',
        {"-": None, "n/d": None, "": None, "5": 5, "NULL": INVALID, "N/D": INVALID},
    ),
    "nan_is_null": ('type="double"', 'null_values=["nan"]', {"nan": None, "1.5": 1.5, "inf": INVALID}),
    "nan": ('type="double"', "", {"nan": INVALID, "1.5": 1.5}),
    "trimmed_text": (
        'type="text"',
        "trim=true",
        {"  x y\t": "x y", "\u00a0x\u00a0": "x", "   ": None, " NULL ": None, "": None},
    ),
    "text": ('type="text"', "", {"  x ": "  x ", "   ": "   "}),
    "pattern": (
        r"""type="text", pattern='\d{3}\.\d{3}-[A-Z]|ok?'""",
        "",
        {
            "123.456-A": "123.456-A",
            "o": "o",
            "123.456-a": INVALID,
            "x123.456-A": INVALID,
            "123.456-A\n": INVALID,
            "\uff11\uff12\uff13.456-A": INVALID,
            "": None,
        },
    ),
    "pattern_of_letters": (
        r"""type="text", pattern='^\p{Lu}[\w ]*.$'""",
        "",
        {"Éa b!": "Éa b!", "éa": INVALID, "Aé!": INVALID, "A\n": INVALID},
    ),
    "max_length": ('type="text", max_length=3', "", {"é😀a": "é😀a", "abcd": INVALID, "": None}),
    "integer_in_fractions": ('type="integer", max=9.5, min=-0.5', "", {"9": 9, "10": INVALID, "-1": INVALID, "0": 0}),
    "decimal_below_a_finer_one": (
        'type="decimal(4,2)", max=0.105',
        "",
        {"0.10": Decimal("0.10"), "0.11": INVALID, "0.105": INVALID},
    ),
    "decimal_with_a_wide_bound": (
        'type="decimal(4,2)", max=1000',
        "",
        {"99.99": Decimal("99.99"), "1000": INVALID},
    ),
    "decimal_below_everything": ('type="decimal(4,2)", min=1000', "", {"99.99": INVALID, "": None}),
    "time_bounds": (
        'type="timestamp", min="2026-01-01", max=2026-01-01T12:00:00+02:00',
        "",
        {"2026-01-01 10:00:00": utc(2026, 1, 1, 10), "2026-01-01 10:00:01": INVALID, "2025-12-31T23:59:59Z": INVALID},
    ),
    "column_overrides": (
        'type="date", date_format="%Y/%m/%d", null_values=["x"]',
        'date_format="%d/%m/%Y"',
        {"2026/01/31": dt.date(2026, 1, 31), "31/01/2026": INVALID, "x": None},
    ),
}  # fmt: skip


def test_values_in_every_notation(load):
    """Each text is exactly the value that its notation means, or quarantined; both engines agree."""
    description, files = "", {}
    for name, (column, of_table, values) in CASES.items():
        description += (
            f'[{name}]\nkey=["k"]\n{of_table}\n[{name}.columns]\nk={{type="integer",null_values=[]}}\nv={{{column}}}\n'
        )
        lines = [json.dumps({"k": number, "v": text}) for number, text in enumerate(values)]
        files[f"2026-03-01/{name}.jsonl"] = "\n".join(lines) + "\n"
    lake = load(description, files)
    for name, (_, _, values) in CASES.items():
        actual = {row["k"]: row["v"] for row in silver(lake, name)}
        expected = {number: value for number, value in enumerate(values.values()) if value is not INVALID}
        texts = list(values)
        assert {texts[k]: v for k, v in actual.items()} == {texts[k]: v for k, v in expected.items()}, name
        assert set(reasons(lake, name)) == {
            number + 1 for number, value in enumerate(values.values()) if value is INVALID
        }


def test_equal_values_of_different_files(load):
    """Files with other settings than the table's are read in their own notation, also for the version of a row."""
    description = """
[sales]
key = ["id"]
order_by = "at"
decimal = ","
date_format = "%d/%m/%Y"
[[sales.formats]]
files = "us-*/*"
decimal = "."
thousands = ","
date_format = "%m/%d/%Y"
null_values = ["n/a"]
[[sales.formats]]
files = "*/*.jsonl"
decimal = "."
date_format = "iso"
[sales.columns]
id = { type = "integer" }
amount = { type = "decimal(10,2)", min = 0.5 }
at = { type = "date" }
note = { type = "text" }
"""
    files = {
        "br-2026-03-01/sales.csv": as_csv([["id", "amount", "at", "note"], ["1", "1,5", "02/01/2026", "n/a"]]),
        "us-2026-03-01/sales.csv": as_csv(
            [["id", "amount", "at", "note"], ["1", "1,234.5", "01/03/2026", "n/a"], ["2", "1,5", "01/03/2026", ""]]
        ),
        "z-2026-03-01/sales.jsonl": json.dumps({"id": 3, "amount": 1.5, "at": "2026-01-04", "note": "n/a"}) + "\n",
    }
    lake = load(description, files)
    assert silver(lake, "sales") == [
        {"id": 1, "amount": Decimal("1234.50"), "at": dt.date(2026, 1, 3), "note": None},
        {"id": 3, "amount": Decimal("1.50"), "at": dt.date(2026, 1, 4), "note": "n/a"},
    ]
    assert reasons(lake, "sales") == {3: "amount: '1,5' is not a valid decimal(10,2)"}
    versions = {row["id"]: row["_version_at"] for row in lakes.rows(lake.delta("silver", "sales"))}
    assert versions[1] == utc(2026, 1, 3)


# -- exports of offices, as they are

OFFICES = {
    "brazil": (
        """
[socios]
key = ["numero"]
delimiter = ";"
encoding = "windows-1252"
skip_rows = 2
decimal = ","
thousands = "."
date_format = "%d/%m/%Y"
timestamp_format = "%d/%m/%Y %H:%M"
time_zone = "America/Sao_Paulo"
true_values = ["Sim"]
false_values = ["Não"]
null_values = ["", "-"]
trim = true
[socios.columns]
numero = { type = "integer", from = "Nº Sócio" }
nome = { type = "text", from = "Nome / Razão social", required = true }
cpf = { type = "text", from = "CPF", pattern = '\\d{3}\\.\\d{3}\\.\\d{3}-\\d{2}' }
nascimento = { type = "date", from = "Data de nascimento" }
mensalidade = { type = "decimal(10,2)", from = "Mensalidade (R$)", min = 0 }
ativo = { type = "boolean", from = "Ativo?" }
alterado_em = { type = "timestamp", from = "Última alteração" }
""",
        "socios",
        (
            "Relatório de sócios\nEmitido em 05/03/2026;;;;;;\n"
            "Nº Sócio;Nome / Razão social;CPF;Data de nascimento;Mensalidade (R$);Ativo?;Última alteração\n"
            "1.001; João da Conceição ;123.456.789-00;31/12/1980;1.234,50;Sim;01/03/2026 09:15\n"
            '2;"Padaria ""Pão"";\nFilial";-;-;89,90;NÃO;28/02/2026 23:59\n'
            "3;Zé;123;31/02/1980;1,234.50;talvez;01/03/2026\n"
        ),
        [
            {
                "numero": 1001,
                "nome": "João da Conceição",
                "cpf": "123.456.789-00",
                "nascimento": dt.date(1980, 12, 31),
                "mensalidade": Decimal("1234.50"),
                "ativo": True,
                "alterado_em": utc(2026, 3, 1, 12, 15),
            },
            {
                "numero": 2,
                "nome": 'Padaria "Pão";\nFilial',
                "cpf": None,
                "nascimento": None,
                "mensalidade": Decimal("89.90"),
                "ativo": False,
                "alterado_em": utc(2026, 3, 1, 2, 59),
            },
        ],
        7,
        (
            r"cpf: '123' does not match \d{3}\.\d{3}\.\d{3}-\d{2}; nascimento: '31/02/1980' is not a valid date;"
            " mensalidade: '1,234.50' is not a valid decimal(10,2); ativo: 'talvez' is not a valid boolean;"
            " alterado_em: '01/03/2026' is not a valid timestamp"
        ),
        {"numero": "3", "nome": "Zé", "ativo": "talvez"},
    ),
    "germany": (
        """
[umsatz]
key = ["beleg"]
delimiter = ";"
encoding = "iso-8859-15"
decimal = ","
thousands = "."
date_format = "%d.%m.%Y"
true_values = ["ja"]
false_values = ["nein"]
[umsatz.columns]
beleg = { type = "text", from = "Beleg-Nr." }
datum = { type = "date", from = "Datum" }
betrag = { type = "decimal(12,2)", from = "Betrag in €" }
bezahlt = { type = "boolean", from = "Bezahlt" }
strasse = { type = "text", from = "Straße", max_length = 12 }
""",
        "umsatz",
        (
            "Beleg-Nr.;Datum;Betrag in €;Bezahlt;Straße\n"
            "A-1;31.01.2026;1.234.567,89;ja;Königstraße\n"
            "A-2;01.02.2026;-0,5;Nein;\n"
            "A-3;2026-02-01;5;x;Königstraße 17\n"
        ),
        [
            {
                "beleg": "A-1",
                "datum": dt.date(2026, 1, 31),
                "betrag": Decimal("1234567.89"),
                "bezahlt": True,
                "strasse": "Königstraße",
            },
            {
                "beleg": "A-2",
                "datum": dt.date(2026, 2, 1),
                "betrag": Decimal("-0.50"),
                "bezahlt": False,
                "strasse": None,
            },
        ],
        4,
        (
            "datum: '2026-02-01' is not a valid date; bezahlt: 'x' is not a valid boolean; strasse: 'Königstraße 17'"
            " is longer than 12 characters"
        ),
        {"beleg": "A-3", "strasse": "Königstraße 17"},
    ),
    "france": (
        """
[ventes]
key = ["numero"]
delimiter = ";"
encoding = "latin-1"
decimal = ","
thousands = " "
date_format = "%d/%m/%y"
true_values = ["oui"]
false_values = ["non"]
time_zone = "Europe/Paris"
timestamp_format = "%d/%m/%Y %H:%M:%S"
[ventes.columns]
numero = { type = "integer", from = "N° de vente" }
jour = { type = "date", from = "Date" }
montant = { type = "double", from = "Montant H.T." }
livre = { type = "boolean", from = "Livré" }
saisie = { type = "timestamp", from = "Saisie le" }
""",
        "ventes",
        (
            "N° de vente;Date;Montant H.T.;Livré;Saisie le\n"
            "1;31/01/26;1\u00a0234,5;Oui;31/07/2026 08:00:00\n"
            "2;31/01/26;1.234,5;Oui;29/03/2026 02:30:00\n"
        ),
        [
            {
                "numero": 1,
                "jour": dt.date(2026, 1, 31),
                "montant": 1234.5,
                "livre": True,
                "saisie": utc(2026, 7, 31, 6),
            }
        ],
        3,
        "montant: '1.234,5' is not a valid double; saisie: '29/03/2026 02:30:00' is not a valid timestamp",
        {"numero": "2", "livre": "Oui"},
    ),
}


@pytest.mark.parametrize("office", OFFICES)
def test_the_export_of_an_office_reaches_silver(load, office):
    """A file as an office exports it needs only a description; quarantine has its lines and the raw text."""
    description, table, text, rows, line, reason, raw = OFFICES[office]
    encoding = {"brazil": "cp1252", "germany": "iso-8859-15", "france": "latin-1"}[office]
    lake = load(description, {f"2026-03-05/{table}.csv": text.encode(encoding)})
    assert silver(lake, table) == sorted(rows, key=lambda row: str(next(iter(row.values()))).zfill(9))
    assert reasons(lake, table) == {line: reason}
    (quarantined,) = lakes.rows(lake.delta("quarantine", table))
    assert json.loads(quarantined["raw"]).items() >= raw.items()


def test_the_worked_example_of_the_documentation(load):
    """The export in docs/your-own-data.md gets to silver with the description there, as the page says."""
    page = (settings.CHECKOUT / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    export = page.partition("two title lines:\n\n```\n")[2].partition("```")[0]
    description = page.partition("<!-- sources of an office -->\n\n```toml\n")[2].partition("```")[0]
    lake = load(description, {"2026-03-05/socios.csv": export.encode("cp1252")})
    assert reasons(lake, "socios") == {}
    rows = {row["numero"]: row for row in silver(lake, "socios")}
    assert (rows[1001]["mensalidade"], rows[1001]["nascimento"]) == (Decimal("1234.50"), dt.date(1980, 12, 31))
    assert rows[1001]["alterado_em"] == utc(2026, 3, 1, 12, 15)
    assert (rows[1002]["cpf"], rows[1002]["nascimento"], rows[1002]["ativo"]) == (None, None, False)
