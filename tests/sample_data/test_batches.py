"""The generated raw files: the same bytes everywhere, every quirk in its place, nothing overwritten."""

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.sample_data import batches, generate, writer
from lakehouse_utils.sample_data.writer import BROKEN_LINE, BROKEN_VALUE

SHOP = sources.load()
LANDING = sources.SHOP.parent / "landing"


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


# -- a strict reader, written independently of the generator


def records(path: Path):
    """(line, row or None where the line cannot be split into fields) of every row of a raw file."""
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
        is_complete = len(fields) == len(header) and not any("\udc80" <= c <= "\udcff" for c in "".join(fields))
        yield line, dict(zip(header, fields, strict=True)) if is_complete else None


def broken_value(source: Source, row: dict) -> bool:
    """Whether a value of the row breaks what sources.toml says about its column."""
    for name, column in source.columns.items():
        value = row.get(name)
        if value in (None, "", "NULL"):
            if column.required or name in source.key:
                return True
            continue
        kind = column.type
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
        if (column.min is not None and typed < column.min) or (column.max is not None and typed > column.max):
            return True
        if column.allowed is not None and typed not in column.allowed:
            return True
    return False


def table_of(name: str) -> str:
    return Path(name).name.partition(".")[0]


def broken_rows(folder: Path, name: str) -> list[tuple[int, str]]:
    broken = []
    for line, row in records(folder / name):
        if row is None:
            broken.append((line, BROKEN_LINE))
        elif broken_value(SHOP[table_of(name)], row):
            broken.append((line, BROKEN_VALUE))
    return broken


def good_rows(folder: Path, name: str) -> list[dict]:
    bad = {line for line, _ in broken_rows(folder, name)}
    return [row for line, row in records(folder / name) if line not in bad]


# -- the same everywhere


def test_shipped_files_are_what_the_generator_writes(shop):
    """The files in data/landing are what the generator writes at scale 1."""
    out, _ = shop
    fix = "python -m lakehouse_utils.sample_data --out data/landing, after removing data/landing"
    assert files_of(LANDING) == files_of(out), fix
    for name in files_of(out):
        assert content(LANDING / name) == content(out / name), f"{name} differs; to fix it: {fix}"


def test_shipped_files_are_small():
    """The files in data/landing have less than 1.5 MB in total."""
    assert sum(path.stat().st_size for path in LANDING.rglob("*")) < 1_500_000


def test_generate_again_with_other_chunks(shop, tmp_path, monkeypatch):
    """Neither a second run nor another chunk size changes any file."""
    out, summary = shop
    monkeypatch.setattr(writer, "CHUNK_ROWS", 89)
    assert generate(tmp_path) == summary
    assert all(content(tmp_path / name) == content(out / name) for name in files_of(out))


