"""Raw files to bronze on a real S3 server: every row once, whatever a supplier sends, and where it came from."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import CommitFailedError
from support import lakes

from lakehouse_utils import settings
from lakehouse_utils.lake import Lake, delta_log
from lakehouse_utils.pipeline import bronze, commits
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.landing import Landing
from lakehouse_utils.pipeline.parsing import formats
from lakehouse_utils.pipeline.run import Selection, run
from lakehouse_utils.pipeline.sources import Source

THINGS = Source(name="things", key=["id"], columns={"id": {"type": "integer"}, "name": {"type": "text"}})
AWKWARD = "2026-01-02 é'\"%20#&+?,=[x] {y}"


def context(lake: Lake, advance: Callable[[int], None] = lambda size: None) -> RunContext:
    progress = lakes.RecordingProgress()
    progress.on_advance = advance
    return RunContext(lake, LocalEngine(lake), progress)


class Supplier:
    """Delivers files to a folder, or to S3, and has them loaded."""

    def __init__(self, lake: Lake, folder: Path, on_s3: bool) -> None:
        self.lake, self.folder, self.on_s3 = lake, folder, on_s3
        self.address = f"{lake.root}/landing at s3" if on_s3 else str(folder)

    def key(self, path: str) -> dict[str, str]:
        return {"Bucket": self.lake.bucket, "Key": self.lake.key("landing at s3", path)}

    def deliver(self, path: str, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        if self.on_s3:
            self.lake.s3.put_object(**self.key(path), Body=data)
        else:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)

    def remove(self, path: str) -> None:
        if self.on_s3:
            self.lake.s3.delete_object(**self.key(path))
        else:
            (self.folder / path).unlink()

    def load(self, advance: Callable[[int], None] = lambda size: None) -> tuple[TableCounts, list[str]]:
        place = Landing(self.address, self.lake)
        files = [file for file in place.files()[0] if file.table == "things"]
        counts, refused = bronze.refresh(context(self.lake, advance), place, THINGS, files)
        assert counts.read == counts.added + counts.quarantined
        return counts, refused

    def table(self, layer: str = "bronze") -> list[dict]:
        table = self.lake.delta(layer, "things")
        rows = table.to_pyarrow_table().to_pylist() if table else []
        return sorted(rows, key=lambda row: (row["_source_file"], row["_ingested_at"], row["_source_line"] or 0))

    def loaded(self) -> list[tuple]:
        return [(row["_source_file"], row["_source_line"], row["id"]) for row in self.table()]

    def quarantined(self) -> list[tuple]:
        return [
            (row["_source_file"], row["_source_line"], row["raw"], row["reason"]) for row in self.table("quarantine")
        ]


@pytest.fixture
def folder(lake: Lake, tmp_path: Path) -> Supplier:
    return Supplier(lake, tmp_path, on_s3=False)


@pytest.fixture
def s3(lake: Lake, tmp_path: Path) -> Supplier:
    return Supplier(lake, tmp_path, on_s3=True)


@pytest.fixture(params=["folder", "s3"])
def supplier(request: pytest.FixtureRequest) -> Supplier:
    return request.getfixturevalue(request.param)


def parquet(**columns) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


# -- what comes out


def test_good_rows_get_through_and_bad_ones_are_kept_with_where_and_why(supplier):
    supplier.deliver(
        "2026-01-01/things.csv", b'\xef\xbb\xbf"id",name\r\n1,"a\r\nb"\r\n2\r\n3,M\xfcller\r\n4,"x\r\n5,y\r\n'
    )
    supplier.deliver(f"{AWKWARD}/things.csv.gz", gzip.compress(b"id,name\n1,a\n") + gzip.compress(b"NULL,b\n"))
    supplier.deliver(f"{AWKWARD}/things.jsonl", '{"id":NaN,"name":null}\n{"id":7,"name":"cut o\n{"id":1e999}')
    supplier.deliver(f"{AWKWARD}/things.parquet", parquet(id=[8, 9], name=["é", None]))
    supplier.deliver("2026-01-03/things.csv", "")
    supplier.deliver("2026-01-04/things.csv", "id,name\n")
    supplier.deliver("things.ndjson", '{"id":"2026-02-30"}')
    counts, refused = supplier.load()
    assert refused == []
    assert (counts.read, counts.added, counts.quarantined) == (13, 9, 4)
    assert [(r["_batch"], r["_source_file"], r["_source_line"], r["id"], r["name"]) for r in supplier.table()] == [
        ("2026-01-01", "2026-01-01/things.csv", 2, "1", "a\r\nb"),
        ("2026-01-01", "2026-01-01/things.csv", 7, "5", "y"),
        (AWKWARD, f"{AWKWARD}/things.csv.gz", 2, "1", "a"),
        (AWKWARD, f"{AWKWARD}/things.csv.gz", 3, "NULL", "b"),
        (AWKWARD, f"{AWKWARD}/things.jsonl", 1, "NaN", None),
        (AWKWARD, f"{AWKWARD}/things.jsonl", 3, "1e999", None),
        (AWKWARD, f"{AWKWARD}/things.parquet", 1, "8", "é"),
        (AWKWARD, f"{AWKWARD}/things.parquet", 2, "9", None),
        (".", "things.ndjson", 1, "2026-02-30", None),
    ]
    assert supplier.quarantined() == [
        ("2026-01-01/things.csv", 4, "2", "1 fields where the header has 2"),
        ("2026-01-01/things.csv", 5, "3,M\\xfcller", "not UTF-8: byte 0xfc at position 4"),
        ("2026-01-01/things.csv", 6, '4,"x', "a quote is opened and never closed"),
        (
            f"{AWKWARD}/things.jsonl",
            2,
            '{"id":7,"name":"cut o',
            "not JSON: Unterminated string starting at position 16",
        ),
    ]
    with supplier.lake.duckdb() as db:
        found = db.sql(f"SELECT count(*) FROM delta_scan('{supplier.lake.uri('bronze', 'things')}')").fetchone()
    assert found == (9,)


def test_a_file_is_one_commit_and_loaded_once(supplier):
    for day in (1, 2, 3):
        supplier.deliver(f"2026-01-0{day}/things.csv", f"id\n{day}\n")
    supplier.deliver("2026-01-01/things.jsonl", '{"id":4}')
    supplier.load()
    table = supplier.lake.delta("bronze", "things")
    files = ["2026-01-01/things.csv", "2026-01-01/things.jsonl", "2026-01-02/things.csv", "2026-01-03/things.csv"]
    assert table.version() == len(files)
    for version, path in enumerate(files, start=1):
        before = delta_log.progress(supplier.lake.delta("bronze", "things"), f"landing:{path}")
        table.load_as_version(version - 1)
        assert table.transaction_version(f"landing:{path}") is None
        table.load_as_version(version)
        assert table.transaction_version(f"landing:{path}") == before is not None
    again, _ = supplier.load()
    assert again == TableCounts(version=len(files))
    assert len(supplier.table()) == 4


def test_another_delivery_under_the_same_name_is_loaded_too(supplier):
    supplier.deliver("b/things.csv", "id\n1\n")
    supplier.load()
    supplier.deliver("b/things.csv", "id\n1\n")  # the same again
    assert supplier.load()[0].read == 0
    supplier.deliver("b/things.csv", "id\n2\n")
    assert supplier.load()[0].read == 1
    first, second = supplier.table()
    assert (first["id"], second["id"]) == ("1", "2")
    assert first["_ingested_at"] < second["_ingested_at"]


def test_a_big_file_that_differs_in_one_byte_is_another_delivery(supplier):
    data = bytearray(b"id\n" + b"1234567\n" * 400_000)
    supplier.deliver("b/things.csv", bytes(data))
    supplier.load()
    assert supplier.load()[0].read == 0
    data[1_000_003] = ord("8")
    supplier.deliver("b/things.csv", bytes(data))
    assert supplier.load()[0].read == 400_000


def test_after_a_crash_between_the_commits_nothing_is_lost_or_doubled(supplier, monkeypatch):
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n3,c\n")
    with monkeypatch.context() as patched:
        patched.setattr(bronze, "_commit", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            supplier.load()
    assert (supplier.loaded(), len(supplier.quarantined())) == ([], 1)
    supplier.load()
    assert supplier.loaded() == [("b/things.csv", 2, "1"), ("b/things.csv", 4, "3")]
    assert len(supplier.quarantined()) == 1


def test_what_was_loaded_before_another_writer_was_quicker_is_in_the_report(folder, monkeypatch):
    folder.deliver("1/things.csv", "id,name\n1,a\n2\n")
    folder.deliver("2/things.csv", "id,name\n3,c\n")
    commit, failures = bronze._commit, [CommitFailedError("another writer was quicker")]

    def second_fails(lake, table, source, file, *args):
        if file.batch == "2" and failures:
            raise failures.pop()
        return commit(lake, table, source, file, *args)

    monkeypatch.setattr(bronze, "_commit", second_fails)
    context = RunContext(folder.lake, LocalEngine(folder.lake), lakes.RecordingProgress())
    report = run(context, folder.address, {"things": THINGS}, Selection(("bronze",)))
    assert not failures
    assert report.rows["bronze.things"] == TableCounts(read=3, added=2, quarantined=1, version=2)
    assert [row[2] for row in folder.loaded()] == ["1", "3"]


def test_columns_that_come_and_go(folder, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 16)
    folder.deliver("1/things.csv", "id,Straße,a.b\n1,x,y\n2,z,w\n")
    folder.deliver("2/things.jsonl", '{"ID":3,"strasse":"s"}\n{"id":4}\n{"id":5,"_id":"m","":0}\n')
    folder.deliver("3/things.parquet", parquet(**{"id": [6], "name": [None], "STRASSE": ["t"], "x`\"'y": [[1]]}))
    folder.load()
    own = ("_batch", "_source_file", "_source_line", "_ingested_at")
    assert [{k: v for k, v in row.items() if v is not None and k not in own} for row in folder.table()] == [
        {"id": "1", "straße": "x", "a.b": "y"},
        {"id": "2", "straße": "z", "a.b": "w"},
        {"id": "3", "strasse": "s"},
        {"id": "4"},
        {"id": "5", "column_id": "m", "column_0": "0"},
        {"id": "6", "strasse": "t", "x`\"'y": "[1]"},
    ]


def test_ten_thousand_columns_reach_bronze(folder):
    names = ["id", *(f"c{i}" for i in range(9_999))]
    folder.deliver("1/things.csv", ",".join(names) + "\n" + ",".join(map(str, range(10_000))) + "\n1\n")
    counts, refused = folder.load()
    assert (counts.added, counts.quarantined, refused) == (1, 1, [])
    table = folder.lake.delta("bronze", "things").to_pyarrow_table(columns=["c9998", "_source_line"])
    assert table.to_pylist() == [{"c9998": "9999", "_source_line": 2}]


# -- files that can't be read


def unreadable() -> dict[str, tuple[bytes, str]]:
    whole = parquet(id=list(range(1000)))
    packed = gzip.compress(b"id\n" + b"1\n" * 1000)
    return {
        "cut/things.csv.gz": (packed[:-9], "gzip data is cut off"),
        "damaged/things.csv.gz": (packed[:-6] + b"\0" + packed[-5:], "gzip data is cut off or damaged"),
        "plain/things.csv.gz": (b"id\n1\n", "gzip data is cut off or damaged"),
        "cut/things.parquet": (whole[: len(whole) // 2], "not a whole Parquet file"),
        "csv/things.parquet": (b"id\n1\n", "not a whole Parquet file"),
        "parquet/things.csv": (whole, "it is a Parquet file"),
        "utf-16/things.csv": ("id\n1\n".encode("utf-16"), "it is UTF-16"),
        "utf-16/things.jsonl": ('{"id":1}\n'.encode("utf-16"), "it is UTF-16"),
        "headerless/things.csv": (b"1,a\n", "is the header missing"),
    }


def test_a_file_that_cannot_be_read_is_named_once_and_stops_nothing(supplier):
    files = unreadable()
    for path, (data, _) in files.items():
        supplier.deliver(path, data)
    supplier.deliver("zzz/things.csv", "id\n1\n")
    for _ in range(2):  # each run names it, for it still isn't loaded
        _, refused = supplier.load()
        assert len(refused) == len(files)
        for sentence in refused:
            path, reason = sentence.split(": ", 1)
            assert files[path][1] in reason
    assert supplier.loaded() == [("zzz/things.csv", 2, "1")]
    assert Counter(path for path, *_ in supplier.quarantined()) == Counter(files.keys())
    assert {(line, raw) for _, line, raw, _ in supplier.quarantined()} == {(None, "")}
    supplier.deliver("cut/things.parquet", parquet(id=[1]))
    assert len(supplier.load()[1]) == len(files) - 1
    assert ("cut/things.parquet", 1, "1") in supplier.loaded()


def test_too_many_columns(folder, monkeypatch):
    monkeypatch.setattr(formats, "MOST_COLUMNS", 50)
    monkeypatch.setattr(formats, "MOST_OBJECTS", 30)
    parts = []
    put = commits.put_parquet
    monkeypatch.setattr(commits, "put_parquet", lambda *args: parts.append(args) or put(*args))
    folder.deliver("1/things.jsonl", "".join(f'{{"id":{i},"k{i}":1}}\n' for i in range(600)))
    folder.deliver("2/things.jsonl", '{"id":1}')
    assert folder.load()[1] == ["1/things.jsonl: it has more than 50 different columns: are its keys data?"]
    assert len(parts) < 20  # and not all of them, first
    assert folder.loaded() == [("2/things.jsonl", 1, "1")]


def test_links_devices_and_files_that_may_not_be_read(folder, tmp_path):
    folder.deliver("ok/things.csv", "id\n1\n")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "things.csv").symlink_to(tmp_path / "nowhere")
    expected = {"gone/things.csv": "vanished before it was read, or is a link to nothing"}
    if Path("/proc/self/mem").exists():
        (tmp_path / "io").mkdir()
        (tmp_path / "io" / "things.csv").symlink_to("/proc/self/mem")
        expected["io/things.csv"] = "reading failed"
    if os.geteuid():
        folder.deliver("secret/things.csv", "id\n1\n")
        (tmp_path / "secret" / "things.csv").chmod(0)
        expected["secret/things.csv"] = "no permission"
    _, refused = folder.load()
    assert {sentence.split(": ")[0] for sentence in refused} == expected.keys()
    for sentence in refused:
        assert expected[sentence.split(": ")[0]] in sentence
    assert folder.loaded() == [("ok/things.csv", 2, "1")]


# -- files that change while they are read


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(700_000)
        file.write(b"9")


CHANGES = {
    "removed": Path.unlink,
    "truncated": lambda path: os.truncate(path, 1_500_000),
    "grown": lambda path: path.open("a").write("1234567\n"),
    "overwritten": overwrite,
    "replaced": lambda path: shutil.copy(path, path.with_suffix(".new")) and os.replace(path.with_suffix(".new"), path),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_left_to_the_next_run(how, folder, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 1 << 18)
    folder.deliver("1/things.csv", "id\n" + "1234567\n" * 300_000)
    folder.deliver("2/things.csv", "id\n1\n")
    path = folder.folder / "1" / "things.csv"
    waiting = [True]

    def change(_size: int) -> None:
        if waiting.pop() if waiting else False:
            CHANGES[how](path)

    counts, refused = folder.load(change)
    assert (counts.added, len(refused)) == (1, 1)
    assert refused[0].startswith("1/things.csv: the file " + ("vanished" if how == "removed" else "changed"))
    assert folder.loaded() == [("2/things.csv", 2, "1")]
    counts, refused = folder.load()
    assert refused == []
    assert counts.read == {"removed": 0, "truncated": 187_500, "grown": 300_001}.get(how, 300_000)


@pytest.mark.parametrize("how", ["vanishes", "changes"])
def test_an_object_that_is_another_since_it_was_listed(how, s3):
    s3.deliver("1/things.csv", "id\n1\n")
    s3.deliver("2/things.csv", "id\n2\n")
    place = Landing(s3.address, s3.lake)
    files, _ = place.files()
    s3.remove("1/things.csv")
    if how == "changes":
        s3.deliver("1/things.csv", "id\n3\n")
    counts, refused = bronze.refresh(context(s3.lake), place, THINGS, files)
    assert (counts.added, len(refused)) == (1, 1)
    assert ("vanished" if how == "vanishes" else "changed") in refused[0]
    assert s3.load()[0].read == (how == "changes")


# -- which files there are


def test_what_is_no_raw_file_is_left_alone_and_said(folder, tmp_path):
    for path in ["things.csv", "1/Things.CSV.GZ", "1/things.ndjson", "_SUCCESS", ".hidden/things.csv", "1/.things.csv"]:
        folder.deliver(path, "id\n1\n")
    for path in ["1/notes.txt", "1/things", "1/things.parquet.gz", "1/things.2.csv", "1/deep/er/things.csv"]:
        folder.deliver(path, "")
    (tmp_path / "1" / "things.csv").mkdir()
    os.mkfifo(tmp_path / "1" / "things.jsonl")
    (tmp_path / "2").symlink_to(tmp_path / "1")
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "loop").symlink_to(tmp_path / "3")
    os.mkdir(os.fsencode(tmp_path) + b"/4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/4/M\xfc.csv")).write_text("id\n1\n")
    files, ignored = Landing(str(tmp_path), folder.lake).files()
    assert [(file.batch, file.table, file.path, file.format, file.gzipped) for file in files] == [
        (".", "things", "things.csv", "csv", False),
        ("1", "Things", "1/Things.CSV.GZ", "csv", True),
        ("1", "things", "1/things.ndjson", "jsonl", False),
        ("2", "Things", "2/Things.CSV.GZ", "csv", True),
        ("2", "things", "2/things.ndjson", "jsonl", False),
    ]
    said = {sentence.split(": ")[0] for sentence in ignored}
    left = ["notes.txt", "things", "things.parquet.gz", "things.2.csv", "deep/", "things.csv/", "things.jsonl"]
    assert said == {f"{batch}/{name}" for batch in (1, 2) for name in left} | {"3/loop/", "4/M\\udcfc.csv"}


def test_what_is_no_raw_object_is_left_alone_and_said(s3):
    for path in ["things.csv", "1/things.csv", "1/deep/things.csv", "1/deep/er/things.csv", "1/x.txt"]:
        s3.deliver(path, "id\n1\n")
    s3.deliver("1/empty/", "")
    files, ignored = Landing(s3.address, s3.lake).files()
    assert [file.path for file in files] == ["things.csv", "1/things.csv"]
    assert [sentence.split(": ")[0] for sentence in ignored] == ["1/deep/", "1/x.txt"]


# -- memory and time

MEASURED = """
    import sys
    from pathlib import Path
    from lakehouse_utils import settings
    from lakehouse_utils.lake import Lake
    from lakehouse_utils.pipeline import bronze, formats, landing
    from lakehouse_utils.pipeline.engines.local import LocalEngine
    from lakehouse_utils.pipeline.sources import Source

    state_dir, uri, folder, block = sys.argv[1:]
    formats.BLOCK = int(block)
    lake = Lake.open(uri, settings.Settings(state_dir=Path(state_dir)))
    things = Source(name="things", key=["id"], columns={"id": {"type": "integer"}, "name": {"type": "text"}})
    place = landing.Landing(folder, lake)
    counts, refused = bronze.refresh(context(lake), place, things, place.files()[0])
    assert not refused, refused
    # Not ru_maxrss, which begins with what the parent held.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(counts.added, counts.quarantined, int(peak.split()[1]) // 1024)
