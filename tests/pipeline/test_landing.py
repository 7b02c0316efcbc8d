"""The landing: which files are loaded, which are ignored, and how a second delivery is noticed."""

import os
import pickle
from pathlib import Path

import pytest

from lakehouse_utils.errors import SettingError, UnreadableFileError
from lakehouse_utils.pipeline.landing import Landing


def test_landing_files_of_a_folder(folder, tmp_path):
    """Raw files are listed by batch and name; all other files are named as ignored."""
    for path in ["things.csv", "1/Things.CSV.GZ", "1/things.ndjson", "_SUCCESS", ".hidden/things.csv", "1/.things.csv"]:
        folder.deliver(path, "id\n1\n")
    for path in ["1/notes.txt", "1/things", "1/things.parquet.gz", "1/things.2.csv", "1/deep/er/things.csv"]:
        folder.deliver(path, "")
    (tmp_path / "1" / "things.csv").mkdir()
    os.mkfifo(tmp_path / "1" / "things.jsonl")
    (tmp_path / "2").symlink_to(tmp_path / "1")
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "loop").symlink_to(tmp_path / "3")
    (tmp_path / "4").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/4/M\xfc.csv")).write_text("id\n1\n")
    files, ignored, _ = Landing(str(tmp_path), folder.lake).files()
    assert [(file.batch, file.table, file.path, file.format, file.gzipped) for file in files] == [
        (".", "things", "things.csv", "csv", False),
        ("1", "Things", "1/Things.CSV.GZ", "csv", True),
        ("1", "things", "1/things.ndjson", "jsonl", False),
        ("2", "Things", "2/Things.CSV.GZ", "csv", True),
        ("2", "things", "2/things.ndjson", "jsonl", False),
    ]
    ignored_paths = {sentence.split(" is ignored: ")[0] for sentence in ignored}
    ignored_names = ["notes.txt", "things", "things.parquet.gz", "things.2.csv", "deep/", "things.csv/", "things.jsonl"]
    assert ignored_paths == {f"{batch}/{name}" for batch in (1, 2) for name in ignored_names} | {
        "3/loop/",
        "4/M\\udcfc.csv",
    }


def test_landing_files_on_s3(s3):
    """Raw objects are listed by batch and name; all other objects are named as ignored."""
    for path in ["things.csv", "1/things.csv", "1/deep/things.csv", "1/deep/er/things.csv", "1/x.txt"]:
        s3.deliver(path, "id\n1\n")
    s3.deliver("1/empty/", "")
    files, ignored, _ = Landing(s3.address, s3.lake).files()
    assert [file.path for file in files] == ["things.csv", "1/things.csv"]
    assert [sentence.split(" is ignored: ")[0] for sentence in ignored] == ["1/deep/", "1/x.txt"]


def test_landing_fingerprint_of_a_large_file(supplier):
    """A large file that differs in one byte is another delivery."""
    data = bytearray(b"id\n" + b"1234567\n" * 400_000)
    supplier.deliver("b/things.csv", bytes(data))
    supplier.load()
    assert supplier.load()[0].read == 0
    data[1_000_003] = ord("8")
    supplier.deliver("b/things.csv", bytes(data))
    assert supplier.load()[0].read == 400_000


def test_landing_folder_missing(lake, tmp_path):
    """A landing folder that does not exist is an invalid setting."""
    with pytest.raises(
        SettingError, match=r"The landing folder .*missing does not exist\. Check --landing or"
    ) as caught:
        Landing(str(tmp_path / "missing"), lake)
    assert caught.value.setting == "LAKEHOUSE_LANDING"


def test_unreadable_file_error_survives_pickle():
    """Spark's workers send the error back to the driver: it must keep its class and its message."""
    error = pickle.loads(pickle.dumps(UnreadableFileError("the file is encoded as UTF-16; save it as UTF-8")))
    assert type(error) is UnreadableFileError
    assert str(error) == "the file is encoded as UTF-16; save it as UTF-8"