def test_generate_memory_at_larger_scale(tmp_path):
    """The peak memory of a process hardly grows when it writes four times as many rows."""
    code = """
import sys
from pathlib import Path
from lakehouse_utils.sample_data import generate
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
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=settings.CHECKOUT)
        peaks.append(float(run.stdout))
    assert peaks[1] < peaks[0] + 25, f"{peaks} MB at scale 50 and 200"


# -- what is in the files


def test_full_load_columns(shop):
    """The full load has exactly the columns of the contract, and no broken row."""
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
    written = {path.name.removesuffix(".csv") for path in (out / "2026-01-01").iterdir()}
    assert written == contract.keys(), "the full load has other tables than `contract` in this test"
    for table, columns in contract.items():
        assert (out / "2026-01-01" / f"{table}.csv").read_bytes().startswith(columns.encode() + b"\n")
        assert broken_rows(out, f"2026-01-01/{table}.csv") == []


def test_full_load_is_consistent(shop):
    """Keys are unique, every reference points to a row, and nothing ships before it is ordered."""
    out, _ = shop
    rows = {table: good_rows(out, f"2026-01-01/{table}.csv") for table in SHOP}
    for name, source in SHOP.items():
        keys = [tuple(row[column] for column in source.key) for row in rows[name]]
        assert len(set(keys)) == len(keys), name
        for column, described in source.columns.items():
            if described.references:
                target, _, key = described.references.partition(".")
                values = {row[column] for row in rows[name]} - {"NULL", ""}
                assert values <= {row[key] for row in rows[target]}, f"{name}.{column}"
    for order in rows["orders"]:
        assert "2024-01-01" <= order["order_date"] <= "2025-12-31"
        assert order["shipped_date"] > order["order_date"]  # NULL is greater than digits
        assert (order["shipped_date"] == "NULL") == (order["order_status"] != "4")
    assert len(rows["customers"]) == 1500 and len(rows["orders"]) == 1600
    assert 4600 < len(rows["order_items"]) < 4800


@pytest.mark.parametrize("scale", [0.001, 20])
def test_quirks_are_the_broken_rows(scale, tmp_path):
    """The rows that are noted as broken are exactly the broken rows, at any scale."""
    summary = generate(tmp_path, scale)
    noted = {(quirk.file, quirk.line, quirk.broken) for quirk in summary.quirks if quirk.broken}
    assert len(noted) == sum(quirk.broken is not None for quirk in summary.quirks)
    daily = [name for name in summary.files if not name.startswith("2026-01-01")]
    assert {(name, *broken) for name in daily for broken in broken_rows(tmp_path, name)} == noted
    assert {name: sum(1 for _ in records(tmp_path / name)) for name in summary.files} == summary.files


def test_broken_rows_at_scale_1(shop):
    """At scale 1, each file has the expected number of broken lines and broken values."""
    out, summary = shop
    kinds = {name: Counter(kind for _, kind in broken_rows(out, name)) for name in summary.files}
    assert {name: (count[BROKEN_LINE], count[BROKEN_VALUE]) for name, count in kinds.items() if count} == {
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
    assert noted == {(name, *bad) for name in kinds for bad in broken_rows(out, name)}


def test_full_load_missing_values():
    """The full load has missing values of both kinds, and values that only look missing."""
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


def test_daily_batches_formats():
    """The daily batches have all formats, an empty file, a missing file and files from Windows."""
    windows = (LANDING / "2026-01-03/products.csv").read_bytes()
    assert windows.startswith(b"\xef\xbb\xbf") and windows.count(b"\r\n") == windows.count(b"\n") > 2
    assert (LANDING / "2026-01-05/customers.csv").read_bytes().count(b"\n") == 1
    assert not list((LANDING / "2026-01-06").glob("customers*"))
    assert gzip.decompress((LANDING / "2026-01-04/order_items.csv.gz").read_bytes()).startswith(b"order_id,")
    kinds = {batch.name: [path.suffix for path in batch.glob("orders*")] for batch in LANDING.iterdir()}
    assert kinds == {f"2026-01-0{day}": [".csv" if day < 4 else ".jsonl"] for day in range(1, 8)}
    for day in range(2, 8):
        table = pq.read_table(LANDING / f"2026-01-0{day}" / "stocks.parquet")
        assert table.column_names == list(SHOP["stocks"].columns) and table.num_rows
    for day in range(4, 8):
        rows = good_rows(LANDING, f"2026-01-0{day}/orders.jsonl")
        assert {"channel" in row for row in rows} == {day >= 5}
    with pytest.raises(UnicodeDecodeError):
        (LANDING / "2026-01-07/customers.csv").read_text(encoding="utf-8")
    assert (LANDING / "2026-01-07/customers.csv").read_bytes().splitlines()[-1].count(b'"') == 1


def test_daily_batches_have_updated_at():
    """Exactly the daily rows of tables with an ordering column have updated_at."""
    for path in LANDING.rglob("*.*"):
        name = path.relative_to(LANDING).as_posix()
        ordered = SHOP[table_of(name)].order_by is not None and not name.startswith("2026-01-01")
        assert all(("updated_at" in row) == ordered for row in good_rows(LANDING, name)), name


def versions(table: str, **key: object) -> list[tuple[str, dict]]:
    """(batch, row) of each good row with this key, in the order in which they arrive."""
    rows_by_batch = []
    for name in files_of(LANDING):
        if table_of(name) == table:
            rows = good_rows(LANDING, name)
            rows_by_batch += [(name[:10], row) for row in rows if all(str(row[k]) == str(v) for k, v in key.items())]
    return rows_by_batch


def test_daily_batches_versions_of_rows():
    """Rows change, repeat, arrive late and arrive in the wrong order as documented."""
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
    for table, key, expected_batches in (("customers", 24, ("04", "07")), ("orders", 1600, ("02", "06"))):
        _, (first, newer), (second, older) = versions(table, **{SHOP[table].key[0]: key})
        assert (first[-2:], second[-2:]) == expected_batches and newer["updated_at"] > older["updated_at"]
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


def test_quirks_at_any_scale(shop, tmp_path):
    """Every kind of quirk exists at any scale, but not in proportion to it."""
    _, summary = shop
    kinds = Counter(quirk.kind for quirk in summary.quirks)
    for scale in (0.001, 20):
        other = Counter(quirk.kind for quirk in generate(tmp_path / str(scale), scale).quirks)
        assert set(other) == set(kinds)
    assert other["text in a number"] == 2 * kinds["text in a number"] - 1  # more, but not 20 times as many


def test_full_load_is_plausible():
    """There are growth, season, weekends, stores of different size, and customers who come back."""
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


# -- where it may write


def test_generate_into_folder_with_files(tmp_path):
    """A folder that is not empty, or not a folder, is refused and not changed."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LakehouseError, match=r"not empty: it contains thesis\.txt.*--out"):
        generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(LakehouseError, match="--out"):
        generate(tmp_path / "thesis.txt")


def test_generate_into_folder_with_batches(shop):
    """Files from an earlier run are not overwritten."""
    out, _ = shop
    with pytest.raises(LakehouseError, match="2026-01-01, 2026-01-02, 2026-01-03 and 4 more"):
        generate(out, 2)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_generate_with_invalid_scale(scale, tmp_path):
    """A scale that is not a positive number is refused before anything is written."""
    with pytest.raises(LakehouseError, match=r"The scale .* is invalid: it must be a number above 0\."):
        generate(tmp_path / "out", scale)
    assert not (tmp_path / "out").exists()


def test_generate_on_full_disk(tmp_path, monkeypatch):
    """Too little free space is refused before anything is written."""
    monkeypatch.setattr(batches, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(LakehouseError, match=r"needs about 400\.0 MB.*5\.0 MB are free\. .*smaller --scale"):
        generate(tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OSError(ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_generate_fails_midway(error, tmp_path, monkeypatch):
    """After an error or an interruption, no file and no folder is left."""

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(writer.pq, "write_table", fail)
    with pytest.raises((LakehouseError, KeyboardInterrupt)) as caught:
        generate(tmp_path / "a" / "out")
    if isinstance(error, OSError):
        assert "No space left on device. Free some space, choose a smaller --scale" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
