"""The embedded S3 server: one per checkout, which every program finds, and which loses no data."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake
from filelock import FileLock
from support.s3_servers import (
    CHECKOUT,
    ENSURE,
    client,
    kill_all,
    listener,
    recorded_ports,
    run_program,
    running_pids,
    sockets_in_tmp,
    storage_options,
)

from lakehouse_utils import embedded_s3, processes
from lakehouse_utils.embedded_s3 import ports, protection
from lakehouse_utils.errors import LocalServerError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


# Finding the server


def test_server_is_found_by_every_program(state_dir):
    """The first call starts the server; later calls, in this and in other processes, find the same one."""
    assert embedded_s3.status(state_dir) is None
    server = embedded_s3.ensure(state_dir)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.endpoint)
    assert (server.uri, server.region) == ("s3://lakehouse", "us-east-1")
    assert embedded_s3.ensure(state_dir) == embedded_s3.status(state_dir) == server
    assert run_program(sys.executable, "-c", ENSURE, state_dir).stdout == f"{server.pid}\n"


def test_running_server_is_found_with_one_request(s3_server, s3_state_dir, monkeypatch):
    """Finding a running server takes one request: no process is started and no lock is waited for."""
    requests = []

    def counted(*request, http_status=protection.http_status):
        requests.append(request[1])
        return http_status(*request)

    monkeypatch.setattr(protection, "http_status", counted)
    monkeypatch.setattr(subprocess, "Popen", None)
    with FileLock(s3_state_dir / "s3" / "lock"):
        assert embedded_s3.ensure(s3_state_dir) == s3_server
    assert requests == ["HEAD"]


def test_stopped_server_keeps_data_address_and_keys(state_dir):
    """After a stop and a new start, what was stored is there, at the same address and with the same keys."""
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"kept")
    assert embedded_s3.stop(state_dir) is True
    assert running_pids(state_dir) == []
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.stop(state_dir) is False

    again = embedded_s3.ensure(state_dir)
    assert again.pid != server.pid
    assert client(server).get_object(Bucket="lakehouse", Key="a")["Body"].read() == b"kept"


def test_concurrent_starts_get_the_same_server(state_dir):
    """Processes and threads that start the server at the same time get the same one."""
    others = [
        subprocess.Popen([sys.executable, "-c", ENSURE, state_dir], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
        for _ in range(2)
    ]
    with ThreadPoolExecutor(4) as threads:
        pids = {server.pid for server in threads.map(embedded_s3.ensure, [state_dir] * 4)}
    pids |= {int(other.communicate(timeout=60)[0]) for other in others}
    assert running_pids(state_dir) == list(pids)


@posix_only
def test_server_outlives_the_program_that_started_it(state_dir):
    """The server keeps running when the whole process group of its starter is killed."""
    kill_group = f"{ENSURE}; import os, signal; sys.stdout.flush(); os.killpg(0, signal.SIGKILL)"
    starter = subprocess.Popen(
        [sys.executable, "-c", kill_group, state_dir], stdout=subprocess.PIPE, cwd=CHECKOUT, start_new_session=True
    )
    pid = starter.communicate(timeout=60)[0]
    assert embedded_s3.ensure(state_dir).pid == int(pid)


@posix_only
def test_killed_starter_leaves_no_second_server(state_dir):
    """A program that is killed in the middle of a start does not leave a second server on the folder."""
    starter = subprocess.Popen([sys.executable, "-c", ENSURE, state_dir], cwd=CHECKOUT)
    assert processes.wait_until(lambda: bool(running_pids(state_dir)), timeout_s=60)
    starter.kill()
    starter.wait()
    server = embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == [server.pid]


def test_missing_pid_file_leads_to_no_second_server(state_dir):
    """A running server that is not recorded any more is replaced, so that there is one on the folder."""
    embedded_s3.ensure(state_dir)
    (state_dir / "s3" / "pid").unlink()
    server = embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == [server.pid]


@posix_only
def test_invisible_server_keeps_its_folder(state_dir):
    """No server starts on a folder that a server in another container holds, which is seen by its lock only."""
    embedded_s3.ensure(state_dir)
    fcntl = pytest.importorskip("fcntl")
    with (state_dir / "s3" / "claim").open("ab") as claim:
        with pytest.raises(BlockingIOError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kill_all(state_dir)
        fcntl.flock(claim, fcntl.LOCK_EX)  # as a server does that runs in another container
        with pytest.raises(LocalServerError, match="is in use by an S3 server in another container or on another mach"):
            embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == []


@posix_only
def test_deleted_folder_gets_a_new_server(state_dir):
    """When the folder is deleted under a running server, that server is replaced."""
    lost = embedded_s3.ensure(state_dir)
    shutil.rmtree(state_dir)
    server = embedded_s3.ensure(state_dir)
    assert server.pid != lost.pid
    assert running_pids(state_dir) == [server.pid]


def test_bucket_with_objects_cannot_be_deleted(s3_server):
    """Deleting a bucket that holds objects is refused."""
    s3 = client(s3_server)
    s3.put_object(Bucket="lakehouse", Key="kept", Body=b"")
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket="lakehouse")


def test_deleted_bucket_is_created_again(state_dir):
    """A bucket that was deleted exists again after the next call."""
    server = embedded_s3.ensure(state_dir)
    client(server).delete_bucket(Bucket="lakehouse")
    assert client(embedded_s3.ensure(state_dir)).list_objects_v2(Bucket="lakehouse")["KeyCount"] == 0


# Crashes


def test_killed_server_returns_on_the_same_ports(state_dir):
    """A killed server is started again at the same address."""
    server = embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    assert embedded_s3.status(state_dir) is None
    again = embedded_s3.ensure(state_dir)
    assert again.endpoint == server.endpoint
    assert again.pid != server.pid


@pytest.mark.parametrize("name", ["s3.port", "filer.port.grpc"])
def test_killed_server_moves_when_a_port_is_taken(state_dir, name, monkeypatch):
    """When another program has taken one of its ports, the server is started on other ports."""
    monkeypatch.setattr(processes, "RELEASE_TIMEOUT_S", 0.1)
    server = embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    with listener(recorded_ports(state_dir)[name]):
        again = embedded_s3.ensure(state_dir)
        assert again.endpoint != server.endpoint
        assert embedded_s3.ensure(state_dir) == again


@pytest.mark.parametrize("name", ["s3.port", "filer.port.grpc"])
def test_port_taken_during_the_start_is_replaced(state_dir, name, monkeypatch):
    """A port that is taken after it was chosen leads to another start on other ports, and leaves no socket behind."""
    lost, fresh = ports.pick_ports(), ports.pick_ports()
    choices = iter([lost, fresh])
    monkeypatch.setattr(ports, "pick_ports", lambda: next(choices))
    with listener(lost[name]):
        server = embedded_s3.ensure(state_dir)
    assert server.endpoint == f"http://127.0.0.1:{fresh['s3.port']}"
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{lost[name] + 1}.sock"))


def test_port_taken_for_a_moment_is_replaced(state_dir, monkeypatch):
    """Other ports are also chosen if the taken port is free again when the server's addresses are looked at."""
    lost, fresh = ports.pick_ports(), ports.pick_ports()
    choices = iter([lost, fresh])
    monkeypatch.setattr(ports, "pick_ports", lambda: next(choices))
    monkeypatch.setattr(processes, "is_free", lambda _port: True)
    with listener(lost["filer.port.grpc"]):
        server = embedded_s3.ensure(state_dir)
    assert server.endpoint == f"http://127.0.0.1:{fresh['s3.port']}"


