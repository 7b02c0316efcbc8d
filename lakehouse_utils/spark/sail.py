"""Sail: a Spark Connect server without a JVM, which pip installs."""

import os
import subprocess
import sys
import tempfile
from typing import IO

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake

_SERVE = """
import signal
import sys
from pysail.spark import SparkConnectServer
server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
print(server.listening_address[1], flush=True)
sys.stdin.read()  # which ends when whoever started this does, however that ends
if hasattr(signal, "alarm"):
    signal.alarm(5)  # to stop, it waits for its tasks: as long as they like
server.stop()
"""


# Without a limit it takes 4.5 GB for ten million lines; with this one 2 GB, and no longer. The rest goes to the disk.
_MEMORY = {
    "SAIL_RUNTIME__MEMORY_POOL__TYPE": "fair",
    "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE": "1000000000",  # bytes, for what a query keeps
}


MORE_MEMORY = "With SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE (bytes) in the environment Sail may use more memory. "


class Sail:
    """A Sail server of this run's own, on the loopback, in a process of its own."""

    def __init__(self) -> None:
        self.address = ""
        self._process: subprocess.Popen | None = None
        self._options: dict[str, str] = {}
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def serves(self, lake: Lake) -> bool:
        return (
            self._process is not None and self._process.poll() is None and self._options == dict(lake.storage_options)
        )

    def start(self, lake: Lake) -> None:
        self.stop()
        self._options = dict(lake.storage_options)
        environment = {name: value for name, value in os.environ.items() if name != "AWS_PROFILE"}  # it has the keys
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_MEMORY | environment | self._options | {"AWS_ENDPOINT": self._options["AWS_ENDPOINT_URL"]},
            text=True,
            start_new_session=True,  # Ctrl+C is for the job, which then ends this
        )
        port = self._process.stdout.readline().strip()
        if not port:
            self._log.seek(0)
            raise LakehouseError(f"Sail, the Spark server that pip installs, didn't start: {self._log.read()[-500:]}")
        self.address = f"sc://127.0.0.1:{port}"

    def ended(self) -> int | None:
        """Its exit code, if it ended by itself."""
        return self._process.poll() if self._process else None

    def stop(self, seconds: float = 5) -> None:
        """Ask it to end, and end it after so many seconds."""
        if self._process:
            self._process.stdin.close()
            self._process.stdout.close()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