"""


def measured(supplier: Supplier, state_dir: Path, block: int = formats.BLOCK) -> tuple[int, int, int]:
    """Rows added, rows quarantined, and the peak memory in MiB of a process that loads what was delivered."""
    code = [sys.executable, "-c", textwrap.dedent(MEASURED)]
    arguments = [state_dir, supplier.lake.root, supplier.folder, block]
    done = subprocess.run([*code, *map(str, arguments)], capture_output=True, text=True, cwd=settings.CHECKOUT)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
@pytest.mark.parametrize("kind", ["broken csv", "jsonl"])
def test_a_line_of_100_mb(kind, folder, s3_state_dir):
    long = b"x" * 100_000_000
    if kind == "jsonl":
        folder.deliver("1/things.jsonl", b'{"id":1}\n{"id":2,"name":"' + long + b'"}\n{"id":3}\n')
    else:
        folder.deliver("1/things.csv", b"id,name\n1,a\n2," + long + b",\n3,c\n")
    added, quarantined, peak = measured(folder, s3_state_dir)
    assert (added, quarantined) == ((2, 1) if kind == "broken csv" else (3, 0))
    assert peak < 1000
    if quarantined:
        ((_, line, raw, reason),) = folder.quarantined()
        assert (line, raw) == (3, "2," + "x" * (formats.LONGEST_RAW - 2))
        assert (
            reason == "3 fields where the header has 2; the line has 100,000,004 bytes, raw holds the first 16,777,216"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_peak_memory_does_not_grow_with_the_file(folder, s3_state_dir):
    peaks = []
    for size, batch in ((20_000_000, 1), (80_000_000, 2)):
        folder.deliver(f"{batch}/things.csv.gz", gzip.compress(b"id,name\n" + b"1234567,abcdefgh\n" * (size // 17), 1))
        added, _, peak = measured(folder, s3_state_dir, block=4 << 20)
        assert added == size // 17
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 60


def test_many_small_files(folder):
    names = [f"{number:05}/things.csv" for number in range(110)]  # delta-rs makes a checkpoint of each hundred commits
    for number, name in enumerate(names):
        folder.deliver(name, f"id\n{number}\n")
    folder.load()
    assert [row[2] for row in folder.loaded()] == [str(number) for number in range(110)]
    table = folder.lake.delta("bronze", "things")
    known = delta_log.progress_by_app_id(folder.lake.table("bronze", "things"), table)
    for name in names[::9]:
        assert known(f"landing:{name}") == delta_log.progress(table, f"landing:{name}") is not None
    assert known("landing:other") is None
    started = time.monotonic()
    assert folder.load()[0].read == 0
    assert time.monotonic() - started < 5
    in_parts(folder.lake)
    before, table = known(f"landing:{names[3]}"), folder.lake.delta("bronze", "things")
    assert delta_log.progress_by_app_id(folder.lake.table("bronze", "things"), table)(f"landing:{names[3]}") == before


def in_parts(lake: Lake) -> None:
    """Name the checkpoint of `bronze/things` as other engines name theirs."""
    log = lake.key("bronze", "things", "_delta_log", "")
    listed = lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=log)["Contents"]
    (whole,) = [entry["Key"] for entry in listed if entry["Key"].endswith(".checkpoint.parquet")]
    part = whole.replace(".parquet", ".0000000001.0000000001.parquet")
    lake.s3.copy_object(Bucket=lake.bucket, Key=part, CopySource={"Bucket": lake.bucket, "Key": whole})
    lake.s3.delete_object(Bucket=lake.bucket, Key=whole)
    hint = {"version": int(whole.rsplit("/", 1)[1].split(".")[0]), "size": 101, "parts": 1}
    lake.s3.put_object(Bucket=lake.bucket, Key=f"{log}_last_checkpoint", Body=json.dumps(hint))