def test_another_process_with_its_pid_is_not_touched(state_dir):
    """A process that got the recorded pid is neither taken for the server nor stopped."""
    embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    (state_dir / "s3" / "pid").write_text(str(os.getpid()))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).pid != os.getpid()
    (state_dir / "s3" / "pid").write_text(str(os.getpid()))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.stop(state_dir) is True  # and this test goes on


def test_another_server_on_its_port_is_not_used(state_dir, s3_server, monkeypatch):
    """A server of another checkout that has the recorded port is not taken for this one."""
    monkeypatch.setattr(processes, "RELEASE_TIMEOUT_S", 0.1)
    embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    changed = recorded_ports(state_dir) | {"s3.port": int(s3_server.endpoint.rpartition(":")[2])}
    (state_dir / "s3" / "ports.json").write_text(json.dumps(changed))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).endpoint != s3_server.endpoint


def test_copied_checkout_does_not_use_the_original_server(state_dir, s3_server, s3_state_dir, monkeypatch):
    """A checkout that was copied with its state folder gets its own server."""
    monkeypatch.setattr(processes, "RELEASE_TIMEOUT_S", 0.1)
    (state_dir / "s3").mkdir(parents=True)
    for name in ("pid", "ports.json", "keys.json"):
        shutil.copy(s3_state_dir / "s3" / name, state_dir / "s3")
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).endpoint != s3_server.endpoint
    client(s3_server).put_object(Bucket="lakehouse", Key="original", Body=b"is as it was")


