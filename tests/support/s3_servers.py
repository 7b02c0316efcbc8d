"""For tests that start their own embedded S3 servers: what runs, what is stored, who holds a port."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import psutil
from botocore.client import Config

from lakehouse_utils import processes, settings
from lakehouse_utils.embedded_s3 import Server

CHECKOUT = settings.CHECKOUT
ENSURE = "import sys; from lakehouse_utils import embedded_s3; print(embedded_s3.ensure(sys.argv[1]).pid)"
HTTP_PORTS = ("s3.port", "filer.port", "volume.port", "master.port", "admin.port")
GRPC_PORTS = tuple(f"{name}.grpc" for name in HTTP_PORTS)


def client(server: Server, **keys: str):
    """A boto3 client, by default with the server's own keys."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=keys.get("access_key", server.access_key),
        aws_secret_access_key=keys.get("secret_key", server.secret_key),
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
    )


def storage_options(server: Server) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
    }


def running_pids(state_dir: Path) -> list[int]:
    """The pids of all servers that run in `state_dir`."""
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name().startswith("weed") and Path(process.cwd()) == state_dir / "s3":
                pids.append(process.pid)
    return pids


def kill_all(state_dir: Path) -> None:
    """Kill all servers that run in `state_dir`, and wait until they have ended."""
    killed = [psutil.Process(pid) for pid in running_pids(state_dir)]
    for process in killed:
        process.kill()
    assert processes.wait_until(lambda: all(map(processes.has_ended, killed)), timeout_s=60)


def recorded_ports(state_dir: Path) -> dict[str, int]:
    return json.loads((state_dir / "s3" / "ports.json").read_text())


def sockets_in_tmp(state_dir: Path) -> list[Path]:
    ports = map(str, recorded_ports(state_dir).values())
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def run_program(*arguments, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess[str]:
    """Run a program in the checkout, with `env` added to this process's environment."""
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        arguments, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, **options
    )


@contextmanager
def listener(port: int) -> Iterator[None]:
    """Another server that has `port`."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield
