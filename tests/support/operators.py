"""Someone who operates a lake by the recipes of docs/operate.md."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

PAGE = (CHECKOUT / "docs" / "operate.md").read_text(encoding="utf-8")
BLOCKS = {
    name: (language, textwrap.dedent(code))
    for name, language, code in re.findall(r"<!-- operate ([\w ]+) -->\n\n *```(\w+)\n(.*?)```", PAGE, re.DOTALL)
}


class Operator:
    """Someone who runs the recipes in a folder that looks like a checkout, with their own lake and landing folder."""

    def __init__(self, folder: Path, lake: Lake, landing: Path, keys: dict[str, str]) -> None:
        self.folder, self.lake, self.landing = folder, lake, landing
        folder.mkdir()
        shutil.copy(CHECKOUT / "ingestion_processor.py", folder)
        shutil.copytree(CHECKOUT / "data", folder / "data", ignore=shutil.ignore_patterns("landing"))
        (folder / ".venv").symlink_to(sys.prefix)
        path = os.pathsep.join([str(Path(sys.executable).parent), keys["PATH"]])
        self.environment = keys | {"LAKEHOUSE_URI": lake.root, "LAKEHOUSE_LANDING": str(landing), "PATH": path}
        self.environment["PYTHONPATH"] = str(CHECKOUT)

    def run(self, name: str, *arguments: str, code: int = 0) -> str:
        """Run a block of the page; returns what it prints."""
        language, text = BLOCKS[name]
        command = [sys.executable, "-", *arguments] if language == "python" else ["bash", "-euo", "pipefail"]
        return self.call(command, text, code)

    def call(self, command: list[str], text: str = "", code: int = 0) -> str:
        done = subprocess.run(
            command, input=text, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def job(self, *arguments: str, code: int = 0) -> str:
        return self.call([sys.executable, "ingestion_processor.py", *arguments], code=code)

    def query(self, sql: str) -> list[tuple]:
        with self.lake.duckdb() as connection:
            scan = re.sub(r"\b(bronze|silver|gold|quarantine)\.(\w+)", rf"delta_scan('{self.lake.root}/\1/\2')", sql)
            return connection.sql(scan).fetchall()
