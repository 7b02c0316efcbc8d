"""The memory that queries may use: a share of the machine or of the container, or what the settings say."""

import psutil
import pytest

from lakehouse_utils.pipeline.engines import memory
from lakehouse_utils.pipeline.engines.local import LocalEngine

MB = 1_000_000


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 8 GB, whose control groups are files that a test writes; `groups` is /proc/self/cgroup."""
    monkeypatch.delenv("LAKEHOUSE_MEMORY_LIMIT", raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 8_000 * MB}))
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")

    def limits(groups: str, **files: int | str) -> None:
        (tmp_path / "own").write_text(groups)
        for name, limit in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_", ".", 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{limit}\n")

    return limits


def test_without_control_groups_half_of_the_machine_is_used(machine):
    """On macOS, on Windows and without limits, it is half of the machine's memory."""
    assert memory.query_limit_bytes() == 4_000 * MB
    machine("0::/job\n", job__memory_max="max")
    assert memory.query_limit_bytes() == 4_000 * MB


def test_the_smallest_limit_of_the_control_groups_counts(machine):
    """In version 2, the limits of the own group and of those above it apply; a container sees its own as the root."""
    machine("0::/pod/job\n", pod__job__memory_max="max", pod__memory_max=2_000 * MB)
    assert memory.query_limit_bytes() == 1_000 * MB
    machine("0::/\n", memory_max=1_000 * MB)
    assert memory.query_limit_bytes() == 500 * MB


def test_version_1_of_control_groups_is_understood(machine, tmp_path):
    """In version 1, the memory controller has its own folder, and no limit is a very large number."""
    machine("5:cpu,cpuacct:/job\n4:memory:/docker/job\n")
    folder = tmp_path / "cgroup" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("1600000000\n")
    assert memory.query_limit_bytes() == 800 * MB
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.query_limit_bytes() == 4_000 * MB


def test_a_small_container_gets_what_spilling_needs(machine):
    """Below 400 MB, queries on large tables fail instead of spilling."""
    machine("0::/\n", memory_max=512 * MB)
    assert memory.query_limit_bytes() == 400 * MB


def test_the_setting_takes_precedence(machine, monkeypatch, lake):
    """LAKEHOUSE_MEMORY_LIMIT is the limit of DuckDB's queries."""
    monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", "512MiB")
    with LocalEngine(lake) as engine:
        assert engine.query("SELECT current_setting('memory_limit')") == [("512.0 MiB",)]
