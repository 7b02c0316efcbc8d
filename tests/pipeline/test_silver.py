"""Silver: typed values, one row per key, history; in any order of arrival, and for a user's own tables as well."""

import datetime as dt
import json
import random
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
from support import expected, lakes
from support.selected import slow_but

from lakehouse_utils.errors import DescriptionError
from lakehouse_utils.pipeline import commits, gold, merge, silver

LAYERS = ("bronze", "silver")
BATCHES = [f"2026-01-0{day}" for day in range(1, 8)]


def write(landing: Path, file: str, text: str) -> None:
    path = landing / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    (tmp_path / "landing").mkdir()
    return tmp_path / "landing"


@pytest.fixture
def described(tmp_path: Path):
    """Write a description of sources, as a user would."""

    def write_description(text: str) -> Path:
        path = tmp_path / "sources.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_description


def silver_rows(lake, name: str) -> list[dict]:
    """The rows of a silver table, sorted, without the columns that the pipeline adds."""
    rows = [{k: v for k, v in row.items() if k not in lakes.OWN} for row in lakes.rows(lake.delta("silver", name))]
    return sorted(rows, key=repr)


def reasons(lake, name: str) -> dict[int, str]:
    table = lake.delta("quarantine", name)
    return {row["_source_line"]: row["reason"] for row in lakes.rows(table)} if table else {}


# -- the order of arrival


def arrive(lake, small: Path, landing: Path, runs: list[list[str]], layers=LAYERS, **chosen) -> None:
    for batches in runs:
        for batch in batches:
            shutil.copytree(small / batch, landing / batch)
        lakes.job(lake, landing, layers=layers, **chosen)


def of_silver(expected_tables: dict, tables: tuple[str, ...], layers=("silver", "quarantine")) -> dict:
    names = {f"{layer}.{table}{kind}" for layer in layers for table in tables for kind in ("", "_history")}
    return {name: rows for name, rows in expected_tables.items() if name in names}


def test_batches_loaded_one_by_one_give_the_expected_rows(lake, small, small_expected, landing):
    """Seven runs with one batch each give the same silver tables as the expectation for all batches."""
    tables = ("categories", "products", "orders")
    arrive(lake, small, landing, [[batch] for batch in BATCHES], tables=tables)
    assert lakes.unlike(lake, of_silver(small_expected, tables)) == {}


@pytest.mark.parametrize("seed", slow_but([], range(3), slow=[0]))
def test_batches_in_random_order_give_the_expected_rows(lake, small, small_expected, landing, seed):
    """Silver does not depend on the order in which batches arrive, or on how many arrive per run."""
    chance = random.Random(seed)
    batches = chance.sample(BATCHES, k=7)
    cuts = sorted(chance.sample(range(1, 7), k=2))
    tables = ("categories", "customers", "products", "orders")
    arrive(lake, small, landing, [batches[: cuts[0]], batches[cuts[0] : cuts[1]], batches[cuts[1] :]], tables=tables)
    assert lakes.unlike(lake, of_silver(small_expected, tables)) == {}


def test_a_batch_delivered_again_under_another_name_changes_no_values(lake, small, small_expected, landing):
    """Rows that silver already has change nothing."""
    tables = ("customers", "orders", "order_items")
    arrive(lake, small, landing, [BATCHES], tables=tables)
    shutil.copytree(small / "2026-01-04", landing / "2026-01-04-again")
    shutil.copytree(small / "2026-01-03", landing / "2026-01-03-again")
    lakes.job(lake, landing, layers=LAYERS, tables=tables)
    assert lakes.unlike(lake, of_silver(small_expected, tables, ("silver",))) == {}


