"""The lake that a lesson works on: a new folder, with copies of the tables that earlier lessons would have made.

    lake = lessons.start("02", LAKE, SCALE, tables=["bronze/orders", "silver/customers"])

Each run of a notebook has the folder `notebooks/<notebook>-<run>/` below the lake's root. The pipeline builds the
tables from the raw files once, in `prepared/scale-<n>/`, and lessons get copies of them. The user's own tables are
never touched. Modules that only a first run needs are imported there, because every kernel waits for this module.
"""

import hashlib
import json
import secrets
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock

from lakehouse_utils import settings
from lakehouse_utils.errors import MissingTableError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import sources

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_KEEP_RUNS_FOR = timedelta(days=1)
_PARALLEL_COPIES = 8
_KEYS_PER_DELETE = 1000  # the limit of S3's DeleteObjects
_LANDING = settings.CHECKOUT / "data" / "landing"
_WRITERS = ("deltalake", "duckdb", "pyarrow")  # the libraries whose versions the prepared tables depend on

_current: Lake | None = None
_runs: dict[str, Lake] = {}  # the runs of this kernel, by notebook


def start(notebook: str, lake: str = "", scale: float = 1, tables: Iterable[str] = ()) -> Lake:
    """Return the lake for this run of `notebook`, such as "02": empty, except for copies of `tables`.

    `lake` is an s3:// address; if it is empty, LAKEHOUSE_URI is used, or else the embedded server. `tables` are names
    such as "gold/fact_sales"; the copies have all their commits. A second call in the same kernel starts over in a new
    folder and removes the old one. Runs of other kernels that have not been written to for a day are removed too.
    Raises StorageError if the lake cannot be reached, and MissingTableError for a table that the pipeline does not
    build.
    """
    global _current  # noqa: PLW0603 - checks of exercises look at the lake of this kernel
    home = Lake.open(lake or None)
    home.check_access()
    run = home.sibling(home.uri("notebooks", f"{notebook}-{secrets.token_hex(4)}"))
    with translate_errors(f"clear {home.uri('notebooks')}", home):
        if earlier := _runs.pop(notebook, None):
            _remove(earlier)
        _remove_old_runs(home)
        home.s3.put_object(Bucket=home.bucket, Key=_marker_key(home, run), Body=b"")
    if tables := list(tables):
        _copy(tables, _prepared(home, scale), run)
    _runs[notebook] = _current = run
    return run


def current() -> Lake | None:
    """The lake that `start` last returned in this kernel; None before that."""
    return _current


def raw_files(scale: float = 1) -> Path:
    """The folder with the raw files: `data/landing`, or at another `scale`, files of that size, generated once.

    They are generated in the state folder, or in a temporary one if that is read-only.
    """
    if scale == 1:
        return _LANDING
    from lakehouse_utils import sample_data

    folder = _work_folder() / "landing" / f"scale-{scale:g}"
    generator = _digest(sorted(Path(sample_data.__file__).parent.glob("*.py")))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        note = Path(f"{folder}.made-by")
        if not (folder.is_dir() and note.is_file() and note.read_text() == generator):
            with _StatusLine(f"Generating raw files at scale {scale:g}") as line:
                _empty_folder(folder)
                sample_data.generate(folder, scale, progress=lambda batch, _done, _total: line.show(batch))
            note.write_text(generator)
    return folder


def _work_folder() -> Path:
    """Return the folder for locks and generated files: the state folder, or a temporary one if that is read-only.

    Only the embedded server needs a writable state folder; with another server, a read-only checkout is enough.
    """
    state_dir = settings.load().state_dir
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state_dir):
            return state_dir
    except OSError:
        return Path(_temporary_folder().name)


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lakehouse-")  # removed when the kernel ends


# -- the prepared tables


def _prepared(home: Lake, scale: float) -> Lake:
    """The lake that this version of the code builds from the raw files at `scale`; built now if it is missing."""
    landing = raw_files(scale)
    version = _digest(
        [*sorted((settings.CHECKOUT / "lakehouse_utils" / "pipeline").rglob("*.*")), sources.SHOP],
        *(metadata.version(name) for name in _WRITERS),
        *(f"{file.relative_to(landing).as_posix()} {_digest([file])}" for file in sorted(landing.rglob("*.*"))),
    )
    versions = home.sibling(home.uri("prepared", f"scale-{scale:g}"))
    prepared = home.sibling(versions.uri(version))
    if _is_ready(prepared):
        return prepared
    from lakehouse_utils.pipeline.context import RunContext
    from lakehouse_utils.pipeline.engines.local import LocalEngine
    from lakehouse_utils.pipeline.run import run

    name = hashlib.sha256(prepared.root.encode()).hexdigest()[:16]
    # A kernel on another machine may build the same lake at the same time: the pipeline allows that.
    with FileLock(_work_folder() / f"prepare-{name}.lock"):
        if not _is_ready(prepared):
            with _StatusLine(f"Preparing the tables at scale {scale:g}") as line:
                run(RunContext(prepared, LocalEngine(prepared), line), str(landing), sources.load(sources.SHOP))
            home.s3.put_object(Bucket=home.bucket, Key=prepared.key("ready"), Body=b"")
            _remove_other_versions(versions, version)
    return prepared


