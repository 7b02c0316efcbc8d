"""What the servers that we run on this machine have in common: files that only their owner reads, free ports."""

import errno
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import psutil

HOST = "127.0.0.1"


def read(path: Path):
    """What is in the JSON file `path`; None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write(path: Path, text: str) -> None:
    """Replace `path` in one step, by a file that only its owner may read."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)


def replace_log(home: Path) -> None:
    """An empty folder `log`. The log of the start before is kept, older ones are not."""
    log, old = home / "log", home / "log.old"
    if log.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        log.rename(old)
    log.mkdir(mode=0o700)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`, on whichever address."""
    places = [(socket.AF_INET, HOST), (socket.AF_INET, "0.0.0.0")]
    if socket.has_dualstack_ipv6():
        places.append((socket.AF_INET6, "::"))  # SeaweedFS takes no port that is in use on any address
    return all(_can_bind(family, host, port) for family, host in places)


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family) as probe:
        if sys.platform != "win32":  # there it would let us take a port in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # IPv6 is switched off
        return True


def listens_on(pid: int) -> set[tuple[str, int]]:
    """The addresses on which a process waits; none when it is gone, or another user's."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return set()
    return {tuple(connection.laddr) for connection in connections if connection.status == psutil.CONN_LISTEN}
