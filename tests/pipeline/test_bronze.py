"""Raw files to bronze on a real S3 server: every row once, whatever a supplier sends, and where it came from."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from support import lakes
from support.suppliers import THINGS, Supplier, run_context

from lakehouse_utils import settings
from lakehouse_utils.errors import ServerUnreachableError
from lakehouse_utils.lake import Lake, delta_log
from lakehouse_utils.pipeline import bronze, commits, content_hints
from lakehouse_utils.pipeline import landing as landing_module
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.landing import Landing
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.run import Selection, run
from lakehouse_utils.pipeline.sources import Source

LONG_ROW = "1" * 79 + "\n"  # few rows make a large file
AWKWARD = "2026-01-02 é'\"%20#&+?,=[x] {y}"


def parquet(**columns) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


# -- what comes out


def test_bronze_rows_and_broken_lines(supplier):
    """Good rows get into bronze; broken lines get into quarantine with file, line and reason."""
    supplier.deliver(
        "2026-01-01/things.csv", b'\xef\xbb\xbf"id",name\r\n1,"a\r\nb"\r\n2\r\n3,M\xfcller\r\n4,"x\r\n5,y\r\n'
    )
    supplier.deliver(f"{AWKWARD}/things.csv.gz", gzip.compress(b"id,name\n1,a\n") + gzip.compress(b"NULL,b\n"))
    supplier.deliver(f"{AWKWARD}/things.jsonl", '{"id":"NaN","name":null}\n{"id":7,"name":"cut o\n{"id":1e999}')
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
        ("2026-01-01/things.csv", 4, "2", "expected 2 fields, found 1"),
        ("2026-01-01/things.csv", 5, "3,M\\xfcller", "invalid UTF-8: byte 0xfc at position 4"),
        ("2026-01-01/things.csv", 6, '4,"x', "a quoted field is never closed"),
        (
            f"{AWKWARD}/things.jsonl",
            2,
            '{"id":7,"name":"cut o',
            "invalid JSON: Unterminated string starting at position 16",
        ),
    ]
    with supplier.lake.duckdb() as db:
        count = db.sql(f"SELECT count(*) FROM delta_scan('{supplier.lake.uri('bronze', 'things')}')").fetchone()
    assert count == (9,)


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_bronze_many_broken_lines(block, folder, monkeypatch):
    """Of a file with very many broken lines the first are kept, and a last row says how many more there are."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", block)
    monkeypatch.setattr(limits, "HEAD_BYTES", 16)
    monkeypatch.setattr(limits, "MAX_BROKEN_RECORDS", 10)
    folder.deliver("1/things.csv", "id,name\n" + "1,a\nx\n" * 50)
    folder.deliver("2/things.csv", "id,name\n" + "1,a\nx\n" * 10)
    folder.deliver("3/things.csv", "id,name\n" + "1,a\nx\n" * 11)
    folder.deliver("4/things.jsonl", "x\n" * 500)
    counts, _ = folder.load()
    assert (counts.read, counts.added, counts.quarantined) == (642, 71, 571)
    by_file = Counter(row[0] for row in folder.quarantined())
    assert by_file == {"1/things.csv": 11, "2/things.csv": 10, "3/things.csv": 11, "4/things.jsonl": 11}
    rows = folder.quarantined()
    assert [row[1] for row in rows[:11]] == list(range(3, 25, 2))
    assert rows[10] == (
        "1/things.csv",
        23,
        "x",
        (
            "40 more lines of the file are broken, this one included; only the first 10 are listed. This one: expected"
            " 2 fields, found 1"
        ),
    )
    assert rows[-1][1:3] == (11, "x") and rows[-1][3].startswith("490 more lines of the file are broken")