def _is_ready(prepared: Lake) -> bool:
    return any(entry["Key"] == prepared.key("ready") for entry in prepared.objects(prepared.key("ready")))


def _digest(files: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256(json.dumps(words).encode())
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _remove_other_versions(versions: Lake, version: str) -> None:
    """Remove what other versions of the code built more than a day ago. Another kernel may be copying newer tables."""
    ready = [entry for entry in versions.objects(versions.key("")) if entry["Key"].endswith("/ready")]
    for entry in ready:
        name = entry["Key"].removeprefix(versions.key("")).partition("/")[0]
        if name != version and _is_old(entry):
            _remove(versions, name)


def _copy(tables: list[str], prepared: Lake, run: Lake) -> None:
    """Copy tables within the server, with everything in their folders, and therefore with their history."""
    with translate_errors(f"copy tables from {prepared.root}", run):
        keys = [key for table in tables for key in _keys_of_table(prepared, table)]
        s3, prefix = run.s3, prepared.key("")

        def copy(key: str) -> None:
            copied = run.key(key.removeprefix(prefix))
            s3.copy_object(Bucket=run.bucket, Key=copied, CopySource={"Bucket": prepared.bucket, "Key": key})

        with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
            list(pool.map(copy, keys))


def _keys_of_table(prepared: Lake, table: str) -> list[str]:
    keys = [entry["Key"] for entry in prepared.objects(prepared.key(table, ""))]
    if not keys:
        below = [entry["Key"].removeprefix(prepared.key("")) for entry in prepared.objects(prepared.key(""))]
        tables = sorted({key.partition("/_delta_log/")[0] for key in below if "/_delta_log/" in key})
        raise MissingTableError(
            f"There is no prepared table {table!r}. The prepared tables are {', '.join(tables)}.", table=table
        )
    return keys


# -- objects


def _remove(lake: Lake, *names: str) -> None:
    """Remove all objects below `lake.uri(*names)`."""
    keys = [entry["Key"] for entry in lake.objects(lake.key(*names, ""))]
    for begin in range(0, len(keys), _KEYS_PER_DELETE):
        chunk = keys[begin : begin + _KEYS_PER_DELETE]
        lake.s3.delete_objects(Bucket=lake.bucket, Delete={"Objects": [{"Key": key} for key in chunk], "Quiet": True})


def _marker_key(home: Lake, run: Lake) -> str:
    """The key of an empty object whose date says when a run started: S3 has no folders, so they have no dates."""
    return home.key("notebooks", ".runs", run.root.rpartition("/")[2])


def _remove_old_runs(home: Lake) -> None:
    for marker in [entry for entry in home.objects(home.key("notebooks", ".runs", "")) if _is_old(entry)]:
        run = marker["Key"].rpartition("/")[2]
        if all(_is_old(entry) for entry in home.objects(home.key("notebooks", run, ""))):
            _remove(home, "notebooks", run)
            home.s3.delete_object(Bucket=home.bucket, Key=marker["Key"])


def _is_old(entry: "ObjectTypeDef") -> bool:
    return datetime.now(UTC) - entry["LastModified"] > _KEEP_RUNS_FOR


def _empty_folder(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


# -- progress


class _StatusLine:
    """One line in a notebook that says what is being done. It is the `Progress` of `pipeline.run.run`.

    It is cleared at the end, so that saved outputs do not depend on which run was the first. Outside of a notebook
    nothing is shown.
    """

    def __init__(self, activity: str) -> None:
        self.activity = activity
        self._display: Callable[..., Any] | None = None
        self._clear: Callable[..., Any] | None = None

    def __enter__(self) -> Self:
        try:
            from IPython import get_ipython
            from IPython.display import clear_output, display
        except ImportError:
            return self
        if get_ipython() is not None:
            self._display, self._clear = display, clear_output
            self.show("only once, a few seconds")
        return self

    def __exit__(self, *_: object) -> None:
        if self._clear:
            self._clear()

    def show(self, detail: str) -> None:
        """Replace the line."""
        if self._display and self._clear:
            self._clear(wait=True)
            self._display({"text/plain": f"{self.activity}: {detail} ..."}, raw=True)

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:  # noqa: ARG002
        self.show(f"{layer}.{table}")

    def on_advance(self, size_bytes: int) -> None:
        pass

    def on_table_failed(self, layer: str, table: str) -> None:
        """See Progress: the run raises the error at its end."""

    def on_table_end(self, layer: str, table: str, counts: object) -> None:
        pass

    def on_note(self, sentence: str) -> None:
        pass

    def on_refused_file(self, sentence: str) -> None:
        pass