def test_two_versions_in_one_batch_do_not_read_all_of_bronze(lake, landing, described, monkeypatch):
    """Rows of one batch that are out of order are not late: no file of earlier batches is read."""
    path = described(
        '[t]\nkey=["k"]\norder_by="at"\nhistory=true\n[t.columns]\nk={type="integer"}\nat={type="timestamp"}\nv={type="text"}'
    )
    write(landing, "2026-01-01/t.csv", "k,at,v\n1,2026-01-01T08:00:00Z,a\n2,2026-01-01T08:00:00Z,a\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-02/t.csv", "k,at,v\n1,2026-01-02T09:00:00Z,c\n1,2026-01-02T08:00:00Z,b\n")
    monkeypatch.setattr(silver, "_all_files_of_bronze", _raise)
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [(row["k"], row["v"], row["is_current"]) for row in silver_rows(lake, "t_history")] == [
        (1, "a", False),
        (1, "b", False),
        (1, "c", True),
        (2, "a", True),
    ]


def test_history_is_right_after_a_run_that_ended_before_the_current_state(lake, landing, described, monkeypatch):
    """If a run ended between the two commits, the next one cannot tell late rows by the current state."""
    path = described(
        '[t]\nkey=["k"]\norder_by="at"\nhistory=true\n[t.columns]\nk={type="integer"}\nat={type="date"}\nv={type="text"}'
    )
    write(landing, "2026-01-01/t.csv", "k,at,v\n1,2026-01-01,a\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-05/t.csv", "k,at,v\n1,2026-01-03,b\n1,2026-01-05,b\n")
    with monkeypatch.context() as patched:
        patched.setattr(silver, "_refresh_current", _raise)
        with pytest.raises(RuntimeError):
            lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-06/t.csv", "k,at,v\n1,2026-01-04,c\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    assert lakes.unlike(lake, expected.tables(landing, path)) == {}
    assert [row["v"] for row in silver_rows(lake, "t_history")] == ["a", "b", "c", "b"]


def _raise(*_):
    raise RuntimeError("stopped here")


def test_rejected_rows_of_a_compacted_bronze_are_not_quarantined_twice(lake, landing, described):
    """When bronze was compacted and is read again, quarantine still has each rejected row once."""
    path = described('[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}')
    write(landing, "2026-01-01/t.csv", "k\n1\nx\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-02/t.csv", "k\n2\ny\n")
    lakes.job(lake, landing, path, layers=("bronze",))
    bronze = lake.delta("bronze", "t")
    bronze.optimize.compact()
    bronze.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [row["k"] for row in silver_rows(lake, "t")] == [1, 2]
    assert sorted(row["reason"] for row in lakes.rows(lake.delta("quarantine", "t"))) == [
        "k: 'x' is not a valid integer",
        "k: 'y' is not a valid integer",
    ]