def test_bronze_missing_columns(folder):
    """A file that lacks a described column is noted, with the column that it may have instead; empty files are not."""
    columns = {
        "id": {"type": "integer"},
        "phone": {"type": "text"},
        "updated_at": {"type": "text", "optional": True},
        "größe": {"type": "text", "optional": True},
    }
    source = Source(name="things", key=["id"], columns=columns)
    folder.deliver("1/things.csv", "id,Phone,updated at\n1,a,b\n")
    folder.deliver("2/things.csv", "id,Phone No.\n1,a\n")
    folder.deliver("3/things.jsonl", '{"id":1,"fax":2}\n{"id":2,"fax":3}\n')
    folder.deliver("4/things.jsonl", '{"id":1}\n{"id":2,"phone":null}\n')
    folder.deliver("5/things.parquet", parquet(id=[1], phone=["a"], grösse=["b"], updated_by=["c"], gr0sse=["d"]))
    folder.deliver("6/things.csv", "id\n")
    folder.deliver("7/things.csv", "id,phone,grosse\n1,2,3\n")
    progress = lakes.RecordingProgress()
    context = RunContext(folder.lake, LocalEngine(folder.lake), progress)
    report = run(context, folder.address, {"things": source}, Selection(("bronze",)))
    assert report.missing_columns == [
        (
            "2/things.csv has no column phone, so its rows have no value there: phone may be 'phone_no.', which is not"
            ' described. If so, add from = "phone_no." to the description of phone'
        ),
        (
            "3/things.jsonl has no column phone, so its rows have no value there. If that is expected, add"
            " optional = true to the description of phone"
        ),
        (
            "7/things.csv has no column größe, so its rows have no value there: größe may be 'grosse', which is not"
            ' described. If so, add from = "grosse" to the description of größe'
        ),
    ]
    assert progress.sentences == report.missing_columns == report.as_json()["missing_columns"]
    assert report.quarantined == 0
    again = run(context, folder.address, {"things": source}, Selection(("bronze",)))
    assert again.missing_columns == []


def test_bronze_of_the_shop_lacks_no_column(lake, small):
    """The shop's own files cause no note about missing columns."""
    progress = lakes.RecordingProgress()
    assert lakes.job(lake, small, progress=progress, layers=("bronze",)).missing_columns == []
    assert progress.sentences == []


def test_bronze_file_is_one_commit(supplier):
    """Each file is one commit that also records the file, and a second run loads nothing."""
    for day in (1, 2, 3):
        supplier.deliver(f"2026-01-0{day}/things.csv", f"id\n{day}\n")
    supplier.deliver("2026-01-01/things.jsonl", '{"id":4}')
    supplier.load()
    table = supplier.lake.delta("bronze", "things")
    files = ["2026-01-01/things.csv", "2026-01-01/things.jsonl", "2026-01-02/things.csv", "2026-01-03/things.csv"]
    assert table.version() == len(files)
    for version, path in enumerate(files, start=1):
        before = supplier.lake.delta("bronze", "things").transaction_version(f"landing:{path}")
        table.load_as_version(version - 1)
        assert table.transaction_version(f"landing:{path}") is None
        table.load_as_version(version)
        assert table.transaction_version(f"landing:{path}") == before is not None
    again, _ = supplier.load()
    assert again == TableCounts(version=len(files))
    assert len(supplier.table()) == 4


def test_bronze_file_delivered_again(supplier):
    """A file with the same content is not loaded again; one with other content is."""
    supplier.deliver("b/things.csv", "id\n1\n")
    supplier.load()
    supplier.deliver("b/things.csv", "id\n1\n")  # the same again
    assert supplier.load()[0].read == 0
    supplier.deliver("b/things.csv", "id\n2\n")
    assert supplier.load()[0].read == 1
    first, second = supplier.table()
    assert (first["id"], second["id"]) == ("1", "2")
    assert first["_ingested_at"] < second["_ingested_at"]


