"""The embedded S3 server: one per checkout, always found again, loses nothing, closed to strangers."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import psutil
import pyarrow as pa
import pytest
from botocore.client import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils import processes
from lakehouse_utils.embedded_s3 import Server
from lakehouse_utils.embedded_s3 import server as embedded_s3
from lakehouse_utils.errors import LakehouseError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, modes and shells")
CHECKOUT = Path(embedded_s3.__file__).parent.parent
ENSURE = "import sys; from lakehouse_utils import embedded_s3; print(embedded_s3.ensure(sys.argv[1]).pid)"


@pytest.fixture
def state_dir(tmp_path):
    """A checkout's state of its own; its server ends with the test."""
    path = tmp_path / "state"
    yield path
    kill_all(path)
    embedded_s3.stop(path)
    shutil.rmtree(path, ignore_errors=True)


def client(server: Server, **keys):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=keys.get("access_key", server.access_key),
        aws_secret_access_key=keys.get("secret_key", server.secret_key),
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
    )


def servers(state_dir: Path) -> list[int]:
    """The pids of all servers that live on `state_dir`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("weed") and Path(process.cwd()) == state_dir / "s3":
                found.append(process.pid)
    return found


def kill_all(state_dir: Path) -> None:
    dying = [psutil.Process(pid) for pid in servers(state_dir)]
    for process in dying:
        process.kill()
    while not all(embedded_s3._is_gone(process) for process in dying):
        time.sleep(0.02)


def run(*arguments, env=None, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, **(env or {})}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, **options)


# One server, found by all


def test_the_first_to_need_it_starts_it_and_all_others_find_it(state_dir):
    assert embedded_s3.status(state_dir) is None
    server = embedded_s3.ensure(state_dir)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.endpoint)
    assert (server.uri, server.region) == ("s3://lakehouse", "us-east-1")
    assert embedded_s3.ensure(state_dir) == embedded_s3.status(state_dir) == server
    assert run(sys.executable, "-c", ENSURE, state_dir, cwd=CHECKOUT).stdout == f"{server.pid}\n"


def test_finding_it_takes_milliseconds_and_no_process(s3_server, s3_state_dir, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        assert embedded_s3.ensure(s3_state_dir) == s3_server
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_a_stop_keeps_what_is_stored_and_the_address_and_the_keys(state_dir):
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"kept")
    assert embedded_s3.stop(state_dir) is True
    assert servers(state_dir) == []
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.stop(state_dir) is False

    again = embedded_s3.ensure(state_dir)
    assert again.pid != server.pid
    assert client(server).get_object(Bucket="lakehouse", Key="a")["Body"].read() == b"kept"


def test_processes_and_threads_that_start_it_at_once_get_the_same_one(state_dir):
    others = [
        subprocess.Popen([sys.executable, "-c", ENSURE, state_dir], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
        for _ in range(2)
    ]
    with ThreadPoolExecutor(4) as threads:
        pids = {server.pid for server in threads.map(embedded_s3.ensure, [state_dir] * 4)}
    pids |= {int(other.communicate(timeout=60)[0]) for other in others}
    assert servers(state_dir) == list(pids)


@posix_only
def test_it_outlives_its_starter(state_dir):
    pid = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{ENSURE}; import os, signal; sys.stdout.flush(); os.killpg(0, signal.SIGKILL)",
            state_dir,
        ],
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        start_new_session=True,
    ).communicate(timeout=60)[0]
    assert embedded_s3.ensure(state_dir).pid == int(pid)


@posix_only
def test_a_starter_that_is_killed_halfway_leaves_no_second_server(state_dir):
    starter = subprocess.Popen([sys.executable, "-c", ENSURE, state_dir], cwd=CHECKOUT)
    while not servers(state_dir):
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    server = embedded_s3.ensure(state_dir)
    assert servers(state_dir) == [server.pid]


def test_a_lost_record_does_not_lead_to_a_second_server(state_dir):
    embedded_s3.ensure(state_dir)
    (state_dir / "s3" / "pid").unlink()
    server = embedded_s3.ensure(state_dir)
    assert servers(state_dir) == [server.pid]


@posix_only
def test_a_server_that_cannot_be_seen_from_here_keeps_a_second_one_off_its_folder(state_dir):
    embedded_s3.ensure(state_dir)
    fcntl = pytest.importorskip("fcntl")
    with open(state_dir / "s3" / "claim", "ab") as claim:
        with pytest.raises(BlockingIOError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kill_all(state_dir)
        fcntl.flock(claim, fcntl.LOCK_EX)  # as one does that runs in another container
        with pytest.raises(LakehouseError, match="in another container or on another machine"):
            embedded_s3.ensure(state_dir)
    assert servers(state_dir) == []


@posix_only
def test_a_folder_that_was_deleted_under_it_begins_anew(state_dir):
    lost = embedded_s3.ensure(state_dir)
    shutil.rmtree(state_dir)
    server = embedded_s3.ensure(state_dir)
    assert server.pid != lost.pid and servers(state_dir) == [server.pid]


def test_a_bucket_is_not_deleted_with_what_is_in_it(s3_server):
    s3 = client(s3_server)
    s3.put_object(Bucket="lakehouse", Key="kept", Body=b"")
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket="lakehouse")


def test_a_bucket_that_was_deleted_is_made_again(state_dir):
    server = embedded_s3.ensure(state_dir)
    client(server).delete_bucket(Bucket="lakehouse")
    assert client(embedded_s3.ensure(state_dir)).list_objects_v2(Bucket="lakehouse")["KeyCount"] == 0


# Found again after a crash


def test_killed_it_comes_back_on_the_same_ports(state_dir):
    server = embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    assert embedded_s3.status(state_dir) is None
    again = embedded_s3.ensure(state_dir)
    assert again.endpoint == server.endpoint and again.pid != server.pid


@pytest.mark.parametrize("name", ["s3.port", "filer.port.grpc"])
def test_killed_it_moves_when_somebody_took_a_port(state_dir, name, monkeypatch):
    monkeypatch.setattr(embedded_s3, "_RELEASE_SECONDS", 0.1)
    server = embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    with listener(ports_of(state_dir)[name]):
        again = embedded_s3.ensure(state_dir)
        assert again.endpoint != server.endpoint
        assert embedded_s3.ensure(state_dir) == again


@pytest.mark.parametrize("name", ["s3.port", "filer.port.grpc"])
def test_a_port_that_is_lost_between_the_look_and_the_start_is_replaced(state_dir, name, monkeypatch):
    lost = embedded_s3._free_ports()
    fresh = embedded_s3._free_ports()
    monkeypatch.setattr(embedded_s3, "_choices_of_ports", lambda home: iter([lost, fresh]))
    with listener(lost[name]):
        server = embedded_s3.ensure(state_dir)
    assert server.endpoint == f"http://127.0.0.1:{fresh['s3.port']}"
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{lost[name] + 1}.sock"))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_a_port_that_is_taken_on_ipv6_is_not_free():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        assert not processes.is_free(taken.getsockname()[1])


def test_a_process_that_has_got_its_number_is_left_alone(state_dir):
    embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    (state_dir / "s3" / "pid").write_text(str(os.getpid()))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).pid != os.getpid()
    (state_dir / "s3" / "pid").write_text(str(os.getpid()))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.stop(state_dir) is True  # and this test goes on


def test_another_server_on_its_port_is_not_taken_for_it(state_dir, s3_server, monkeypatch):
    monkeypatch.setattr(embedded_s3, "_RELEASE_SECONDS", 0.1)
    embedded_s3.ensure(state_dir)
    kill_all(state_dir)
    ports = ports_of(state_dir) | {"s3.port": int(s3_server.endpoint.rpartition(":")[2])}
    (state_dir / "s3" / "ports.json").write_text(json.dumps(ports))
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).endpoint != s3_server.endpoint


def test_a_copied_checkout_does_not_use_the_server_of_the_original(state_dir, s3_server, s3_state_dir, monkeypatch):
    monkeypatch.setattr(embedded_s3, "_RELEASE_SECONDS", 0.1)
    (state_dir / "s3").mkdir(parents=True)
    for name in ("pid", "ports.json", "keys.json"):
        shutil.copy(s3_state_dir / "s3" / name, state_dir / "s3")
    assert embedded_s3.status(state_dir) is None
    assert embedded_s3.ensure(state_dir).endpoint != s3_server.endpoint
    client(s3_server).put_object(Bucket="lakehouse", Key="original", Body=b"is as it was")


def test_nothing_acknowledged_is_lost_when_it_is_killed_under_load(state_dir):
    keys: list[str] = []
    rows: list[str] = []
    for round_ in range(3):
        server = embedded_s3.ensure(state_dir)
        s3, options, over = client(server), storage_options(server), threading.Event()

        def put(worker: int, s3=s3, over=over, round_=round_):
            while not over.is_set():
                key = f"{round_}/{worker}/{uuid.uuid4()}"
                with contextlib.suppress(Exception):  # what the kill cuts off was not acknowledged
                    s3.put_object(Bucket="lakehouse", Key=key, Body=key.encode() * 50)
                    keys.append(key)

        def commit(worker: int, options=options, over=over):
            while not over.is_set():
                row = f"{worker}/{uuid.uuid4()}"
                with contextlib.suppress(Exception):
                    data = pa.table({"row": [row]})
                    write_deltalake("s3://lakehouse/table", data, mode="append", storage_options=options)
                    rows.append(row)

        with ThreadPoolExecutor(6) as threads:
            work = [threads.submit(put, worker) for worker in range(5)] + [threads.submit(commit, 0)]
            time.sleep(1)
            kill_all(state_dir)
            over.set()
            assert embedded_s3.ensure(state_dir).endpoint == server.endpoint
        assert all(done.exception() is None for done in work)

    s3 = client(server)
    with ThreadPoolExecutor(8) as threads:
        bodies = threads.map(lambda key: s3.get_object(Bucket="lakehouse", Key=key)["Body"].read(), keys)
        assert all(body == key.encode() * 50 for key, body in zip(keys, bodies, strict=True))
    table = DeltaTable("s3://lakehouse/table", storage_options=storage_options(server))
    assert set(rows) <= set(table.to_pyarrow_table()["row"].to_pylist())
    assert len(keys) > 100 and len(rows) > 3


# Closed to strangers


def test_it_listens_on_the_loopback_only_and_on_nothing_unexpected(s3_server, s3_state_dir):
    listening = [c.laddr for c in psutil.Process(s3_server.pid).net_connections("tcp") if c.status == "LISTEN"]
    ports = ports_of(s3_state_dir)
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == set(ports.values()) - {ports["webdav.port"]}
    assert psutil.Process(s3_server.pid).children() == []


def test_its_ports_are_not_in_the_range_of_outgoing_connections_nor_well_known():
    for _ in range(5):
        ports = embedded_s3._free_ports()
        assert len(set(ports.values())) == 11
        assert all(15_000 <= port < 28_000 for port in ports.values())
        assert ports["admin.port.grpc"] == ports["admin.port"] + 10_000
        assert not embedded_s3._WELL_KNOWN_PORTS & set(ports.values())


def test_without_credentials_no_port_gives_or_changes_anything(state_dir):
    server = embedded_s3.ensure(state_dir)
    assert what_strangers_can(server, state_dir) == set()


def test_the_servers_own_certificate_opens_grpc(state_dir):
    embedded_s3.ensure(state_dir)
    tls = stranger_tls()
    tls.load_cert_chain(state_dir / "s3" / "grpc.pem", state_dir / "s3" / "grpc.key")
    assert all(speaks_http2(ports_of(state_dir)[name], tls) for name in GRPC)


def test_the_test_above_sees_an_open_server(state_dir, monkeypatch):
    open_it(monkeypatch)
    server = embedded_s3.ensure(state_dir)
    can = what_strangers_can(server, state_dir)
    assert {"read filer.port", "list filer.port", "change filer.port", "read volume.port", "ticket master.port"} <= can
    assert {f"gRPC in plain text {name}" for name in GRPC} <= can


@pytest.mark.parametrize("hole", ["keys and certificates", "http"])
def test_a_server_that_turns_out_to_be_open_is_stopped(state_dir, monkeypatch, hole):
    if hole == "http":
        monkeypatch.setattr(embedded_s3, "_FLAGS", tuple(set(embedded_s3._FLAGS) - {"-disableHttp"}))
    else:
        monkeypatch.setattr(embedded_s3, "_protection", dict)
    with pytest.raises(LakehouseError, match="would have let anybody on this machine in"):
        embedded_s3.ensure(state_dir)
    assert servers(state_dir) == []
    assert embedded_s3.status(state_dir) is None


def test_a_server_on_all_interfaces_is_stopped(state_dir, monkeypatch):
    flags = tuple(flag.replace("127.0.0.1", "0.0.0.0") for flag in embedded_s3._FLAGS)
    monkeypatch.setattr(embedded_s3, "_FLAGS", flags)
    with pytest.raises(LakehouseError, match="unasked, and was stopped"):
        embedded_s3.ensure(state_dir)
    assert servers(state_dir) == []


@pytest.mark.parametrize("wrong", [{"secret_key": "0" * 40}, {"access_key": "somebody"}])
def test_wrong_keys_are_refused(s3_server, wrong):
    s3 = client(s3_server, **wrong)
    for attempt in (
        lambda: s3.list_objects_v2(Bucket="lakehouse"),
        lambda: s3.put_object(Bucket="lakehouse", Key="intruder", Body=b""),
        lambda: s3.list_buckets(),
    ):
        with pytest.raises(ClientError, match="SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied"):
            attempt()


def test_each_checkout_has_its_own_secret_and_new_keys_shut_out_the_old(state_dir, s3_server):
    server = embedded_s3.ensure(state_dir)
    assert server.secret_key != s3_server.secret_key and len(server.secret_key) >= 40
    (state_dir / "s3" / "keys.json").unlink()
    renewed = embedded_s3.ensure(state_dir)
    assert renewed.secret_key != server.secret_key
    with pytest.raises(ClientError):
        client(renewed, access_key=server.access_key, secret_key=server.secret_key).list_buckets()


@posix_only
def test_only_the_owner_can_read_its_files_and_sockets(state_dir):
    embedded_s3.ensure(state_dir)
    assert stat.S_IMODE((state_dir / "s3").stat().st_mode) == 0o700
    for name in ("keys.json", "grpc.key"):
        assert stat.S_IMODE((state_dir / "s3" / name).stat().st_mode) == 0o600
    for path in sockets_in_tmp(state_dir):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0


def test_the_secret_stands_in_no_command_line_log_or_message(state_dir):
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a")
    assert server.secret_key not in " ".join(psutil.Process(server.pid).cmdline())
    assert server.secret_key not in repr(server)
    embedded_s3.stop(state_dir)
    kept = [path for path in (state_dir / "s3").rglob("*") if path.is_file()]
    assert [path.name for path in kept if server.secret_key.encode() in path.read_bytes()] == ["keys.json"]


def test_it_writes_nowhere_else_except_for_sockets_that_have_a_fixed_place(state_dir):
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a" * 10_000_000)
    files = psutil.Process(server.pid).open_files()
    written = [Path(file.path) for file in files if getattr(file, "mode", "w") != "r"]
    assert written and all(path.is_relative_to(state_dir.resolve()) for path in written)
    assert {path.name.split("-")[2] for path in sockets_in_tmp(state_dir)} <= {"grpc"}
    assert list((state_dir / "s3" / "tmp").iterdir()) == []
    kill_all(state_dir)
    embedded_s3.stop(state_dir)
    assert sockets_in_tmp(state_dir) == []


def test_nothing_of_the_callers_environment_reaches_it(state_dir, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("WEED_MASTER_TELEMETRY", "true")
    environment = psutil.Process(embedded_s3.ensure(state_dir).pid).environ()
    assert not {"AWS_PROFILE", "HTTPS_PROXY", "WEED_MASTER_TELEMETRY"} & set(environment)
    assert environment["HOME"].startswith(str(state_dir))


# At home anywhere


def test_the_users_profile_endpoint_and_proxy_do_not_matter(state_dir):
    hostile = {
        "AWS_PROFILE": "does-not-exist",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    for _ in range(2):  # started, then found
        assert run(sys.executable, "-c", ENSURE, state_dir, env=hostile, cwd=CHECKOUT).returncode == 0


@pytest.mark.parametrize("name", ["with space, comma and ümlaut", "long" * 40])
def test_any_folder_will_do(tmp_path, name):
    state_dir = tmp_path / name
    try:
        server = embedded_s3.ensure(state_dir)
        client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a")
        assert sorted(path.name for path in state_dir.iterdir()) == ["s3"]
    finally:
        embedded_s3.stop(state_dir)


def test_where_there_is_no_such_server_the_message_says_what_to_use(state_dir, monkeypatch, tmp_path):
    def nothing_installed(name):
        raise embedded_s3.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(embedded_s3.metadata, "distribution", nothing_installed)
    monkeypatch.setattr(embedded_s3.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(embedded_s3.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LakehouseError, match=r"Intel Macs.*LAKEHOUSE_URI=s3://bucket/prefix.*AWS_ENDPOINT_URL"):
        embedded_s3.ensure(state_dir)


def test_a_start_that_fails_shows_the_log_and_leaves_nothing_running(state_dir):
    (state_dir / "s3" / "data").mkdir(parents=True)
    (state_dir / "s3" / "data" / "filerldb2").write_text("not a database")
    with pytest.raises(LakehouseError, match="ended while it was starting(.|\n)*failed to initialize store"):
        embedded_s3.ensure(state_dir)
    assert servers(state_dir) == []


def test_a_full_disk_is_named(state_dir, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**8, 10**8))
    with pytest.raises(LakehouseError, match="is full: 95 MB are free"):
        embedded_s3.ensure(state_dir)


def test_a_folder_that_cannot_be_used_is_named(state_dir):
    state_dir.write_text("a file")
    with pytest.raises(LakehouseError, match=re.escape(str(state_dir)) + ".*LAKEHOUSE_STATE_DIR"):
        embedded_s3.ensure(state_dir)


# The command line


def test_start_status_and_stop_say_what_is(state_dir):
    os.environ["LAKEHOUSE_STATE_DIR"] = str(state_dir)

    def say(word: str) -> tuple[int, str]:
        result = CliRunner().invoke(embedded_s3.main, [word])
        return result.exit_code, result.stdout

    assert say("status") == (1, "The S3 server is not running.\n")
    assert say("stop") == (0, "The S3 server was not running.\n")
    code, started = say("start")
    server = embedded_s3.status(state_dir)
    where = f"{server.endpoint}, bucket lakehouse, process {server.pid}.\n"
    assert (code, started) == (0, f"The S3 server started: {where}")
    assert say("start") == (0, f"The S3 server is already running: {where}")
    assert say("status") == (0, f"The S3 server is running: {where}")
    assert say("stop") == (0, "The S3 server has stopped; what it stores stays.\n")
    assert embedded_s3.status(state_dir) is None


@posix_only
def test_env_opens_it_for_a_shell(s3_server, s3_state_dir):
    script = f"""
        eval "$({sys.executable} -m lakehouse_utils.embedded_s3 env)" &&
        {sys.executable} -c '