def test_server_killed_under_load_loses_nothing_acknowledged(state_dir):
    """Objects and Delta commits that were acknowledged before a kill are all there afterwards."""
    keys: list[str] = []
    rows: list[str] = []
    for round_ in range(3):
        server = embedded_s3.ensure(state_dir)
        s3, options, is_over = client(server), storage_options(server), threading.Event()
        enough_keys, enough_rows = len(keys) + 50, len(rows) + 2

        def put(worker: int, s3=s3, is_over=is_over, round_=round_):
            while not is_over.is_set():
                key = f"{round_}/{worker}/{uuid.uuid4()}"
                with contextlib.suppress(Exception):  # what the kill interrupts was not acknowledged
                    s3.put_object(Bucket="lakehouse", Key=key, Body=key.encode() * 50)
                    keys.append(key)

        def commit(worker: int, options=options, is_over=is_over):
            while not is_over.is_set():
                row = f"{worker}/{uuid.uuid4()}"
                with contextlib.suppress(Exception):
                    data = pa.table({"row": [row]})
                    write_deltalake("s3://lakehouse/table", data, mode="append", storage_options=options)
                    rows.append(row)

        def is_enough(enough_keys=enough_keys, enough_rows=enough_rows) -> bool:
            return len(keys) > enough_keys and len(rows) > enough_rows

        with ThreadPoolExecutor(6) as threads:
            work = [threads.submit(put, worker) for worker in range(5)] + [threads.submit(commit, 0)]
            try:
                assert processes.wait_until(is_enough, timeout_s=120)
                kill_all(state_dir)
            finally:
                is_over.set()
            assert embedded_s3.ensure(state_dir).endpoint == server.endpoint
        assert all(done.exception() is None for done in work)

    s3 = client(server)
    with ThreadPoolExecutor(8) as threads:
        bodies = threads.map(lambda key: s3.get_object(Bucket="lakehouse", Key=key)["Body"].read(), keys)
        assert all(body == key.encode() * 50 for key, body in zip(keys, bodies, strict=True))
    table = DeltaTable("s3://lakehouse/table", storage_options=storage_options(server))
    assert set(rows) <= set(table.to_pyarrow_table()["row"].to_pylist())
    assert len(keys) > 100
    assert len(rows) > 3


# Files, folders and environment


def test_server_writes_in_its_folder_only(state_dir):
    """All files are in the state folder; only the gRPC sockets are in /tmp, and they are removed at the stop."""
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a" * 10_000_000)
    files = psutil.Process(server.pid).open_files()
    written = [Path(file.path) for file in files if getattr(file, "mode", "w") != "r"]
    assert written
    assert all(path.is_relative_to(state_dir.resolve()) for path in written)
    assert {path.name.split("-")[2] for path in sockets_in_tmp(state_dir)} <= {"grpc"}
    assert list((state_dir / "s3" / "tmp").iterdir()) == []
    kill_all(state_dir)
    embedded_s3.stop(state_dir)
    assert sockets_in_tmp(state_dir) == []


def test_profile_endpoint_and_proxy_of_the_user_do_not_matter(state_dir):
    """The server is started and found whatever the environment says of AWS and proxies."""
    hostile = {
        "AWS_PROFILE": "does-not-exist",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    for _ in range(2):  # started, then found
        assert run_program(sys.executable, "-c", ENSURE, state_dir, env=hostile).returncode == 0


@pytest.mark.parametrize("name", ["with space, comma and ümlaut", "long" * 40])
def test_any_folder_name_works(tmp_path, name):
    """The path of the state folder may be long and hold spaces, commas and letters outside ASCII."""
    state_dir = tmp_path / name
    try:
        server = embedded_s3.ensure(state_dir)
        client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a")
        assert sorted(path.name for path in state_dir.iterdir()) == ["s3"]
    finally:
        embedded_s3.stop(state_dir)


# Errors


def test_failed_start_shows_the_log(state_dir):
    """When the server ends while it is starting, the message quotes its log, and nothing is left running."""
    (state_dir / "s3" / "data").mkdir(parents=True)
    (state_dir / "s3" / "data" / "filerldb2").write_text("not a database")
    with pytest.raises(LocalServerError, match=r"ended while it was starting(.|\n)*failed to initialize store"):
        embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == []


def test_full_disk_is_reported(state_dir, monkeypatch):
    """A disk without enough free space is reported with the amount that is free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**8, 10**8))
    with pytest.raises(LocalServerError, match=r"too little free space .*: 95 MB, and"):
        embedded_s3.ensure(state_dir)


def test_unusable_folder_is_reported(state_dir):
    """A state folder that cannot be used is named, together with the setting that chooses another one."""
    state_dir.write_text("a file")
    with pytest.raises(LocalServerError, match=re.escape(str(state_dir)) + ".*LAKEHOUSE_STATE_DIR"):
        embedded_s3.ensure(state_dir)
