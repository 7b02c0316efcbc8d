"""What the local servers share: a private folder, ports, and processes that are started, found and stopped."""

import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from support.s3_servers import listener

from lakehouse_utils import processes
from lakehouse_utils.errors import LocalServerError
from lakehouse_utils.processes import PortTakenError, StateFolder

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, modes and sessions")
SLEEP = "import time; print(flush=True); time.sleep(600)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def folder(tmp_path):
    """The folder of a server that does not exist."""
    state = StateFolder(tmp_path / "server", "The test server", advice="Use another server.")
    with state.locked("data", timeout_s=10):
        state.rotate_log()
    before = len(processes._started)
    yield state
    # Only what the test has spawned: a mistake in the search for processes must not end those of others.
    for process in processes._started[before:]:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    candidates = (port for port in processes.sample_ports(range(18_000, 28_000)) if processes.is_free(port))
    return list(itertools.islice(candidates, count))


def start(folder: StateFolder, code: str) -> psutil.Process:
    """Start a Python program as a server in `folder`, and wait until it has printed its first line."""
    process = processes.spawn([sys.executable, "-c", code], folder, "out.log", dict(os.environ))
    assert processes.wait_until(lambda: bool((folder.log_path / "out.log").read_text()), timeout_s=60)
    return psutil.Process(process.pid)


# The folder


def test_lock_creates_private_folders(folder):
    """The folders exist while the lock is held, and only their owner can enter."""
    assert (folder.path / "data").is_dir()
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.log_path.stat().st_mode) == 0o700
        folder.path.chmod(0o755)
        with folder.locked(timeout_s=10):
            assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_lock_held_by_another_process_is_reported(folder):
    """When the lock does not become free in time, the message names the folder and what to do."""
    with (
        FileLock(folder.path / "lock"),
        pytest.raises(LocalServerError, match=rf"^The test server in {folder.path} is being started or stopped by ano"),
        folder.locked(timeout_s=0.1),
    ):
        pass


def test_unusable_folder_is_reported(tmp_path):
    """A folder that cannot be created is named, together with the setting that chooses another one."""
    (tmp_path / "file").touch()
    folder = StateFolder(tmp_path / "file" / "server", "The test server", advice="")
    with (
        pytest.raises(LocalServerError, match=rf"cannot use its folder {folder.path}: .*LAKEHOUSE_STATE_DIR"),
        folder.locked(timeout_s=10),
    ):
        pass


def test_errors_of_the_work_under_the_lock_pass_through(folder):
    """An error other than OSError leaves the locked block as it is, and frees the lock."""
    with pytest.raises(ZeroDivisionError), folder.locked(timeout_s=10):
        raise ZeroDivisionError
    with folder.locked(timeout_s=10):
        pass


def test_written_file_is_private_and_replaced(folder):
    """A file is replaced in one step, readable by its owner only, and nothing else is left."""
    before = set(folder.path.iterdir())
    folder.write_json("keys.json", {"a": 1})
    (folder.path / "keys.json").chmod(0o644)
    (folder.path / "keys.json.new").write_text("left by a program that was killed")
    folder.write_json("keys.json", {"a": 2})
    assert folder.read_json("keys.json") == {"a": 2}
    assert set(folder.path.iterdir()) - before == {folder.path / "keys.json"}
    if sys.platform != "win32":
        assert stat.S_IMODE((folder.path / "keys.json").stat().st_mode) == 0o600


def test_missing_or_invalid_file_reads_as_none(folder):
    """A record that does not exist or was damaged counts as no record."""
    assert folder.read_json("pid") is None
    folder.write_text("pid", "{")
    assert folder.read_json("pid") is None
    (folder.path / "pid").write_bytes(b"\xff")
    assert folder.read_json("pid") is None


def test_log_of_the_previous_start_is_kept(folder):
    """A new log folder is empty; the one before is in log.old, older ones are gone."""
    for number in range(3):
        (folder.log_path / f"{number}.log").touch()
        folder.rotate_log()
    assert list(folder.log_path.iterdir()) == []
    assert [path.name for path in (folder.path / "log.old").iterdir()] == ["2.log"]


# Ports


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        pytest.param(
            socket.AF_INET6, "::1", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
        ),
    ],
)
def test_port_in_use_on_any_address_is_not_free(family, host):
    """A port on which another program listens is not free, whatever the address, and is free afterwards."""
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        assert not processes.is_free(port)
    assert processes.is_free(port)


def test_listening_addresses_are_those_of_the_process():
    """Only listening sockets of the process are reported, and an ended process has none."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert server.getsockname() in processes.listening_addresses(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert processes.listening_addresses(ended.pid) == set()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_mapped_addresses_are_reported_as_ipv4():
    """A socket of IPv6 that listens on an IPv4 address, as Java's do, is reported with that address."""
    with socket.create_server(("::ffff:127.0.0.1", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        assert ("127.0.0.1", server.getsockname()[1]) in processes.listening_addresses(os.getpid())


def test_unexpected_address_is_refused(folder):
    """A server that listens elsewhere is refused with the addresses in the message; an empty set is accepted."""
    processes.refuse_addresses(folder, set())
    with pytest.raises(
        LocalServerError, match=r"^The test server was stopped .* addresses: 0\.0\.0\.0:1, 10\.0\.0\.1:2\."
    ):
        processes.refuse_addresses(folder, {("10.0.0.1", 2), ("0.0.0.0", 1)})


def test_last_ports_are_used_again_if_free(folder, monkeypatch):
    """A server starts on its last ports; when one of them is taken, it starts on new ones, which are recorded."""
    monkeypatch.setattr(processes, "RELEASE_TIMEOUT_S", 0.1)
    last, new = free_ports(2)
    folder.write_json("ports.json", {"http": last})

    def start_on_free_ports() -> int:
        return processes.start_on_free_ports(folder, lambda: {"http": new}, lambda ports: ports["http"], list)

    assert start_on_free_ports() == last
    with listener(last):
        assert start_on_free_ports() == new
    assert folder.read_json("ports.json") == {"http": new}


def test_ports_that_are_taken_at_the_start_are_replaced(folder):
    """After PortTakenError the server is stopped, and started on other ports, for a limited number of times."""
    stops: list[None] = []
    tried: list[int] = []

    def start_on(ports: dict[str, int]) -> str:
        tried.append(ports["http"])
        if len(tried) < 3:
            raise PortTakenError
        return "started"

    choices = iter(range(1, 100))

    def choose() -> dict[str, int]:
        return {"http": next(choices)}

    assert processes.start_on_free_ports(folder, choose, start_on, lambda: stops.append(None)) == "started"
    assert (tried, len(stops)) == ([1, 2, 3], 2)

    def never(ports: dict[str, int]) -> str:
        raise PortTakenError

    (folder.path / "ports.json").unlink()
    with pytest.raises(LocalServerError, match=r"^The test server could not be started: too few ports are free on 127"):
        processes.start_on_free_ports(folder, choose, never, lambda: stops.append(None))
    (folder.path / "ports.json").unlink()
    with pytest.raises(LocalServerError, match="too few ports are free"):
        processes.start_on_free_ports(folder, lambda: None, start_on, lambda: stops.append(None))


@pytest.mark.parametrize("error", [LocalServerError("failed"), KeyboardInterrupt()])
def test_failed_start_is_stopped(folder, error):
    """When a start fails or is interrupted, the server is stopped, and the error passes through."""
    stops: list[None] = []

    def fail(ports: dict[str, int]) -> None:
        raise error

    with pytest.raises(type(error)):
        processes.start_on_free_ports(folder, lambda: {"http": 1}, fail, lambda: stops.append(None))
    assert len(stops) == 1


# Processes


def test_spawned_process_runs_detached_in_the_folder(folder):
    """It runs in the folder with the given environment only, and its output is in the log."""
    code = f"import os; print(os.getcwd(), sorted(set(os.environ) - {{'LC_CTYPE'}}), flush=True); {SLEEP}"
    process = processes.spawn([sys.executable, "-c", code], folder, "out.log", {"ONLY": "this", **system_variables()})
    log = folder.log_path / "out.log"
    assert processes.wait_until(lambda: log.read_text().count("\n") == 2, timeout_s=60)
    assert log.read_text().startswith(f"{folder.path} {sorted(['ONLY', *system_variables()])}")
    assert folder.contains(psutil.Process(process.pid))
    if sys.platform != "win32":
        assert os.getsid(process.pid) == process.pid  # no signal of this terminal reaches it


def system_variables() -> dict[str, str]:
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}


@posix_only
def test_spawned_process_creates_private_files_and_inherits_files(folder):
    """Files that it creates are readable by their owner only; of this program's files it has only the given ones."""
    with two_open_files(folder) as (given, other):
        code = f"import os; open('created', 'w'); print(os.fstat({given}).st_ino, flush=True); os.fstat({other})"
        process = processes.spawn(
            [sys.executable, "-c", code], folder, "out.log", dict(os.environ), inherited_files=(given,)
        )
        assert process.wait(60) == 1
        log = (folder.log_path / "out.log").read_text()
        assert log.startswith(f"{os.fstat(given).st_ino}\n")
        assert "Bad file descriptor" in log
    assert stat.S_IMODE((folder.path / "created").stat().st_mode) == 0o600


@contextmanager
def two_open_files(folder: StateFolder):
    """The descriptors of two open files."""
    with (folder.path / "given").open("ab") as given, (folder.path / "other").open("ab") as other:
        yield given.fileno(), other.fileno()


def test_program_that_cannot_be_run_is_reported(folder):
    """The message names the program and ends with the server's advice."""
    with pytest.raises(
        LocalServerError, match=r"^The test server could not be started: .*missing .* Use another server"
    ):
        processes.spawn([str(folder.path / "missing")], folder, "out.log", {})


def test_only_processes_in_the_folder_are_contained(folder, tmp_path):
    """A process in the folder or below it belongs to the folder; one beside it or one that has ended does not."""
    ours = start(folder, SLEEP)
    assert folder.contains(ours)
    assert StateFolder(tmp_path, "", "").contains(ours)
    assert not StateFolder(tmp_path / "serve", "", "").contains(ours)
    assert not folder.contains(psutil.Process())
    assert processes.find_processes(folder.contains) == [ours]
    processes.stop_processes(lambda: [ours], timeout_s=60)
    assert not folder.contains(ours)


@posix_only
@pytest.mark.parametrize(("code", "exit_signal"), [(SLEEP, signal.SIGTERM), (IGNORE_SIGTERM, signal.SIGKILL)])
def test_process_is_asked_to_end_and_then_killed(folder, code, exit_signal):
    """A process is asked to end; one that ignores it is killed. It is reaped, and returned."""
    process = start(folder, code)
    timeout_s = 60 if exit_signal == signal.SIGTERM else 0.2
    assert processes.stop_processes(lambda: [process], timeout_s) == [process]
    assert processes.has_ended(process)
    assert not psutil.pid_exists(process.pid)
    child = processes._started[-1]  # not the first one with this pid: the system uses them again
    assert (child.pid, child.returncode) == (process.pid, -exit_signal)


def test_process_that_appears_during_the_stop_is_killed(folder):
    """A process that was just starting when the others were asked to end is stopped as well."""
    first, late = start(folder, SLEEP), start(folder, SLEEP)
    found = iter([[first], [late]])
    stopped = processes.stop_processes(lambda: next(found), timeout_s=60)
    assert set(stopped) == {first, late}
    assert processes.has_ended(first)
    assert processes.has_ended(late)


def test_nothing_to_stop_returns_nothing():
    """Stopping without processes returns at once with an empty list."""
    assert processes.stop_processes(list, timeout_s=60) == []


# The log


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("", "  (nothing)"),
        ("usage\nmore\n", "  usage\n  more"),
        ("\n".join(f"line {number}" for number in range(9)), "\n".join(f"  line {number}" for number in range(6))),
        ("start\nERROR a\nERROR a\nnote\nERROR b  \nend\n", "  ERROR a\n  ERROR b"),
        ("\n".join(f"ERROR {number}" for number in range(9)), "\n".join(f"  ERROR {number}" for number in range(3, 9))),
        ("ERROR " + "x" * 500, "  ERROR " + "x" * 294),
    ],
)
def test_log_excerpt_shows_problems_first(tmp_path: Path, text: str, excerpt: str):
    """The excerpt has the last six different problems, else the first six lines, each cut to 300 characters."""
    path = tmp_path / "out.log"
    path.write_text(text)
    assert processes.log_excerpt([path], r"^ERROR") == excerpt