def test_bronze_file_touched_or_copied(supplier, tmp_path):
    """A large file with the same bytes is the same delivery, whenever and into whichever landing it was written."""
    data = "id\n" + LONG_ROW * 20_000 + "x,y\n"
    supplier.deliver("b/things.csv", data)
    supplier.load()
    supplier.deliver("b/things.csv", data)
    assert supplier.load()[0] == TableCounts(version=1)
    supplier.lake.s3.put_object(
        Bucket=supplier.lake.bucket, Key=supplier.lake.key("other landing/b/things.csv"), Body=data.encode()
    )
    in_a_folder = Supplier(supplier.lake, tmp_path / "copy", on_s3=False)
    in_a_folder.deliver("b/things.csv", data)
    on_s3 = Supplier(supplier.lake, tmp_path, on_s3=True)
    on_s3.address = f"{supplier.lake.root}/other landing"
    for other in (in_a_folder, on_s3):
        assert other.load()[0].read == 0
    assert len(supplier.table()) == 20_000


def test_bronze_object_uploaded_again_in_parts(s3):
    """An object with another ETag, as an upload in parts gives it, is the same delivery if its bytes are the same."""
    data = ("id\n" + LONG_ROW * 150_000).encode()  # 12 MB, which boto3 uploads in two parts
    s3.deliver("b/things.csv", data)
    s3.load()
    s3.lake.s3.upload_fileobj(io.BytesIO(data), *s3.key("b/things.csv").values())
    landing = Landing(s3.address, s3.lake)
    (file,) = landing.files().files
    assert "-" in file.etag
    assert s3.load()[0].read == 0
    version = s3.lake.delta("bronze", "things").version()
    assert s3.load()[0] == TableCounts(version=version)  # the new ETag is recorded now
    assert len(s3.table()) == 150_000


@pytest.mark.parametrize("size", [1, 40_000])
def test_bronze_table_of_the_first_version_is_not_doubled(supplier, size):
    """A file that the first version of this package loaded is recognized, and from then on by its content."""
    supplier.deliver("b/things.csv", "id\n" + LONG_ROW * size)
    landing = Landing(supplier.address, supplier.lake)
    (file,) = landing.files().files
    supplier.load()
    table = supplier.lake.delta("bronze", "things")
    earlier = {f"landing:{file.path}": landing.earlier_fingerprint(file), f"etag:{file.path}": 1}
    commits.record(table, CommitRecord(earlier))
    assert supplier.load()[0].read == 0
    if not supplier.on_s3:  # of an object, only the ETag is known
        supplier.deliver("b/things.csv", "id\n" + LONG_ROW * size)
        assert supplier.load()[0].read == 0
    assert len(supplier.table()) == size


