"""The settings of one process: where the lake is, where raw files and local state are.

Each value comes from the environment, else from `.env` in the checkout, else from the defaults below. A variable that
is set but empty counts as not set. `.env.example` lists all settings. Without LAKEHOUSE_URI the lake is on the
embedded S3 server, which starts when it is first needed.

`load` only reads. `apply_to_process` is the one function that changes the environment of this process.
"""

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from dotenv import dotenv_values

from lakehouse_utils.errors import SettingError

CHECKOUT = Path(__file__).resolve().parent.parent
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_SELECTS_IDENTITY = frozenset({"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID"})
_IDENTITY = _SELECTS_IDENTITY | {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"}


# -- one value


def s3_uri(value: str) -> str:
    """Return `value` without superfluous slashes. Raises ValueError unless it is s3://bucket or s3://bucket/prefix."""
    parts = urlsplit(value)
    is_bucket = re.fullmatch(r"[\w.-]{3,255}", parts.netloc, re.ASCII)
    if parts.scheme != "s3" or not is_bucket or parts.query or parts.fragment:
        raise ValueError("must look like s3://bucket or s3://bucket/prefix")
    return "/".join([f"s3://{parts.netloc}", *filter(None, parts.path.split("/"))])


def lake_uri(value: str) -> str:
    """Return the same as `s3_uri`, but raise ValueError for characters that the S3 libraries interpret differently.

    Some of them read `%20`, `*` or `..` as an escape, a pattern or a parent folder, others as part of the name.
    """
    ambiguous = re.search(r"[%*\[\]{}\\\x00-\x1f\x7f]|(?<=/)\.\.?(?=/|$)", value.partition("://")[2])
    if ambiguous:
        raise ValueError(f"must not contain {ambiguous[0]!r}, which libraries interpret in different ways")
    return s3_uri(value)


def redact(value: object) -> str:
    """Return a setting's value as it may be shown: quoted, and without keys or a password before the host."""
    return re.sub(r"//.*@", "//***@", repr(str(value)))


def _landing(value: str) -> str:
    return s3_uri(value) if "://" in value else str(CHECKOUT / Path(value).expanduser())


def _local_folder(value: str) -> Path:
    if "://" in value or ":/" in value[2:]:  # s3://bucket, s3:/bucket, but not C:/folder
        raise ValueError("must be a folder on this machine")
    return CHECKOUT / Path(value).expanduser()


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value or parts.query:
        raise ValueError("must look like http://host:port or https://host")
    try:
        parts.port  # noqa: B018  raises ValueError
    except ValueError:
        raise ValueError("must have a number from 0 to 65535 as its port") from None
    return value.rstrip("/")


_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_LEAST_MEMORY_BYTES = 100_000_000  # with less, DuckDB cannot even start some queries


def _memory(value: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]I?B)", value.strip().upper(), re.ASCII)
    if not match:
        raise ValueError("must be a number and a unit, such as 400MB or 2GB")
    size_bytes = int(float(match[1]) * _UNITS[match[2]])
    if size_bytes < _LEAST_MEMORY_BYTES:
        raise ValueError("must be at least 100MB")
    return size_bytes


# -- all of them


@dataclass(frozen=True)
class Settings:
    """The settings of one process; `VARIABLES` describes them.

    Credentials are not among them: boto3 finds those itself (`lake/credentials.py`).
    """

    lakehouse_uri: str | None = None
    landing: str = str(CHECKOUT / "data" / "landing")
    state_dir: Path = CHECKOUT / ".lakehouse"
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    memory_limit: int | None = None  # bytes
    # What `.env` adds to the environment, credentials included: never shown.
    env_file_variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Variable:
    """Where a setting comes from: the first of the variables `names` that is set. `parse` checks its text."""

    names: tuple[str, ...]
    parse: Callable[[str], object]
    description: str


VARIABLES: Mapping[str, Variable] = {
    "lakehouse_uri": Variable(
        ("LAKEHOUSE_URI",), lake_uri, "s3://bucket/prefix of the lake; empty: the embedded S3 server of this checkout"
    ),
    "landing": Variable(("LAKEHOUSE_LANDING",), _landing, "folder or s3://bucket/prefix of the raw files"),
    "state_dir": Variable(
        ("LAKEHOUSE_STATE_DIR",), _local_folder, "folder where the embedded server keeps its data, keys and log"
    ),
    "memory_limit": Variable(
        ("LAKEHOUSE_MEMORY_LIMIT",),
        _memory,
        "memory that the local engine's queries may use, such as 400MB; empty: half of the memory",
    ),
    "endpoint_url": Variable(
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), _endpoint, "address of an S3 server that is not AWS"
    ),
    "region": Variable(
        ("AWS_REGION", "AWS_DEFAULT_REGION"), str, "region of the bucket, for servers that do not report it"
    ),
    "ca_bundle": Variable(
        ("AWS_CA_BUNDLE",),
        Path,
        "file with the certificates to trust, for an S3 server with a private certificate authority",
    ),
}