def test_a_late_batch_is_recognized_without_statistics_in_the_log(lake, landing, described):
    """Statistics cover only the first 32 columns of a table: a compacted wide table has none of _batch."""
    columns = [f"c{n}" for n in range(40)]
    path = described('[t]\nkey=["c0"]\n[t.columns]\n' + "\n".join(f'{name}={{type="integer"}}' for name in columns))
    for batch, value in (("undated-b", 2), ("undated-c", 3)):
        write(landing, f"{batch}/t.csv", ",".join(columns) + "\n" + ",".join(["1", *[str(value)] * 39]) + "\n")
        lakes.job(lake, landing, path, layers=LAYERS)
    lake.delta("bronze", "t").optimize.compact()
    write(landing, "undated-a/t.csv", ",".join(columns) + "\n" + ",".join(["1"] * 40) + "\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    assert silver_rows(lake, "t")[0]["c39"] == 3


# -- other programs


def disturb_second_look(monkeypatch, module, table: str, disturb) -> None:
    """While a step compares the tables that it has opened with their logs, another job commits.

    Another step has just failed: the run reads all logs again.
    """
    original, looks = module._find_work, []

    def find_work(run, *args):
        if table in map(str, args) or any(getattr(arg, "name", None) == table for arg in args):
            looks.append(table)
            if len(looks) == 2:
                with monkeypatch.context() as undisturbed:
                    undisturbed.setattr(module, "_find_work", original)
                    disturb()
                run.logs.expire()
        return original(run, *args)

    monkeypatch.setattr(module, "_find_work", find_work)


def test_rows_that_another_job_appends_while_silver_looks_at_bronze_are_not_lost(lake, landing, described, monkeypatch):
    """Silver never records that it covers a version of bronze whose rows it has not read."""
    path = described('[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}')
    write(landing, "2026-01-01/t.csv", "k\n1\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-02/t.csv", "k\n2\n")

    def append() -> None:
        write(landing, "2026-01-03/t.csv", "k\n3\n")
        lakes.job(lake, landing, path, layers=("bronze",))

    disturb_second_look(monkeypatch, silver, "t", append)
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [row["k"] for row in silver_rows(lake, "t")] == [1, 2, 3]


def test_rows_that_another_job_changes_while_gold_looks_at_silver_are_not_lost(lake, small, landing, monkeypatch):
    """The same for gold and its inputs."""
    tables = ("brands", "categories", "products", "dim_products")
    shutil.copytree(small / BATCHES[0], landing / BATCHES[0])
    lakes.job(lake, landing, tables=tables)
    header, first, *_ = (small / BATCHES[0] / "products.csv").read_text().splitlines()
    for day, name in (("2027-01-01", "Renamed Once"), ("2027-01-02", "Renamed Twice")):
        fields = dict(zip(header.split(","), first.split(","), strict=True)) | {"product_name": name}
        fields |= {"updated_at": f"{day}T00:00:00Z"} if "updated_at" in fields else {}
        write(landing, f"../{day}/products.csv", f"{header}\n{','.join(fields.values())}\n")
    shutil.copytree(landing.parent / "2027-01-01", landing / "2027-01-01")

    def change() -> None:
        shutil.copytree(landing.parent / "2027-01-02", landing / "2027-01-02")
        lakes.job(lake, landing, layers=LAYERS, tables=tables)

    disturb_second_look(monkeypatch, gold, "dim_products", change)
    lakes.job(lake, landing, tables=tables)
    names = {row["product_name"] for row in lakes.rows(lake.delta("gold", "dim_products")) if row["is_current"]}
    assert "Renamed Twice" in names and "Renamed Once" not in names


# -- values


def test_values_are_exact_or_rejected(lake, landing, described):
    """A text that is not exactly a value of the column's type is quarantined, and never rounded or cut."""
    cases = {
        "integer": (
            {"9007199254740993": 2**53 + 1, "-9223372036854775808": -(2**63), "5.0": 5, " 7 ": 7, "1e3": 1000},
            "9223372036854775808 9007199254740993.4 1.5 0x1F 1_000 0b11 one \uff11\uff12 1,5",
        ),
        "decimal(10,2)": (
            {"99999999.99": Decimal("99999999.99"), "1.230": Decimal("1.23"), ".5": Decimal("0.50")},
            "1.239 100000000.00 1.299,00 $5 1e-3 NaN .",
        ),
        "decimal(38,10)": (
            {f"{'9' * 28}.{'9' * 10}": Decimal(f"{'9' * 28}.{'9' * 10}")},
            "1234567890123456789.12345678905",
        ),
        "double": ({"1.5e300": 1.5e300, "-0.25": -0.25}, "nan inf -Infinity 1e400 0x1p3 1_0.5"),
        "boolean": ({"true": True, "False": False}, "perhaps 2"),
        "date": (
            {
                "2026-01-31": dt.date(2026, 1, 31),
                "2026-01-31 00:00:00": dt.date(2026, 1, 31),
                "9999-12-31": dt.date.max,
            },
            "2026-02-30 2026-01-31T18:30:00 2026-01-31Tnoon infinity 2026-01-31(BC) 10000-01-01 31.01.2026 epoch",
        ),
        "timestamp": (
            {
                "2026-01-31T18:30:00Z": dt.datetime(2026, 1, 31, 18, 30, tzinfo=dt.UTC),
                "2026-01-31 18:30:00": dt.datetime(2026, 1, 31, 18, 30, tzinfo=dt.UTC),
                "2026-01-31T18:30:00.123456+02:00": dt.datetime(2026, 1, 31, 16, 30, 0, 123456, tzinfo=dt.UTC),
                "2026-01-31": dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
            },
            "2026-01-31T25:00:00Z infinity 18:30 2026-01-31(BC) 1769884200",
        ),
        "text": ({"Null": "Null", "null": "null", " x ": " x ", "O'Brien": "O'Brien"}, ""),
    }  # fmt: skip
    for number, (good, bad) in enumerate(cases.values()):
        texts = {-1: None, -2: "NULL", -3: ""} | dict(enumerate([*good, *bad.split()]))
        lines = [json.dumps({"k": key, "v": text}) + "\n" for key, text in texts.items()]
        write(landing, f"2026-01-01/t{number}.jsonl", "".join(lines))
    path = described(
        "\n".join(
            f'[t{number}]\nkey=["k"]\n[t{number}.columns]\nk={{type="integer"}}\nv={{type="{kind}"}}'
            for number, kind in enumerate(cases)
        )
    )
    lakes.job(lake, landing, path, layers=LAYERS)
    for number, (kind, (good, bad)) in enumerate(cases.items()):
        values = {row["k"]: row["v"] for row in silver_rows(lake, f"t{number}")}
        assert [values.pop(key) for key in (-1, -2, -3)] == [None] * 3
        assert values == dict(enumerate(good.values())), kind
        expected_reasons = {
            4 + len(good) + n: f"v: '{text}' is not a valid {kind}" for n, text in enumerate(bad.split())
        }
        assert reasons(lake, f"t{number}") == expected_reasons


def test_rejected_rows_have_all_problems_as_reason(lake, landing, described):
    """The reason of a rejected row names every rule that it breaks, and `raw` has its values as they came."""
    path = described(
        '[t]\nkey=["k"]\n[t.columns]\nk={type="text"}\nn={type="integer",required=true,min=1,max=9}\n'
        'w={type="text",allowed=["it\'s","b"]}\nd={type="date",min="2020-01-01"}'
    )
    write(
        landing,
        "t.csv",
        "k,n,w,d\na,1,it's,2020-01-01\nb,,b,\n,10,c,2019-12-31\nc,0,,\nNULL,x,b,2020-01-01\nNull,9,,\n",
    )
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [row["k"] for row in silver_rows(lake, "t")] == ["Null", "a"]
    assert reasons(lake, "t") == {
        3: "n: missing",
        4: "k: missing; n: '10' is above 9; w: 'c' is not one of it's, b; d: '2019-12-31' is below 2020-01-01",
        5: "n: '0' is below 1",
        6: "k: missing; n: 'x' is not a valid integer",
    }
    raw = {row["_source_line"]: row["raw"] for row in lakes.rows(lake.delta("quarantine", "t"))}
    assert json.loads(raw[6]) == {"k": "NULL", "n": "x", "w": "b", "d": "2020-01-01"}


# -- a user's own tables


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["it's", "b\\n", "x" * 200, "\U0010ffff" * 70, "é%_", "a b"]),
        ("integer", [2**63 - 1, -(2**63), 2**53 + 1]),
        ("decimal(38,10)", ["1234567890123456789012345678.0123456789", "1234567890123456789012345678.0123456788"]),
        ("decimal(10,2)", ["1.50", "10.25", "9.00"]),
        ("date", ["0999-01-01", "2026-01-31"]),
        ("timestamp", ["2026-01-31T01:02:03.123456Z", "2026-01-31T01:02:03.999999Z", "2025-01-01T00:00:00Z"]),
        ("double", ["1.5", "2", "1e300"]),
        ("boolean", ["true", "false"]),
    ],
)
def test_keys_of_every_type_are_merged(lake, landing, described, kind, values):
    """A row with an existing key updates the row in silver, whatever the type of the key."""
    path = described(f'[t]\nkey=["k"]\nhistory=true\n[t.columns]\nk={{type="{kind}"}}\nv={{type="integer"}}')
    for day in (1, 2, 3):
        text = "".join(json.dumps({"k": value, "v": day}) + "\n" for value in values)
        write(landing, f"2026-01-0{day}/t.jsonl", text)
        lakes.job(lake, landing, path, layers=LAYERS)
    assert [row["v"] for row in silver_rows(lake, "t")] == [3] * len(values)
    assert len(silver_rows(lake, "t_history")) == 3 * len(values)


