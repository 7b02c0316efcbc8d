"""Runs the job in a process, and kills it before its n-th write to S3."""

import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

# The processes are forked from one that has imported everything and has no threads yet, so they start at once.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ingestion_processor"])


def run(arguments: list[str], environment: dict[str, str], output: Path) -> int:
    """Run the job in a process of its own. Returns its exit code, -9 if it was killed."""
    process = start(arguments, environment, output)
    process.join()
    return process.exitcode


def start(arguments: list[str], environment: dict[str, str], output: Path) -> multiprocessing.Process:
    """Start the job in a process of its own; its output goes to a file."""
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
    """Passes bytes on to the S3 server and counts the writes among the requests.

    Requests keep their signature, which is over the address that the client knows: the proxy's.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.writes = 0
        self._kill_at: int | None = None
        self._victim: multiprocessing.Process | None = None
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def to(cls, upstream: str) -> Iterator["Proxy"]:
        proxy = cls(upstream)
        threading.Thread(target=proxy._serve, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy._listening.close()

    def run(self, kill_at: int | None, arguments: list[str], environment: dict[str, str], output: Path) -> int:
        """Run the job by way of this proxy; kill it when it is about to write for the `kill_at`-th time."""
        with self._lock:
            self.writes, self._kill_at = 0, kill_at
            self._victim = start(arguments, environment | {"AWS_ENDPOINT_URL": self.endpoint}, output)
        self._victim.join()
        return self._victim.exitcode

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._upstream)
                threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_request and data.startswith((b"PUT ", b"POST ", b"DELETE ")) and self._is_killed():
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _is_killed(self) -> bool:
        with self._lock:
            self.writes += 1
            if self._kill_at is None or self.writes < self._kill_at:
                return False
            self._victim.kill()
            return True
