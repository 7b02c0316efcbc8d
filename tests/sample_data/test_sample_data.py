"""The generator of the raw files: the same bytes everywhere, every quirk in its place, nothing overwritten."""

import csv
import gzip
import hashlib
import json
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.sample_data import sample_data
from lakehouse_utils.sample_data.sample_data import LINE, SOURCES, VALUE, generate, main

LANDING = SOURCES.parent / "landing"
TABLES = tomllib.loads(SOURCES.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Scale 1, written once for this module: the folder and the summary."""
    out = tmp_path_factory.mktemp("shop")
    return out, generate(out)


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content(path: Path) -> object:
    """What must not change: the bytes, except where those are up to the library that packs them."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


# --- a strict reader, written apart from the generator ---


def records(path: Path):
    """(line, row or None where the line can't be split into fields) of every row of a raw file."""
    if path.suffix == ".parquet":
        yield from enumerate(pq.read_table(path).to_pylist(), start=1)
        return
    text = content(path).decode("utf-8-sig", errors="surrogateescape")
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, row if isinstance(row, dict) else None
        return
    # csv takes the lines as they are, to count those inside a field
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    header = next(reader)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield line, None
            return
        whole = len(fields) == len(header) and not any("\udc80" <= c <= "\udcff" for c in "".join(fields))
        yield line, dict(zip(header, fields, strict=True)) if whole else None


def broken_value(table: dict, row: dict) -> bool:
    """Whether a value of the row breaks what sources.toml says about its column."""
    for name, about in table["columns"].items():
        value = row.get(name)
        if value in (None, "", "NULL"):
            if about.get("required") or name in table["key"]:
                return True
            continue
        kind = about["type"]
        try:
            if kind == "integer":
                typed = int(value)
            elif kind.startswith("decimal"):
                typed = Decimal(value)
            elif kind == "date":
                typed = date.fromisoformat(value)
            elif kind == "timestamp":
                typed = datetime.fromisoformat(value.removesuffix("Z"))
            else:
                typed = value
        except (ValueError, InvalidOperation):
            return True
        if "min" in about and typed < about["min"] or "max" in about and typed > about["max"]:
            return True
        if "allowed" in about and typed not in about["allowed"]:
            return True
    return False


def table_of(name: str) -> str:
    return Path(name).name.partition(".")[0]


def broken_rows(folder: Path, name: str) -> list[tuple[int, str]]:
    found = []
    for line, row in records(folder / name):
        if row is None:
            found.append((line, LINE))
        elif broken_value(TABLES[table_of(name)], row):
            found.append((line, VALUE))
    return found


def good_rows(folder: Path, name: str) -> list[dict]:
    bad = {line for line, _ in broken_rows(folder, name)}
    return [row for line, row in records(folder / name) if line not in bad]


# --- the same everywhere ---


def test_the_shipped_files_are_what_the_generator_writes(shop):
    out, _ = shop
    mend = "python -m lakehouse_utils.sample_data --out data/landing, after removing data/landing"
    assert files_of(LANDING) == files_of(out), mend
    for name in files_of(out):
        assert content(LANDING / name) == content(out / name), f"{name} differs; to mend it: {mend}"


def test_the_shipped_files_are_small():
    assert sum(path.stat().st_size for path in LANDING.rglob("*")) < 1_500_000


def test_chance_is_the_same_on_every_machine():
    bits = sample_data._hash("orders", np.arange(10_000)).astype("<u8").tobytes()
    assert hashlib.sha256(bits).hexdigest() == "62582e65cf1fd1be2d6650260feaaca460b90fcf946a56f72389471aab2207ea"
    assert sample_data._draw("orders", np.arange(6), 1000).tolist() == [781, 229, 440, 48, 692, 838]


def test_neither_a_second_run_nor_another_chunk_size_changes_anything(shop, tmp_path, monkeypatch):
    out, summary = shop
    monkeypatch.setattr(sample_data, "CHUNK", 89)
    assert generate(tmp_path) == summary
    assert all(content(tmp_path / name) == content(out / name) for name in files_of(out))


def test_memory_does_not_grow_with_the_scale(tmp_path):
    """Peak memory of a process of its own, in which four times the rows differ from one time by next to nothing."""
    code = """
import sys
from pathlib import Path
from lakehouse_utils.sample_data.sample_data import generate
generate(Path(sys.argv[1]), float(sys.argv[2]))
if sys.platform == "linux":  # not getrusage, which counts the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
elif sys.platform == "win32":
    import psutil
    print(psutil.Process().memory_info().peak_wset / 2**20)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    peaks = []
    for scale in (50, 200):
        command = [sys.executable, "-c", code, str(tmp_path / str(scale)), str(scale)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCES.parent.parent)
        peaks.append(float(run.stdout))
    assert peaks[1] < peaks[0] + 25, f"{peaks} MB at scale 50 and 200"


# --- what is in the files ---


def test_the_full_load_has_exactly_the_columns_of_the_contract_and_is_clean(shop):
    out, _ = shop
    contract = {
        "brands": "brand_id,brand_name",
        "categories": "category_id,category_name",
        "customers": "customer_id,first_name,last_name,phone,email,street,city,state,zip_code",
        "products": "product_id,product_name,brand_id,category_id,model_year,list_price",
        "stores": "store_id,store_name,phone,email,street,city,state,zip_code",
        "staffs": "staff_id,first_name,last_name,email,phone,active,store_id,manager_id",
        "orders": "order_id,customer_id,order_status,order_date,required_date,shipped_date,store_id,staff_id",
        "order_items": "order_id,item_id,product_id,quantity,list_price,discount",
        "stocks": "store_id,product_id,quantity",
    }
    assert {path.name for path in (out / "2026-01-01").iterdir()} == {f"{table}.csv" for table in contract}
    for table, columns in contract.items():
        assert (out / "2026-01-01" / f"{table}.csv").read_bytes().startswith(columns.encode() + b"\n")
        assert broken_rows(out, f"2026-01-01/{table}.csv") == []


def test_the_full_load_holds_together(shop):
    """Keys are unique, every reference points to a row, nothing ships before it is ordered."""
    out, _ = shop
    rows = {table: good_rows(out, f"2026-01-01/{table}.csv") for table in TABLES}
    for name, table in TABLES.items():
        keys = [tuple(row[column] for column in table["key"]) for row in rows[name]]
        assert len(set(keys)) == len(keys), name
        for column, about in table["columns"].items():
            if "references" in about:
                target, _, key = about["references"].partition(".")
                values = {row[column] for row in rows[name]} - {"NULL", ""}
                assert values <= {row[key] for row in rows[target]}, f"{name}.{column}"
    for order in rows["orders"]:
        assert "2024-01-01" <= order["order_date"] <= "2025-12-31"
        assert order["shipped_date"] > order["order_date"]  # NULL is greater than digits
        assert (order["shipped_date"] == "NULL") == (order["order_status"] != "4")
    assert len(rows["customers"]) == 1500 and len(rows["orders"]) == 1600
    assert 4600 < len(rows["order_items"]) < 4800


@pytest.mark.parametrize("scale", [0.001, 20])
def test_the_noted_broken_rows_are_the_broken_rows(scale, tmp_path):
    summary = generate(tmp_path, scale)
    noted = {(quirk.file, quirk.line, quirk.broken) for quirk in summary.quirks if quirk.broken}
    assert len(noted) == sum(quirk.broken is not None for quirk in summary.quirks)
    daily = [name for name in summary.files if not name.startswith("2026-01-01")]
    assert {(name, *found) for name in daily for found in broken_rows(tmp_path, name)} == noted
    assert {name: sum(1 for _ in records(tmp_path / name)) for name in summary.files} == summary.files


def test_the_broken_rows_at_scale_1(shop):
    out, summary = shop
    found = {name: Counter(kind for _, kind in broken_rows(out, name)) for name in summary.files}
    assert {name: (count[LINE], count[VALUE]) for name, count in found.items() if count} == {
        "2026-01-02/orders.csv": (0, 2),
        "2026-01-02/order_items.csv": (0, 1),
        "2026-01-03/products.csv": (0, 1),
        "2026-01-03/customers.csv": (2, 2),
        "2026-01-04/orders.jsonl": (2, 1),
        "2026-01-04/order_items.csv.gz": (1, 1),
        "2026-01-05/orders.jsonl": (0, 1),
        "2026-01-05/order_items.csv": (0, 2),
        "2026-01-06/products.csv": (0, 2),
        "2026-01-06/orders.jsonl": (0, 1),
        "2026-01-06/stocks.parquet": (0, 1),
        "2026-01-07/customers.csv": (2, 0),
        "2026-01-07/order_items.csv": (0, 1),
    }
    noted = {(quirk.file, quirk.line, quirk.broken) for quirk in summary.quirks if quirk.broken}
    assert noted == {(name, *bad) for name in found for bad in broken_rows(out, name)}


def test_missing_values_and_values_that_only_look_missing():
    customers = {row["customer_id"]: row for _, row in records(LANDING / "2026-01-01/customers.csv")}
    assert customers["17"]["last_name"] == "Null" and customers["27"]["last_name"] == "O'Brien"
    assert all("\n" in customers[number]["street"] for number in ("33", "148"))
    missing = Counter((name, value) for row in customers.values() for name, value in row.items())
    assert missing["phone", "NULL"] > 100 and missing["email", ""] > 10 and missing["street", ""] > 5
    assert "NULL" in {row["manager_id"] for _, row in records(LANDING / "2026-01-01/staffs.csv")}
    assert "NULL" in {row["shipped_date"] for _, row in records(LANDING / "2026-01-01/orders.csv")}
    everything = " ".join(value for row in customers.values() for value in row.values())
    assert all(word in everything for word in ("São Lucas", "Müller", ", Apt", '"Rear"'))
    assert any(row["zip_code"].startswith("0") for row in customers.values())


def test_the_files_come_as_they_do_in_real_life():
    windows = (LANDING / "2026-01-03/products.csv").read_bytes()
    assert windows.startswith(b"\xef\xbb\xbf") and windows.count(b"\r\n") == windows.count(b"\n") > 2
    assert (LANDING / "2026-01-05/customers.csv").read_bytes().count(b"\n") == 1
    assert not list((LANDING / "2026-01-06").glob("customers*"))
    assert gzip.decompress((LANDING / "2026-01-04/order_items.csv.gz").read_bytes()).startswith(b"order_id,")
    kinds = {batch.name: [path.suffix for path in batch.glob("orders*")] for batch in LANDING.iterdir()}
    assert kinds == {f"2026-01-0{day}": [".csv" if day < 4 else ".jsonl"] for day in range(1, 8)}
    for day in range(2, 8):
        table = pq.read_table(LANDING / f"2026-01-0{day}" / "stocks.parquet")
        assert table.column_names == list(TABLES["stocks"]["columns"]) and table.num_rows
    for day in range(4, 8):
        rows = good_rows(LANDING, f"2026-01-0{day}/orders.jsonl")
        assert {"channel" in row for row in rows} == {day >= 5}
    with pytest.raises(UnicodeDecodeError):
        (LANDING / "2026-01-07/customers.csv").read_text(encoding="utf-8")
    assert (LANDING / "2026-01-07/customers.csv").read_bytes().splitlines()[-1].count(b'"') == 1


def test_updated_at_comes_with_the_daily_batches():
    for path in LANDING.rglob("*.*"):
        name = path.relative_to(LANDING).as_posix()
        ordered = "order_by" in TABLES[table_of(name)] and not name.startswith("2026-01-01")
        assert all(("updated_at" in row) == ordered for row in good_rows(LANDING, name)), name


def versions(table: str, **key: object) -> list[tuple[str, dict]]:
    """(batch, row) of each good row with this key, in the order in which they arrive."""
    found = []
    for name in files_of(LANDING):
        if table_of(name) == table:
            rows = good_rows(LANDING, name)
            found += [(name[:10], row) for row in rows if all(str(row[k]) == str(v) for k, v in key.items())]
    return found


def test_what_happens_to_rows_in_the_daily_batches():
    # renamed, new prices, moved
    assert [row["category_name"] for _, row in versions("categories", category_id=3)] == [
        "Cruisers Bicycles",
        "Cruisers",
    ]
    assert len({row["list_price"] for _, row in versions("products", product_id=8)}) == 3
    assert [batch for batch, _ in versions("products", product_id=301)] == ["2026-01-06"]
    # the same row twice, in one file and in two batches
    assert Counter(map(str, versions("orders", order_id=1601)))[str(versions("orders", order_id=1601)[0])] == 2
    lines = versions("order_items", order_id=1611, item_id=1)
    assert [batch for batch, _ in lines] == ["2026-01-04", "2026-01-05"] and lines[0][1] == lines[1][1]
    # two versions of one row in a batch, the newer one first
    _, (first, newer), (second, older) = versions("customers", customer_id=21)
    assert first == second == "2026-01-03" and newer["updated_at"] > older["updated_at"]
    assert newer["street"] != older["street"]
    # the older version after the newer
    for table, key, batches in (("customers", 24, ("04", "07")), ("orders", 1600, ("02", "06"))):
        _, (first, newer), (second, older) = versions(table, **{TABLES[table]["key"][0]: key})
        assert (first[-2:], second[-2:]) == batches and newer["updated_at"] > older["updated_at"]
    # late: an order with its lines, and an order after its lines
    assert versions("orders", order_id=1610)[0][0] == "2026-01-05"
    assert versions("orders", order_id=1610)[0][1]["order_date"] == "2026-01-03"
    assert {batch for batch, _ in versions("order_items", order_id=1610)} == {"2026-01-05"}
    assert {batch for batch, _ in versions("orders", order_id=1625)} == {"2026-01-07"}
    assert {batch for batch, _ in versions("order_items", order_id=1625)} == {"2026-01-06"}
    # unknown members
    assert versions("order_items", order_id=999_999_999) and versions("order_items", product_id=999_999_999)
    assert not versions("orders", order_id=999_999_999)
    assert {row["customer_id"] for _, row in versions("orders", order_id=1621)} == {None}
    assert {row["customer_id"] for _, row in versions("orders", order_id=1622)} == {999_999_999}


def test_every_kind_of_quirk_is_there_at_any_scale(shop, tmp_path):
    _, summary = shop
    kinds = Counter(quirk.kind for quirk in summary.quirks)
    for scale in (0.001, 20):
        other = Counter(quirk.kind for quirk in generate(tmp_path / str(scale), scale).quirks)
        assert set(other) == set(kinds)
    assert other["text in a number"] == 2 * kinds["text in a number"] - 1  # more, but not 20 times as many


def test_charts_of_it_look_like_life():
    """Growth, season, weekends, stores of different size, and customers who come again."""
    orders = [row for _, row in records(LANDING / "2026-01-01/orders.csv")]
    days = [date.fromisoformat(row["order_date"]) for row in orders]
    years, months = Counter(day.year for day in days), Counter(day.month for day in days)
    assert years[2025] > 1.2 * years[2024]
    assert min(months[m] for m in (5, 6)) > 1.5 * max(months[m] for m in (1, 2))
    weekdays = Counter(day.weekday() for day in days)
    assert weekdays.most_common(1)[0][0] == 5
    stores = Counter(row["store_id"] for row in orders)
    assert stores["2"] > stores["1"] > stores["3"] > 100
    customers = Counter(row["customer_id"] for row in orders).most_common()
    assert customers[0][1] > 10 and len(customers) < 1100


# --- where it may write ---


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LakehouseError, match=r"not empty: it holds thesis\.txt.*--out"):
        generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(LakehouseError, match="--out"):
        generate(tmp_path / "thesis.txt")


def test_what_it_wrote_before_is_not_overwritten_either(shop):
    out, _ = shop
    with pytest.raises(LakehouseError, match="2026-01-01, 2026-01-02, 2026-01-03 and 4 more"):
        generate(out, 2)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_no_size_is_refused(scale, tmp_path):
    with pytest.raises(LakehouseError, match="not a number above 0"):
        generate(tmp_path / "out", scale)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_data, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(LakehouseError, match="needs about 400.0 MB.*5.0 MB are free.*smaller --scale"):
        generate(tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OSError(ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_midway_leaves_nothing_behind(error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(sample_data.pq, "write_table", fail)
    with pytest.raises((LakehouseError, KeyboardInterrupt)) as caught:
        generate(tmp_path / "a" / "out")
    if isinstance(error, OSError):
        assert "No space left on device. Free some space, choose a smaller --scale" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- the command line ---


def test_the_command_says_in_one_line_what_it_wrote(tmp_path):
    run = CliRunner().invoke(main, ["--scale", "0.1", "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    (line,) = run.stdout.splitlines()
    assert line.startswith("Wrote ") and line.endswith(f" to {tmp_path / 'out'}.") and " in 35 files, " in line
    assert run.stderr.splitlines() == [f"writing 2026-01-0{day}" for day in range(1, 8)]


def test_the_command_names_an_error_without_a_traceback(tmp_path):
    (tmp_path / "mine").touch()
    run = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert run.exit_code == 1 and run.stderr.startswith("Error: ") and "mine" in run.stderr
    assert CliRunner().invoke(main, []).exit_code == 2
