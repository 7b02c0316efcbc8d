"""Sail: a Spark Connect server without a JVM, which pip installs."""

import os
import subprocess
import sys
import tempfile
from typing import IO

from lakehouse_utils import settings
from lakehouse_utils.errors import EngineError
from lakehouse_utils.lake import Lake

MEMORY_ADVICE = "Set SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE (bytes) in the environment to let Sail use more memory. "

# Without a limit, Sail uses 4.5 GB for ten million lines. With this one, it uses 2 GB and is as fast; the rest spills.
_MEMORY_LIMIT = {
    "SAIL_RUNTIME__MEMORY_POOL__TYPE": "fair",
    "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE": "1000000000",  # bytes that a query may keep
}


class Sail:
    """A Sail server on the loopback, in a child process that ends with this program. `address` is sc://host:port."""

    def __init__(self) -> None:
        self.address = ""
        self._process: subprocess.Popen[str] | None = None
        self._storage_options: dict[str, str] = {}
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  open as long as the server

    def is_running_for(self, lake: Lake) -> bool:
        """Whether the server runs with the credentials that `lake` has now."""
        return self._process is not None and self.exit_code() is None and self._storage_options == _options(lake)

    def start(self, lake: Lake) -> None:
        """Start the server, or start it again, with the credentials of `lake`.

        Raises EngineError if it does not start.
        """
        self.stop()
        self._storage_options = _options(lake)
        inherited = {name: value for name, value in os.environ.items() if name != "AWS_PROFILE"}  # it gets the keys
        package = {"PYTHONPATH": os.pathsep.join(filter(None, [str(settings.CHECKOUT), inherited.get("PYTHONPATH")]))}
        endpoint = {"AWS_ENDPOINT": self._storage_options["AWS_ENDPOINT_URL"]}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lakehouse_utils.spark._sail_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_MEMORY_LIMIT | inherited | package | self._storage_options | endpoint,
            text=True,
            start_new_session=True,  # so Ctrl+C reaches only the job, which then stops the server
        )
        port = self._process.stdout.readline().strip() if self._process.stdout else ""
        if not port:
            self._log.seek(0)
            raise EngineError(f"Sail, the Spark server that pip installs, did not start: {self._log.read()[-500:]}")
        self.address = f"sc://127.0.0.1:{port}"

    def exit_code(self) -> int | None:
        """The exit code of the server if it has ended by itself; None if it is running or was never started."""
        return self._process.poll() if self._process else None

    def stop(self, timeout_s: float = 5) -> None:
        """Ask the server to end, and kill it if it has not ended after `timeout_s` seconds."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _options(lake: Lake) -> dict[str, str]:
    return dict(lake.storage_options)
