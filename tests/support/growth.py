"""A small lake that took one delivery per day, and has as many small files in bronze, quarantine and silver as days."""

import datetime as dt
from pathlib import Path

from filelock import FileLock

from lakehouse_utils import embedded_s3
from lakehouse_utils.lake import Lake
from support import lakes

DAYS = 10
LAYERS = ("bronze", "silver")
TABLES = ("bronze.t", "quarantine.t", "silver.t", "silver.t_history")


def deliver(folder: Path, number: int, *, late: bool = False) -> None:
    """Write the raw file of day `number` below `folder`: new keys, a row that breaks a rule, and a broken line.

    With `late` it also has rows for keys of earlier days, older and newer than those.
    """
    day = dt.date(2026, 1, 1) + dt.timedelta(number)
    lines = [f"{number * 10 + i},{day},v{i},{i}" for i in range(4)]
    lines += [f"{number * 10 + 9},{day},bad,one", f"broken {number}"]
    if late:
        lines += [f"1,{day},newer,7", "11,2026-01-01,older,8", f"{number * 10 + 5},2026-01-01,old,9"]
    path = folder / "landing" / day.isoformat() / "t.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("k,at,v,n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def grown(server: embedded_s3.Server, state_dir: Path) -> tuple[Lake, Path]:
    """The lake after `DAYS` days, made once for all tests, and the folder with its raw files. Read-only: copy both."""
    folder, lake = state_dir / "grown", lakes.at(f"{server.uri}/grown", state_dir)
    with FileLock(state_dir / "grown.lock"):
        if not (folder / "done").exists():
            folder.mkdir()
            (folder / "sources.toml").write_text(lakes.ONE_TABLE, encoding="utf-8")
            for number in range(DAYS):
                deliver(folder, number)
                lakes.job(lake, folder / "landing", folder / "sources.toml", layers=LAYERS)
            (folder / "done").touch()
    return lake, folder
