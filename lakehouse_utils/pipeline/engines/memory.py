"""How much memory DuckDB's queries may use: the limit in the settings, or half of what this process can have."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from lakehouse_utils import settings

_SHARE = 0.5  # Arrow and delta-rs need memory too, and other programs may run on this machine
_LEAST_BYTES = 400_000_000  # enough for any size of tables, by spilling to disk
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def query_limit_bytes() -> int:
    """The memory limit for queries: LAKEHOUSE_MEMORY_LIMIT, or else half of the memory. Raises SettingError."""
    limit = settings.load().memory_limit
    return limit if limit is not None else max(int(_SHARE * total_bytes()), _LEAST_BYTES)


def total_bytes() -> int:
    """The memory of this machine, or of the container or control group of this process if that has less."""
    return min([psutil.virtual_memory().total, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """The limits of this process's control groups and of their parents; none on systems other than Linux."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # hierarchy:controllers:/path; version 2 has no controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, file = (_CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (_CGROUPS, "memory.max")
        group = root / path.strip("/")
        for folder in (group, *group.parents):  # a container sees its own group as the root
            if folder.is_relative_to(root):
                try:
                    yield int((folder / file).read_text())
                except (OSError, ValueError):  # missing, or "max"
                    continue