import boto3, os
boto3.client("s3").put_object(Bucket="lakehouse", Key="from-a-shell", Body=b"hello")
print(os.environ["LAKEHOUSE_URI"], os.environ["AWS_REGION"])'
    """
    leftovers = {
        "AWS_PROFILE": "does-not-exist",
        "AWS_SESSION_TOKEN": "stale",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "example.org",
        "no_proxy": "",
    }
    state_dir = {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)}
    done = run("sh", "-c", script, env=leftovers | state_dir, cwd=CHECKOUT)
    assert done.stdout == "s3://lakehouse us-east-1\n", done.stderr
    assert client(s3_server).get_object(Bucket="lakehouse", Key="from-a-shell")["Body"].read() == b"hello"


def test_an_error_is_one_line_without_a_traceback(state_dir):
    state_dir.write_text("a file")
    settings = {"LAKEHOUSE_STATE_DIR": str(state_dir)}
    done = run(sys.executable, "-m", "lakehouse_utils.embedded_s3", "start", env=settings, cwd=CHECKOUT)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: The S3 server can't use its folder") and done.stderr.count("\n") == 1


# What strangers try


GRPC = ("s3.port.grpc", "filer.port.grpc", "volume.port.grpc", "master.port.grpc", "admin.port.grpc")
HTTP = ("s3.port", "filer.port", "volume.port", "master.port", "admin.port")
MARK = b"what only the owner may read"


def what_strangers_can(server: Server, state_dir: Path) -> set[str]:
    """All that somebody without credentials gets from, or does to, an object: '<what> <port>'."""
    s3 = client(server)
    s3.put_object(Bucket="lakehouse", Key="folder/private-object", Body=MARK * 100)
    ports = ports_of(state_dir)
    file_ids = file_ids_of(state_dir)
    assert file_ids
    private = ["/lakehouse/folder/private-object", "/buckets/lakehouse/folder/private-object", *file_ids]
    lists = ["/", "/buckets/", "/buckets/lakehouse/", "/buckets/lakehouse/folder/", "/lakehouse?list-type=2"]
    lists += ["/lakehouse?versions", "/lakehouse/folder/", "/?pretty=y", "/vol/status", "/dir/status", "/metrics"]
    lists += ["/api/files", "/api/s3/buckets", "/api/users", "/admin", "/stats/disk", "/ui/index.html"]
    tickets = ["/dir/assign", "/dir/assign?collection=lakehouse", f"/dir/lookup?volumeId={file_ids[0][1:2]}"]
    changes = [*private, *lists, "/lakehouse/intruder", "/buckets/lakehouse/intruder", "/lakehouse", "/submit"]
    changes += ["/buckets/lakehouse/?recursive=true", "/col/delete?collection=lakehouse", "/vol/grow?count=1"]
    can = set()
    for name in HTTP + GRPC:
        for path in private + lists + tickets:
            status, body = ask(ports[name], "GET", path)
            if MARK in body:
                can.add(f"read {name}")
            if b"private-object" in body and status == 200:
                can.add(f"list {name}")
            if status == 200 and (b'"fid"' in body or b'"locations"' in body):
                can.add(f"ticket {name}")
    for name in HTTP + GRPC:
        before = stored(s3)
        for method in ("PUT", "POST", "DELETE"):
            for path in changes:
                ask(ports[name], method, path, b"changed by a stranger")
        if stored(s3) != before:
            can.add(f"change {name}")
    can |= {f"gRPC in plain text {name}" for name in ports if speaks_http2(ports[name])}
    can |= {f"gRPC in TLS {name}" for name in ports if speaks_http2(ports[name], stranger_tls())}
    return can


def stored(s3) -> dict[str, bytes]:
    """All objects; what can't be read any more counts as changed."""
    try:
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket="lakehouse").get("Contents", [])]
        return {key: s3.get_object(Bucket="lakehouse", Key=key)["Body"].read() for key in keys}
    except ClientError as error:
        return {"error": str(error).encode()}


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def speaks_http2(port: int, tls: ssl.SSLContext | None = None) -> bool:
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            if tls:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return connection.recv(9)[3:4] == b"\x04"  # the server's SETTINGS
    except OSError:
        return False


def stranger_tls() -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.set_alpn_protocols(["h2"])
    return tls


def file_ids_of(state_dir: Path) -> list[str]:
    """The addresses, on the volume server, of all that is stored: '/volume,key+cookie'."""
    found = []
    for index in (state_dir / "s3" / "data").glob("lakehouse_*.idx"):
        volume, data = index.stem.rpartition("_")[2], index.with_suffix(".dat").read_bytes()
        for key, low, high, _ in struct.iter_unpack(">QIBi", index.read_bytes()):
            (cookie,) = struct.unpack_from(">I", data, (high << 32 | low) * 8)
            found.append(f"/{volume},{key:x}{cookie:08x}")
    return found


def open_it(monkeypatch) -> None:
    monkeypatch.setattr(embedded_s3, "_protection", dict)
    monkeypatch.setattr(embedded_s3, "_holes", lambda ports: [])
    monkeypatch.setattr(embedded_s3, "_FLAGS", tuple(set(embedded_s3._FLAGS) - {"-disableHttp"}))


# Its surroundings


def ports_of(state_dir: Path) -> dict[str, int]:
    return json.loads((state_dir / "s3" / "ports.json").read_text())


def sockets_in_tmp(state_dir: Path) -> list[Path]:
    ports = map(str, ports_of(state_dir).values())
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def storage_options(server: Server) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
    }


@contextlib.contextmanager
def listener(port: int):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield
