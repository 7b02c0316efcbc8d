"""Runs the job in a process, and kills it before its n-th write to S3."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.s3_proxy import Dropped, proxy_to

# Forked from a process that has imported everything and has no threads yet, so that a start takes no time.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ingestion_processor"])


def run(arguments: list[str], environment: dict[str, str], output: Path) -> int:
    """Run the job in a separate process. Returns its exit code, -9 if it was killed."""
    process = start(arguments, environment, output)
    process.join()
    return process.exitcode


def start(arguments: list[str], environment: dict[str, str], output: Path) -> multiprocessing.Process:
    """Start the job in a separate process; its output goes to a file."""
    process = _processes.Process(target=_child, args=(list(map(str, arguments)), environment, output))
    process.start()
    return process


def _child(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import ingestion_processor

    ingestion_processor.main(arguments)


class Proxy:
    """A proxy to the S3 server that counts the writes among the requests, and kills the job before one of them."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.writes = 0
        self._kill_at: int | None = None
        self._victim: multiprocessing.Process | None = None
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def to(cls, upstream: str) -> Iterator["Proxy"]:
        proxy = cls()
        with proxy_to(upstream, proxy._before_request) as proxy.endpoint:
            yield proxy

    def run(self, kill_at: int | None, arguments: list[str], environment: dict[str, str], output: Path) -> int:
        """Run the job through this proxy, and kill it when it is about to write for the `kill_at`-th time."""
        with self._lock:
            self.writes, self._kill_at = 0, kill_at
            self._victim = start(arguments, environment | {"AWS_ENDPOINT_URL": self.endpoint}, output)
        self._victim.join()
        return self._victim.exitcode

    def _before_request(self, method: str, path: str) -> None:
        if method not in ("PUT", "POST", "DELETE"):
            return
        with self._lock:
            self.writes += 1
            if self._kill_at is not None and self.writes >= self._kill_at:
                self._victim.kill()
                raise Dropped