def test_bronze_unchanged_files_are_not_read_again(folder, tmp_path, monkeypatch):
    """With hints of an earlier run, an unchanged file is not read; a file that was written again is."""
    folder.deliver("b/things.csv", "id\n1\n")
    path = folder.folder / "b" / "things.csv"
    monkeypatch.setattr(content_hints, "_SETTLED_AFTER_S", -1.0)
    read = []
    fingerprint = landing_module._fingerprint
    monkeypatch.setattr(landing_module, "_fingerprint", lambda stream: read.append(1) or fingerprint(stream))

    def load() -> int:
        read.clear()
        hints = content_hints.ContentHints(tmp_path / "state")
        landing = Landing(folder.address, folder.lake, hints)
        files = [file for file in landing.files().files if file.table == "things"]
        counts, _ = bronze.refresh(run_context(folder.lake), landing, THINGS, files)
        return counts.read

    assert load() == 1
    assert (load(), len(read)) == (0, 1)
    assert (load(), len(read)) == (0, 0)
    status = path.stat()
    path.write_text("id\n2\n", encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time of modification
    assert load() == 1
    (tmp_path / "state" / "landing-contents.json").write_text("damaged")
    assert (load(), len(read)) == (0, 1)


def test_bronze_quarantine_is_resolved_by_the_next_delivery(supplier):
    """Broken lines and refused files are marked as resolved when the file arrives with other content."""
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n3\n")
    supplier.deliver("c/things.csv", "id,name\n1\n")
    supplier.deliver("d/things.parquet", b"no Parquet")
    supplier.load()
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n3,c\n")
    supplier.deliver("d/things.parquet", parquet(id=[1]))
    supplier.load()
    supplier.load()

    def by_state() -> list[tuple]:
        rows = supplier.table("quarantine")
        return [(row["_source_file"], row["raw"], row["resolved_at"] is not None) for row in rows]

    assert by_state() == [
        ("b/things.csv", "2", True),
        ("b/things.csv", "3", True),
        ("b/things.csv", "2", False),
        ("c/things.csv", "1", False),
        ("d/things.parquet", "", True),
    ]
    supplier.deliver("b/things.csv", "id,name\n1,a\n2,b\n3,c\n")
    supplier.load()
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n3,c\n")  # broken again
    supplier.load()
    assert [row[1:] for row in by_state() if row[0] == "b/things.csv"] == [
        ("2", True),
        ("3", True),
        ("2", True),
        ("2", False),
    ]


def test_bronze_crash_after_quarantine_is_resolved(supplier, monkeypatch):
    """After a crash between the commits of a second delivery, its own broken lines are not marked as resolved."""
    supplier.deliver("b/things.csv", "id,name\n1\n")
    supplier.load()
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n")
    with monkeypatch.context() as patched:
        patched.setattr(bronze, "_commit", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            supplier.load()
    supplier.load()
    assert [(row["raw"], row["resolved_at"] is not None) for row in supplier.table("quarantine")] == [
        ("1", True),
        ("2", False),
    ]


def test_bronze_counts_after_an_answer_was_lost(folder, monkeypatch):
    """A file whose commit succeeded without an answer is counted, and not loaded twice."""
    folder.deliver("1/things.csv", "id,name\n1,a\n2\n")
    folder.deliver("2/things.csv", "id,name\n3,c\n")
    commit, failures = bronze._commit, [1]

    def answer_is_lost(*args):
        table = commit(*args)
        if failures:
            failures.pop()
            raise ServerUnreachableError("the answer is lost", server="", uri="")
        return table

    monkeypatch.setattr(bronze, "_commit", answer_is_lost)
    report = run(run_context(folder.lake), folder.address, {"things": THINGS}, Selection(("bronze",)))
    assert not failures
    assert report.rows["bronze.things"] == TableCounts(read=3, added=2, quarantined=1, version=2)
    assert report.rows["bronze.things"].last_batch == "2"


def test_bronze_crash_between_commits(supplier, monkeypatch):
    """After a crash between the two commits of a file, no row is lost or duplicated."""
    supplier.deliver("b/things.csv", "id,name\n1,a\n2\n3,c\n")
    with monkeypatch.context() as patched:
        patched.setattr(bronze, "_commit", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            supplier.load()
    assert (supplier.loaded(), len(supplier.quarantined())) == ([], 1)
    supplier.load()
    assert supplier.loaded() == [("b/things.csv", 2, "1"), ("b/things.csv", 4, "3")]
    assert len(supplier.quarantined()) == 1


def test_bronze_when_files_are_read_in_another_way(folder):
    """New settings for reading apply to new files; a note says once how to read the earlier ones again."""
    folder.deliver("1/things.csv", "id,name\n1,a\n")
    progress = lakes.RecordingProgress()
    context = RunContext(folder.lake, LocalEngine(folder.lake), progress)
    other = THINGS.model_copy(update={"delimiter": ";"})
    for source in (THINGS, THINGS, other, other):
        run(context, folder.address, {"things": source}, Selection(("bronze",)))
    assert progress.sentences == [
        (
            "the settings for reading the files of things have changed. Rows that are already in bronze.things stay as"
            " they are; to read their files again, use --rebuild bronze.things"
        )
    ]


def test_bronze_counts_after_a_conflict(folder, monkeypatch):
    """The report also counts what was loaded before a conflict with another writer."""
    folder.deliver("1/things.csv", "id,name\n1,a\n2\n")
    folder.deliver("2/things.csv", "id,name\n3,c\n")
    commit, failures = bronze._commit, [CommitFailedError("another writer was quicker")]

    def second_fails(*arguments):
        *_, transactions = arguments
        if "landing:2/things.csv" in transactions and failures:
            raise failures.pop()
        return commit(*arguments)

    monkeypatch.setattr(bronze, "_commit", second_fails)
    report = run(run_context(folder.lake), folder.address, {"things": THINGS}, Selection(("bronze",)))
    assert not failures
    assert report.rows["bronze.things"] == TableCounts(read=3, added=2, quarantined=1, version=2)
    assert [row[2] for row in folder.loaded()] == ["1", "3"]


def test_bronze_columns_that_come_and_go(folder, monkeypatch):
    """The table gets a column for each name that any file has; other rows have no value there."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 16)
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


def test_bronze_ten_thousand_columns(folder):
    """A file with ten thousand columns is loaded."""
    names = ["id", *(f"c{i}" for i in range(9_999))]
    folder.deliver("1/things.csv", ",".join(names) + "\n" + ",".join(map(str, range(10_000))) + "\n1\n")
    counts, refused = folder.load()
    assert (counts.added, counts.quarantined, refused) == (1, 1, [])
    table = folder.lake.delta("bronze", "things").to_pyarrow_table(columns=["c9998", "_source_line"])
    assert table.to_pylist() == [{"c9998": "9999", "_source_line": 2}]


# -- files that cannot be read


def unreadable() -> dict[str, tuple[bytes, str]]:
    complete = parquet(id=list(range(1000)))
    packed = gzip.compress(b"id\n" + b"1\n" * 1000)
    return {
        "cut/things.csv.gz": (packed[:-9], "the gzip data is truncated or damaged"),
        "damaged/things.csv.gz": (packed[:-6] + b"\0" + packed[-5:], "the gzip data is truncated or damaged"),
        "plain/things.csv.gz": (b"id\n1\n", "the gzip data is truncated or damaged"),
        "cut/things.parquet": (complete[: len(complete) // 2], "invalid Parquet file"),
        "csv/things.parquet": (b"id\n1\n", "invalid Parquet file"),
        "parquet/things.csv": (complete, "this is a Parquet file; rename it to end in .parquet"),
        "utf-32/things.csv": ("id\n1\n".encode("utf-32"), "the file is encoded as UTF-32, which is not supported"),
        "utf-32/things.jsonl": ('{"id":1}\n'.encode("utf-32"), "the file is encoded as UTF-32, which is not supported"),
        "headerless/things.csv": (b"1,a\n", "check that the file has a header"),
    }


def test_bronze_unreadable_files(supplier):
    """A file that cannot be read is reported by every run, quarantined once, and stops no other file."""
    files = unreadable()
    for path, (data, _) in files.items():
        supplier.deliver(path, data)
    supplier.deliver("zzz/things.csv", "id\n1\n")
    for _ in range(2):  # each run names it, because it is still not loaded
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


def test_bronze_too_many_columns(folder, monkeypatch):
    """A file with too many columns is refused before most of it has been uploaded."""
    monkeypatch.setattr(limits, "MAX_COLUMNS", 50)
    monkeypatch.setattr(limits, "MAX_OBJECTS", 30)
    parts = []
    put = commits.put_parquet
    monkeypatch.setattr(commits, "put_parquet", lambda *args: parts.append(args) or put(*args))
    folder.deliver("1/things.jsonl", "".join(f'{{"id":{i},"k{i}":1}}\n' for i in range(600)))
    folder.deliver("2/things.jsonl", '{"id":1}')
    assert folder.load()[1] == [
        "1/things.jsonl: the file has more than 50 different columns; check whether it uses data values as column names"
    ]
    assert len(parts) < 20  # and not all of them, first
    assert folder.loaded() == [("2/things.jsonl", 1, "1")]


def test_bronze_broken_links_and_denied_files(folder, tmp_path):
    """Broken links, devices and files without permission are refused, and the others loaded."""
    folder.deliver("ok/things.csv", "id\n1\n")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "things.csv").symlink_to(tmp_path / "nowhere")
    expected = {"gone/things.csv": "the file was removed before it could be read, or it is a broken link"}
    if Path("/proc/self/mem").exists():
        (tmp_path / "io").mkdir()
        (tmp_path / "io" / "things.csv").symlink_to("/proc/self/mem")
        expected["io/things.csv"] = "it is a link that leads outside the landing folder"
    if os.geteuid():
        folder.deliver("secret/things.csv", "id\n1\n")
        (tmp_path / "secret" / "things.csv").chmod(0)
        expected["secret/things.csv"] = "permission to read the file was denied"
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
    "replaced": lambda path: shutil.copy(path, path.with_suffix(".new")) and path.with_suffix(".new").replace(path),
}


@pytest.mark.parametrize("how", CHANGES)
def test_bronze_file_changes_while_it_is_read(how, folder, monkeypatch):
    """A file that changes while it is read is refused; the next run loads its new content."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 1 << 18)
    folder.deliver("1/things.csv", "id\n" + "1234567\n" * 300_000)
    folder.deliver("2/things.csv", "id\n1\n")
    path = folder.folder / "1" / "things.csv"
    waiting = [True]

    def change(_size: int) -> None:
        if waiting.pop() if waiting else False:
            CHANGES[how](path)

    counts, refused = folder.load(change)
    assert (counts.added, len(refused)) == (1, 1)
    assert refused[0].startswith("1/things.csv: the file " + ("was removed" if how == "removed" else "changed"))
    assert folder.loaded() == [("2/things.csv", 2, "1")]
    counts, refused = folder.load()
    assert refused == []
    assert counts.read == {"removed": 0, "truncated": 187_500, "grown": 300_001}.get(how, 300_000)


@pytest.mark.parametrize("how", ["removed", "changed"])
def test_bronze_object_changes_after_it_was_listed(how, s3):
    """An object that was removed or replaced after the listing is refused."""
    s3.deliver("1/things.csv", "id\n1\n")
    s3.deliver("2/things.csv", "id\n2\n")
    landing = Landing(s3.address, s3.lake)
    files, *_ = landing.files()
    s3.remove("1/things.csv")
    if how == "changed":
        s3.deliver("1/things.csv", "id\n3\n")
    counts, refused = bronze.refresh(run_context(s3.lake), landing, THINGS, files)
    assert (counts.added, len(refused)) == (1, 1)
    assert ("was removed" if how == "removed" else "changed") in refused[0]
    assert s3.load()[0].read == (how == "changed")


# -- memory, and many files


MEASURED = """
    import sys
    from pathlib import Path
    from lakehouse_utils import settings
    from lakehouse_utils.lake import Lake
    from lakehouse_utils.pipeline import bronze, landing
    from lakehouse_utils.pipeline.context import NoProgress, RunContext
    from lakehouse_utils.pipeline.engines.local import LocalEngine
    from lakehouse_utils.pipeline.parsing import limits
    from lakehouse_utils.pipeline.sources import Source

    state_dir, uri, folder, block = sys.argv[1:]
    limits.BLOCK_BYTES = int(block)
    lake = Lake.open(uri, settings.Settings(state_dir=Path(state_dir)))
    things = Source(name="things", key=["id"], columns={"id": {"type": "integer"}, "name": {"type": "text"}})
    run = RunContext(lake, LocalEngine(lake), NoProgress())
    raw_files = landing.Landing(folder, lake)
    counts, refused = bronze.refresh(run, raw_files, things, raw_files.files()[0])
    assert not refused, refused
    # Not ru_maxrss, which begins with what the parent held.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(counts.added, counts.quarantined, int(peak.split()[1]) // 1024)
"""


def measured(supplier: Supplier, state_dir: Path, block: int = limits.BLOCK_BYTES) -> tuple[int, int, int]:
    """Rows added, rows quarantined, and the peak memory in MiB of a process that loads what was delivered."""
    code = [sys.executable, "-c", textwrap.dedent(MEASURED)]
    arguments = [state_dir, supplier.lake.root, supplier.folder, block]
    done = subprocess.run([*code, *map(str, arguments)], capture_output=True, text=True, cwd=settings.CHECKOUT)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
@pytest.mark.parametrize("kind", ["broken csv", "jsonl"])
def test_bronze_line_of_100_mb(kind, folder, s3_state_dir):
    """A line of 100 MB is loaded or quarantined in less than 1 GB of memory."""
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
        assert (line, raw) == (3, "2," + "x" * (limits.MAX_RAW_BYTES - 2))
        assert reason == "expected 2 fields, found 3; the line has 100,000,004 bytes, raw holds the first 16,777,216"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_bronze_giant_value_in_a_small_parquet_file(folder, s3_state_dir):
    """A value of 300 MB in a Parquet file of some kB goes to quarantine, in less than 1 GB of memory."""
    buffer = io.BytesIO()
    table = pa.table({"id": [1, 2, 3], "name": ["x" * 300_000_000, "b", None]})
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    assert len(buffer.getvalue()) < 100_000
    folder.deliver("1/things.parquet", buffer.getvalue())
    added, quarantined, peak = measured(folder, s3_state_dir)
    assert (added, quarantined) == (2, 1)
    assert peak < 1000
    ((_, line, raw, reason),) = folder.quarantined()
    assert line == 1
    assert json.loads(raw) == {"id": "1", "name": "x" * limits.MAX_RAW_BYTES}
    assert reason == (
        "name: the value has 300,000,000 bytes, more than the limit of 134,217,728; raw holds the first 16,777,216"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_bronze_peak_memory(folder, s3_state_dir):
    """Four times as large a file needs hardly more memory."""
    peaks = []
    for size, batch in ((20_000_000, 1), (80_000_000, 2)):
        folder.deliver(f"{batch}/things.csv.gz", gzip.compress(b"id,name\n" + b"1234567,abcdefgh\n" * (size // 17), 1))
        added, _, peak = measured(folder, s3_state_dir, block=4 << 20)
        assert added == size // 17
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 60


def test_bronze_many_small_files(folder, monkeypatch):
    """Many small files are loaded once each, whatever kind of checkpoint the log has."""
    names = [f"{number:05}/things.csv" for number in range(110)]
    for number, name in enumerate(names):
        folder.deliver(name, f"id\n{number}\n")
    folder.load()
    assert [row[2] for row in folder.loaded()] == [str(number) for number in range(110)]
    table = folder.lake.delta("bronze", "things")
    fingerprint = delta_log.transactions(folder.lake.table("bronze", "things"), table).get
    for name in names[::9]:
        assert fingerprint(f"landing:{name}") == table.transaction_version(f"landing:{name}") is not None
    assert fingerprint("landing:other") is None
    lookups = []
    look_up = DeltaTable.transaction_version
    monkeypatch.setattr(DeltaTable, "transaction_version", lambda *args: lookups.append(args) or look_up(*args))
    assert folder.load()[0].read == 0
    assert lookups == []  # each would read the log: for all files, it is read once
    monkeypatch.undo()
    in_parts(folder.lake)
    before, table = fingerprint(f"landing:{names[3]}"), folder.lake.delta("bronze", "things")
    assert delta_log.transactions(folder.lake.table("bronze", "things"), table).get(f"landing:{names[3]}") == before


def in_parts(lake: Lake) -> None:
    """Name the checkpoint of `bronze/things` as other engines name theirs."""
    log = lake.key("bronze", "things", "_delta_log", "")
    listed = lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=log)["Contents"]
    checkpoint = max(entry["Key"] for entry in listed if entry["Key"].endswith(".checkpoint.parquet"))
    for entry in listed:  # only the checkpoint in parts has what they say
        if entry["Key"] < checkpoint:
            lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])
    part = checkpoint.replace(".parquet", ".0000000001.0000000001.parquet")
    lake.s3.copy_object(Bucket=lake.bucket, Key=part, CopySource={"Bucket": lake.bucket, "Key": checkpoint})
    lake.s3.delete_object(Bucket=lake.bucket, Key=checkpoint)
    hint = {"version": int(checkpoint.rsplit("/", 1)[1].split(".")[0]), "size": 101, "parts": 1}
    lake.s3.put_object(Bucket=lake.bucket, Key=f"{log}_last_checkpoint", Body=json.dumps(hint))
