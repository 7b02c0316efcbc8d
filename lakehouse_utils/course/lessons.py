"""The lake that a lesson works on: fresh, the notebook's own, with the tables that earlier lessons would have left.

    lake = lessons.start("02", LAKE, SCALE, tables=["bronze/orders", "silver/customers"])

Below the lake's root lie `notebooks/<notebook>-<run>/`, for each run of a notebook, and `prepared/scale-<n>/`, what
the pipeline makes of the raw files, built once and copied from. The user's own tables beside them are never touched.
What only a first run needs is imported there: every kernel waits for this module.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import sources

_KEPT = timedelta(days=1)  # of what a run left behind
_COPIES_AT_A_TIME = 8
_LANDING = settings.CHECKOUT / "data" / "landing"
_MADE_BY = ("deltalake", "duckdb", "pyarrow")

_current: Lake | None = None
_runs: dict[str, Lake] = {}  # of this kernel, by notebook


def start(notebook: str, lake: str = "", scale: float = 1, tables: Iterable[str] = ()) -> Lake:
    """The lake of this run of `notebook`, such as "02": empty, but for copies of `tables`, such as "gold/fact_sales".

    `lake` is an s3:// address; empty: LAKEHOUSE_URI, else the embedded server. The copies are Delta tables with all
    their commits. Called again in the same kernel, it begins anew, elsewhere, and removes what was before; runs that
    nobody has written to for a day are removed too.
    """
    global _current
    home = Lake.open(lake or None)
    home.check_access()
    own = home.sibling(home.uri("notebooks", f"{notebook}-{secrets.token_hex(4)}"))
    with translate_errors(f"clear {home.uri('notebooks')}", home):
        if earlier := _runs.pop(notebook, None):
            _remove(earlier, "")
        _remove_leftovers(home)
        home.s3.put_object(Bucket=home.bucket, Key=_marker(home, own), Body=b"")
    if tables := list(tables):
        _copy(_prepared(home, scale), own, tables)
    _runs[notebook] = _current = own
    return own


def current() -> Lake | None:
    """The lake that `start` last gave to this kernel."""
    return _current


def raw_files(scale: float = 1) -> Path:
    """The folder with the raw files: `data/landing`, or as much of the like as `scale` says, generated once."""
    if scale == 1:
        return _LANDING
    from lakehouse_utils import sample_data

    out = settings.load().state_dir / "landing" / f"scale-{scale:g}"
    made_by = _digest(sorted(Path(sample_data.__file__).parent.glob("*.py")))
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{out}.lock"):
        note = Path(f"{out}.made-by")
        if not (out.is_dir() and note.is_file() and note.read_text() == made_by):
            with _Line(f"Generating raw files at scale {scale:g}") as line:
                _remove_folder(out)
                sample_data.generate(out, scale, progress=lambda batch, done, total: line.show(batch))
            note.write_text(made_by)
    return out


# -- the prepared tables


def _prepared(home: Lake, scale: float) -> Lake:
    """The lake that the pipeline has built from the raw files at `scale`, with this very code."""
    landing = raw_files(scale)
    version = _digest(
        [*sorted((settings.CHECKOUT / "lakehouse_utils" / "pipeline").rglob("*.*")), sources.SHOP],
        *(metadata.version(name) for name in _MADE_BY),
        *(f"{file.relative_to(landing).as_posix()} {_digest([file])}" for file in sorted(landing.rglob("*.*"))),
    )
    shelf = home.sibling(home.uri("prepared", f"scale-{scale:g}"))
    prepared = home.sibling(shelf.uri(version))
    if _is_ready(prepared):
        return prepared
    from lakehouse_utils.pipeline.context import RunContext
    from lakehouse_utils.pipeline.engines.local import LocalEngine
    from lakehouse_utils.pipeline.run import run

    name = hashlib.sha256(prepared.root.encode()).hexdigest()[:16]
    state_dir = settings.load().state_dir
    state_dir.mkdir(parents=True, exist_ok=True)
    # Another machine's kernel may build at the same time: the pipeline bears it.
    with FileLock(state_dir / f"prepare-{name}.lock"):
        if not _is_ready(prepared):
            with _Line(f"Preparing the tables at scale {scale:g}") as line:
                run(RunContext(prepared, LocalEngine(prepared), line), str(landing), sources.load(sources.SHOP))
            home.s3.put_object(Bucket=home.bucket, Key=prepared.key("ready"), Body=b"")
            _remove_outdated(shelf, version)
    return prepared


def _is_ready(prepared: Lake) -> bool:
    return any(entry["Key"] == prepared.key("ready") for entry in prepared.objects(prepared.key("ready")))


def _digest(files: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256(json.dumps(words).encode())
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _remove_outdated(shelf: Lake, version: str) -> None:
    """Remove what older code has built, if it did so more than a day ago: before, somebody may be copying."""
    ready = [entry for entry in shelf.objects(shelf.key("")) if entry["Key"].endswith("/ready")]
    for entry in ready:
        name = entry["Key"].removeprefix(shelf.key("")).partition("/")[0]
        if name != version and _is_old(entry):
            _remove(shelf, name)


def _copy(prepared: Lake, own: Lake, tables: list[str]) -> None:
    """Copy tables within the server, with all that lies in their folders, so with their history."""
    with translate_errors(f"copy tables from {prepared.root}", own):
        keys = []
        for table in tables:
            found = [entry["Key"] for entry in prepared.objects(prepared.key(table, ""))]
            if not found:
                there = sorted(
                    {"/".join(entry["Key"].removeprefix(prepared.key("")).split("/")[:2])
                     for entry in prepared.objects(prepared.key("")) if "/_delta_log/" in entry["Key"]}
                )  # fmt: skip
                raise LakehouseError(f"No prepared table is called {table!r}; there are {', '.join(there)}.")
            keys += found
        s3, below = own.s3, len(prepared.key(""))

        def copy(key: str) -> None:
            source = {"Bucket": prepared.bucket, "Key": key}
            s3.copy_object(Bucket=own.bucket, Key=own.key(key[below:]), CopySource=source)

        with ThreadPoolExecutor(_COPIES_AT_A_TIME) as pool:
            list(pool.map(copy, keys))


# -- objects


def _remove(lake: Lake, name: str) -> None:
    prefix = lake.key(name, "") if name else lake.key("")
    keys = [{"Key": entry["Key"]} for entry in lake.objects(prefix)]
    for begin in range(0, len(keys), 1000):
        lake.s3.delete_objects(Bucket=lake.bucket, Delete={"Objects": keys[begin : begin + 1000], "Quiet": True})


def _marker(home: Lake, own: Lake) -> str:
    """An empty object that says when a run began: S3 has no folders, and so no dates of them."""
    return home.key("notebooks", ".runs", own.root.rpartition("/")[2])


def _remove_leftovers(home: Lake) -> None:
    for marker in [entry for entry in home.objects(home.key("notebooks", ".runs", "")) if _is_old(entry)]:
        run = marker["Key"].rpartition("/")[2]
        if all(_is_old(entry) for entry in home.objects(home.key("notebooks", run, ""))):
            _remove(home, f"notebooks/{run}")
            home.s3.delete_object(Bucket=home.bucket, Key=marker["Key"])


def _is_old(entry: dict) -> bool:
    return datetime.now(UTC) - entry["LastModified"] > _KEPT


def _remove_folder(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


# -- one line that says what is being done, and is gone when it is done


class _Line:
    """Shown in a notebook only, and cleared at the end, so that no saved output depends on who came first.

    Also the pipeline's watch (`pipeline.context.Progress`).
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._shown = None

    def __enter__(self) -> "_Line":
        try:
            from IPython import get_ipython
            from IPython.display import clear_output, display
        except ImportError:
            return self
        if get_ipython() is not None:
            self._shown = (display, clear_output)
            self.show("once, some seconds")
        return self

    def __exit__(self, *_) -> None:
        if self._shown:
            self._shown[1]()

    def show(self, detail: str) -> None:
        if self._shown:
            display, clear_output = self._shown
            clear_output(wait=True)
            display({"text/plain": f"{self.doing}: {detail} ..."}, raw=True)

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        self.show(f"{layer}.{table}")

    def on_advance(self, size_bytes: int) -> None:
        pass

    def on_table_end(self, layer: str, table: str, counts: object) -> None:
        pass

    def on_note(self, sentence: str) -> None:
        pass

    def on_refused_file(self, sentence: str) -> None:
        pass