def test_names_may_be_in_mixed_case_reserved_or_not_ascii(lake, landing, described):
    """Names of tables and columns may be SQL keywords, in mixed case, and with characters outside ASCII."""
    path = described(
        '["Größe"]\nkey=["Order","group"]\norder_by="select"\nhistory=true\ndelimiter=";"\n["Größe".columns]\n'
        'Order={type="text"}\ngroup={type="integer"}\nselect={type="integer"}\n"naïve"={type="text"}\nsource={type="text"}'
    )
    write(landing, "2026-01-01/Größe.csv", "ORDER;Group;select;naïve;source\na;1;1;x;s\nA;1;1;y;s\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "2026-01-02/Größe.csv", "group;order;select;naïve\n1;a;2;x2\n1;A;0;older\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [tuple(row.values()) for row in silver_rows(lake, "Größe")] == [
        ("A", 1, 1, "y", "s"),
        ("a", 1, 2, "x2", None),
    ]
    history = [(row["Order"], row["naïve"], row["is_current"]) for row in silver_rows(lake, "Größe_history")]
    assert history == [("A", "y", True), ("a", "x", False), ("a", "x2", True)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_version_number_orders_current_state_and_history(lake, landing, described, one_by_one):
    """With a number as `order_by`, the highest number is the newest version in both tables."""
    path = described(
        '[t]\nkey=["k"]\norder_by="version"\nhistory=true\n[t.columns]\nk={type="integer"}\nversion={type="integer"}\nv={type="text"}'
    )
    batches = [("01", "1,5,a\n2,1,a"), ("02", "1,4,older\n2,2,b"), ("03", "1,6,c\n1,7,d\n1,3,old\n2,,none")]
    for day, text in batches:
        write(landing, f"2026-01-{day}/t.csv", f"k,version,v\n{text}\n")
        if one_by_one:
            lakes.job(lake, landing, path, layers=LAYERS)
    lakes.job(lake, landing, path, layers=LAYERS)
    assert [row["v"] for row in silver_rows(lake, "t")] == ["d", "b"]
    history = [(row["k"], row["v"], row["valid_from"].day, row["is_current"]) for row in silver_rows(lake, "t_history")]
    assert sorted(history) == [(1, "a", 1, False), (1, "d", 3, True), (2, "a", 1, False), (2, "b", 2, True)]


def test_history_without_order_by_and_dates_has_the_last_delivery(lake, landing, described):
    """A change that nothing dates replaces the earlier values, from the beginning of time, and a note says so."""
    path = described('[t]\nkey=["k"]\nhistory=true\n[t.columns]\nk={type="text"}\nv={type="text"}')
    write(landing, "t.csv", "k,v\na,1\nb,1\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "t.csv", "k,v\na,1\nb,22\n")
    progress = lakes.RecordingProgress()
    lakes.job(lake, landing, path, progress=progress, layers=LAYERS)
    assert silver_rows(lake, "t") == [{"k": "a", "v": "1"}, {"k": "b", "v": "22"}]
    history = sorted(silver_rows(lake, "t_history"), key=lambda row: (row["k"], row["valid_from"]))
    assert [(row["k"], row["v"], row["is_current"]) for row in history] == [("a", "1", True), ("b", "22", True)]
    assert {row["valid_from"].isoformat() for row in history} == {"1900-01-01T00:00:00+00:00"}
    (note,) = progress.sentences
    assert note.startswith("silver.t_history keeps only the newest values of rows without a date")
    assert note.endswith("Name batches by date, such as 2026-01-31, or set order_by for [t]")


def test_a_late_batch_without_a_date_was_never_in_force(lake, landing, described):
    """A batch whose name sorts before a loaded one changes neither the current state nor the history."""
    path = described('[t]\nkey=["k"]\nhistory=true\n[t.columns]\nk={type="text"}\nv={type="text"}')
    write(landing, "batch-b/t.csv", "k,v\na,new\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    write(landing, "batch-a/t.csv", "k,v\na,old\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    assert silver_rows(lake, "t") == [{"k": "a", "v": "new"}]
    assert [(row["v"], row["is_current"]) for row in silver_rows(lake, "t_history")] == [("new", True)]


def test_a_table_may_have_only_its_key(lake, landing, described):
    """A table without columns beside the key is merged, and a rerun makes no commit."""
    path = described('[t]\nkey=["a","b"]\nhistory=true\n[t.columns]\na={type="text"}\nb={type="date"}')
    for day in (1, 2):
        write(landing, f"2026-01-0{day}/t.csv", f"a,b\nx,2026-01-01\ny,2026-01-0{day}\n")
        lakes.job(lake, landing, path, layers=LAYERS)
    assert len(silver_rows(lake, "t")) == len(silver_rows(lake, "t_history")) == 3
    version = lake.delta("silver", "t").version()
    lakes.job(lake, landing, path, layers=LAYERS)
    assert lake.delta("silver", "t").version() == version


def test_a_changed_description_of_columns_is_refused(lake, landing, described):
    """A new column or type for an existing silver table is an error that names the column, and nothing is written."""
    write(landing, "t.csv", "k,v\n1,2\n")
    columns = '[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}\n'
    lakes.job(lake, landing, described(columns), layers=LAYERS)
    before = lakes.versions(lake)
    for more in ('v={type="text"}', 'v={type="decimal(4, 1)"}'):
        with pytest.raises(
            DescriptionError,
            match=r"^silver\.t and \[t\] .+ do not have the same columns; .+: v\. Undo .+ --rebuild silver\.t\.",
        ):
            lakes.job(lake, landing, described(columns + more), layers=LAYERS)
    assert lakes.versions(lake) == before


def test_a_deleted_silver_table_is_built_again(lake, landing, described):
    """After its folder was deleted, silver is built from bronze, and quarantine is not extended."""
    path = described('[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}')
    write(landing, "t.csv", "k\n1\nx\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    keys = [
        entry["Key"] for entry in lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key("silver/"))["Contents"]
    ]
    for key in keys:
        lake.s3.delete_object(Bucket=lake.bucket, Key=key)
    lakes.job(lake, landing, path, layers=LAYERS)
    assert silver_rows(lake, "t") == [{"k": 1}]
    assert len(lakes.rows(lake.delta("quarantine", "t"))) == 1


# -- MERGE


def test_a_daily_batch_rewrites_only_the_files_with_its_keys(lake, landing, described, monkeypatch):
    """MERGE keeps the files that hold none of the batch's keys."""
    monkeypatch.setattr(commits, "TARGET_FILE_BYTES", 1 << 20)
    path = described('[t]\nkey=["k"]\n[t.columns]\nk={type="integer"}\nv={type="text"}')
    noise = random.Random(1)
    write(landing, "2026-01-01/t.csv", "k,v\n" + "".join(f"{n},{noise.randbytes(60).hex()}\n" for n in range(80_000)))
    lakes.job(lake, landing, path, layers=LAYERS)
    before = set(lake.delta("silver", "t").file_uris())
    assert len(before) >= 4
    write(landing, "2026-01-02/t.csv", "k,v\n5,changed\n79999,changed\n80000,new\n")
    lakes.job(lake, landing, path, layers=LAYERS)
    table = lake.delta("silver", "t")
    kept = before & set(table.file_uris())
    assert len(before) - len(kept) == 2
    assert table.count() == 80_001


def test_more_files_than_ranges_are_merged_as_one_range(lake, landing, described, monkeypatch):
    """Beyond the maximum number of ranges, one range covers all keys, and the rows are the same."""
    monkeypatch.setattr(merge, "_MAX_RANGES", 1)
    path = described('[t]\nkey=["k"]\n[t.columns]\nk={type="text"}\nv={type="integer"}')
    for day, keys in ((1, "ab"), (2, "xy"), (3, "abxyz")):
        write(landing, f"2026-01-0{day}/t.csv", "k,v\n" + "".join(f"{key}'{day // 3},{day}\n" for key in keys))
        lakes.job(lake, landing, path, layers=LAYERS)
    assert {row["k"]: row["v"] for row in silver_rows(lake, "t")} == {
        "a'0": 1, "b'0": 1, "x'0": 2, "y'0": 2, "a'1": 3, "b'1": 3, "x'1": 3, "y'1": 3, "z'1": 3,
    }  # fmt: skip