def load(env_file: Path | None = None) -> Settings:
    """Read the settings of this process from the environment and `env_file`, by default `.env` in the checkout.

    Changes nothing: what `.env` holds for boto3 and other libraries is in `env_file_variables` of the result, for
    `apply_to_process`. The AWS identity is taken as a whole: if the environment has a profile or an access key, the
    profile and keys in `.env` are ignored.

    Raises SettingError, with the name of the setting, if a value is invalid or `.env` cannot be read.
    """
    env_file = env_file or CHECKOUT / ".env"
    environment = _environment_without_env_file()
    has_identity = any(environment.get(name) for name in _SELECTS_IDENTITY)
    from_env_file = {
        name: value
        for name, value in _read(env_file).items()
        if value and name not in environment and not (has_identity and name in _IDENTITY)
    }
    values: dict[str, Any] = {}
    for setting, variable in VARIABLES.items():
        for name in variable.names:
            if text := environment.get(name) or from_env_file.get(name):
                place = str(env_file) if name in from_env_file else "the environment"
                values[setting] = _parse(name, text, variable.parse, place)
                break
    return Settings(**values, env_file_variables=from_env_file)


def _parse(name: str, text: str, parse: Callable[[str], object], place: str) -> object:
    try:
        return parse(text)
    except ValueError as error:
        message = f"{name}={redact(text)} is invalid: it {error}. Change it in {place}."
    raise SettingError(message, setting=name)  # outside: the ValueError may quote what `redact` hides


def _read(env_file: Path) -> Mapping[str, str | None]:
    try:
        values = dotenv_values(env_file)
        if broken := [name for name, value in values.items() if "\0" in name + (value or "")]:
            name = broken[0].replace("\0", "\\0")
            raise SettingError(
                f"{env_file} is invalid: the line of {name} contains a NUL character. Rewrite that line as plain text.",
                setting=name,
            )
        return values
    except UnicodeDecodeError:  # its text quotes the file, and so perhaps a key
        raise SettingError(f"{env_file} is invalid: it is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise SettingError(f"{env_file} cannot be read: {error.strerror}. Make it readable, or remove it.") from None


# -- what the process needs besides the settings


_set_from_env_file: dict[str, str] = {}  # in os.environ; a notebook reads `.env` again after a change


_environment_lock = threading.Lock()  # the tasks of a Spark worker are threads of one process


def _environment_without_env_file() -> dict[str, str]:
    with _environment_lock:
        return {name: value for name, value in os.environ.items() if _set_from_env_file.get(name) != value}


def apply_to_process(settings: Settings, *, trust_ca_bundle: bool = False) -> None:
    """Set in this process's environment what boto3, delta-rs and DuckDB read from there.

    - The variables of `.env` that `settings` was loaded with, in place of those that an earlier call set.
    - Empty AWS variables are removed: boto3 looks for a profile named "", delta-rs for a server named "".
    - NO_PROXY gets the loopback addresses. All three libraries follow HTTP_PROXY, and none exempts the loopback.
    - With `trust_ca_bundle`, SSL_CERT_FILE gets the file of AWS_CA_BUNDLE, for delta-rs; boto3 reads AWS_CA_BUNDLE.
    """
    with _environment_lock:
        for name, value in _set_from_env_file.items():
            if os.environ.get(name) == value:
                del os.environ[name]
        _set_from_env_file.clear()
        for name, value in settings.env_file_variables.items():
            if name not in os.environ:
                os.environ[name] = _set_from_env_file[name] = value
        for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
            del os.environ[name]
        _exempt_from_proxies(_LOOPBACK_HOSTS)
        if trust_ca_bundle and settings.ca_bundle and settings.ca_bundle.is_file():
            os.environ.setdefault("SSL_CERT_FILE", str(settings.ca_bundle))


def _exempt_from_proxies(hosts: tuple[str, ...]) -> None:
    # Some libraries read one spelling, some the other; most ignore NO_PROXY if no_proxy is set.
    listed = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy"))
    exempt = dict.fromkeys(item.strip() for item in listed.split(",") if item.strip())
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = (
        "*" if "*" in exempt else ",".join({**exempt, **dict.fromkeys(hosts)})
    )


def proxy_variable(url: str) -> str | None:
    """Return the name of the variable that sends requests for `url` through a proxy; None if there is none."""
    parts, proxies = urlsplit(url), getproxies_environment()
    scheme = next((scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or proxy_bypass(parts.hostname or ""):
        return None
    return f"{scheme}_proxy".upper()
