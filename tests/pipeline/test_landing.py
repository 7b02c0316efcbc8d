"""The landing: which files are loaded, which are ignored, and how a second delivery is noticed."""

import os
import pickle
import resource
from pathlib import Path

import pytest
from support.suppliers import Supplier

from lakehouse_utils.errors import MachineError, SettingError, UnreadableFileError
from lakehouse_utils.pipeline import landing as landing_module
from lakehouse_utils.pipeline.landing import Landing, printable


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


# -- while raw files are read


@pytest.fixture
def raw_file(folder):
    folder.deliver("1/things.csv", "id\n1\n")
    raw = Landing(folder.address, folder.lake)
    return raw, raw.files().files[0]


def test_too_many_open_files_are_not_blamed_on_a_raw_file(raw_file):
    """If no more files can be opened, that is raised, and the raw file is not refused."""
    raw, file = raw_file
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(MachineError) as caught, raw.open(file):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.code == "EMFILE"
    assert str(caught.value).startswith("Could not read 1/things.csv: too many files are open")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux has a file that cannot be read")
def test_a_broken_disk_is_not_blamed_on_a_raw_file():
    """An input/output error ends the work."""
    with (
        landing_module._LocalFile(Path("/proc/self/mem"), "1/things.csv") as file,
        pytest.raises(MachineError) as caught,
    ):
        file.read(10)
    assert caught.value.code == "EIO"


def test_errors_of_one_file_are_blamed_on_it(folder, tmp_path):
    """A folder, and a name that is too long, are errors of the file."""
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / ("x" * 300), "its name is too long")):
        with pytest.raises(UnreadableFileError, match=words):
            landing_module._LocalFile(path, "1/things.csv")


# -- links, and names


def test_landing_links_that_lead_outside(folder, tmp_path):
    """Links to files or folders outside are refused by name and not read; those within the landing folder are not."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "things.csv").write_text("id\n1\n")
    supplier = Supplier(folder.lake, tmp_path / "landing", on_s3=False)
    supplier.deliver("1/things.csv", "id\n1\n")
    (tmp_path / "landing" / "2").symlink_to(tmp_path / "landing" / "1")
    (tmp_path / "landing" / "3").symlink_to(tmp_path / "secret")
    (tmp_path / "landing" / "4").symlink_to("../secret")
    (tmp_path / "landing" / "5").mkdir()
    (tmp_path / "landing" / "5" / "things.csv").symlink_to(tmp_path / "secret" / "things.csv")
    (tmp_path / "landing" / "5" / "notes.txt").symlink_to("/etc/passwd")
    (tmp_path / "link").symlink_to(tmp_path / "landing")
    supplier.address = str(tmp_path / "link")
    reason = "it is a link that leads outside the landing folder; put the files themselves into the folder"
    listing = Landing(supplier.address, folder.lake).files()
    assert listing.refused == [f"{name}: {reason}" for name in ("3/", "4/", "5/notes.txt")]
    assert listing.ignored == []
    _, refused = supplier.load()
    assert refused == [f"5/things.csv: {reason}"]
    assert [path for path, *_ in supplier.loaded()] == ["1/things.csv", "2/things.csv"]


@pytest.mark.skipif(not os.geteuid(), reason="root may list any folder")
def test_landing_folder_of_a_batch_that_cannot_be_listed(folder, tmp_path):
    """A batch whose files are not known is refused, not ignored."""
    folder.deliver("1/things.csv", "id\n1\n")
    (tmp_path / "1").chmod(0)
    listing = Landing(folder.address, folder.lake).files()
    (tmp_path / "1").chmod(0o700)
    assert listing.refused == ["1/: the folder cannot be listed; check its permissions"]


def test_landing_ignores_source_descriptions_silently(supplier):
    """The file that describes the tables may be in the landing folder."""
    supplier.deliver("sources.toml", "[things]\n")
    supplier.deliver("things.csv", "id\n1\n")
    assert Landing(supplier.address, supplier.lake).files().ignored == []


def test_landing_names_with_control_characters(supplier):
    """Characters that move the cursor, fake a line or turn text around are shown as escapes, and nothing else is."""
    supplier.deliver("1/x\x1b[2Jx.txt", "")
    supplier.deliver("1/a\u202eb\u2028c.txt", "")
    if not supplier.on_s3:
        supplier.deliver("1/a\nb.txt", "")
    ignored = "".join(Landing(supplier.address, supplier.lake).files().ignored)
    assert "1/x\\x1b[2Jx.txt is ignored" in ignored and "1/a\\u202eb\\u2028c.txt is ignored" in ignored
    assert printable("Müller 東京 🚲 [red] \\x1b") == "Müller 東京 🚲 [red] \\x1b"
    assert printable("a\r\nError: b\x07\x9b1m") == "a\\r\\nError: b\\x07\\x9b1m"


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
