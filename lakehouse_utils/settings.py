"""Where the lake is and whose credentials open it. Nothing else in the package reads the environment.

Values come, in this order, from the environment, from `.env` in the checkout, from the defaults below; an empty one
counts as none. `.env.example` lists them all. With no LAKEHOUSE_URI the lake is on the embedded S3 server
(`embedded_s3.py`), which starts when it is first needed.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lakehouse_utils.errors import LakehouseError

CHECKOUT = Path(__file__).resolve().parent.parent
_PROFILE_OR_KEYS = frozenset({"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID"})
_IDENTITY = _PROFILE_OR_KEYS | {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"}


class Settings(BaseSettings):
    """The settings of one process. Credentials are not among them: boto3 finds those by the AWS chain (`lake.py`)."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True)

    lakehouse_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("LAKEHOUSE_URI"),
        description="s3://bucket/prefix of the lake; empty: the embedded S3 server of this checkout",
    )
    landing: str = Field(
        str(CHECKOUT / "data" / "landing"),
        validation_alias=AliasChoices("LAKEHOUSE_LANDING"),
        description="folder or s3://bucket/prefix of the raw files",
    )
    state_dir: Path = Field(
        CHECKOUT / ".lakehouse",
        validation_alias=AliasChoices("LAKEHOUSE_STATE_DIR"),
        description="where the embedded server keeps its data, keys and log",
    )
    endpoint_url: str | None = Field(
        None,
        validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        description="address of an S3 that is not AWS",
    )
    region: str | None = Field(
        None,
        validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"),
        description="region of the bucket, where the bucket doesn't tell it itself",
    )
    ca_bundle: Path | None = Field(
        None,
        validation_alias=AliasChoices("AWS_CA_BUNDLE"),
        description="file of the certificates to trust, for an S3 behind a company's own authority",
    )

    @field_validator("lakehouse_uri")
    @classmethod
    def _is_s3_uri(cls, value: str | None) -> str | None:
        return None if value is None else lake_uri(value)

    @field_validator("landing")
    @classmethod
    def _is_folder_or_s3_uri(cls, value: str) -> str:
        return s3_uri(value) if "://" in value else str(CHECKOUT / Path(value).expanduser())

    @field_validator("state_dir")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        if "://" in os.fspath(value) or ":/" in os.fspath(value)[2:]:
            raise ValueError("must be a folder on this machine")
        return CHECKOUT / value.expanduser()

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value or parts.query:
            raise ValueError("must look like http://host:port or https://host")
        parts.port  # noqa: B018  raises ValueError when it is none
        return value.rstrip("/")


def s3_uri(value: str) -> str:
    """`value` without superfluous slashes; ValueError unless it is s3://bucket or s3://bucket/prefix."""
    parts = urlsplit(value)
    is_bucket = re.fullmatch(r"[\w.-]{3,255}", parts.netloc, re.ASCII)
    if parts.scheme != "s3" or not is_bucket or parts.query or parts.fragment:
        raise ValueError("must look like s3://bucket or s3://bucket/prefix")
    return "/".join([f"s3://{parts.netloc}", *filter(None, parts.path.split("/"))])


def lake_uri(value: str) -> str:
    """As `s3_uri`, and ValueError for what one library takes for a pattern or an escape, and another for itself."""
    if odd := re.search(r"[%*\[\]{}\\\x00-\x1f\x7f]|(?<=/)\.\.?(?=/|$)", value.partition("://")[2]):
        raise ValueError(f"may not hold {odd[0]!r}: the libraries that read it disagree on what that means")
    return s3_uri(value)


def presentable(value: object) -> str:
    """A setting's value as it may be shown: without keys or a password before its host."""
    return re.sub(r"//.*@", "//***@", repr(str(value)))


def variables() -> list[list[str]]:
    """The variables of each setting; the first of them that is set counts."""
    return [info.validation_alias.choices for info in Settings.model_fields.values()]


def load(env_file: Path | None = None) -> Settings:
    """The settings of this process, read anew, `.env` included.

    `.env` fills in what the environment leaves out, for boto3 too. Profile and keys count as one: those of `.env` are
    left alone where the environment has any. Raises LakehouseError that names the setting that is off.
    """
    _fill_in(env_file or CHECKOUT / ".env")
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        names = next(names for names in variables() if problem["loc"][0].upper() in names)
        name = next(name for name in names if os.environ.get(name))
        reason = problem["msg"].removeprefix("Value error, ")
        raise LakehouseError(
            f"{name}={presentable(problem['input'])} {reason}. Change it in the environment or in .env."
        ) from None


_filled_in: dict[str, str] = {}  # from an earlier `.env`: a notebook reads it again after it was changed


def _fill_in(env_file: Path) -> None:
    for name, value in _filled_in.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _filled_in.clear()
    identified = any(os.environ.get(name) for name in _PROFILE_OR_KEYS)
    for name, value in _read(env_file).items():
        if value and name not in os.environ and not (identified and name in _IDENTITY):
            os.environ[name] = _filled_in[name] = value
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        os.environ.pop(name, None)  # boto3 looks for a profile called "", delta-rs for a server


def _read(env_file: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(env_file)
    except UnicodeDecodeError:  # it holds the file's content
        raise LakehouseError(f"{env_file} is not UTF-8 text: save it as UTF-8.") from None
    except OSError as error:
        raise LakehouseError(f"{env_file} can't be read: {error.strerror}.") from None


def trust(ca_bundle: Path) -> None:
    """Let delta-rs trust the certificates that AWS_CA_BUNDLE names: boto3 alone reads that one by itself."""
    if ca_bundle.is_file():
        os.environ.setdefault("SSL_CERT_FILE", str(ca_bundle))


def proxy_variable(url: str) -> str | None:
    """The variable that sends requests for `url` through a proxy; None when they go straight there."""
    parts, proxies = urlsplit(url), getproxies_environment()
    if proxy_bypass_environment(parts.hostname or "", proxies):
        return None
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    return kind and f"{kind}_proxy".upper()


def bypass_proxy_for(host: str) -> None:
    """Let this process reach `host`, a loopback address, directly even where HTTP_PROXY is set.

    boto3, delta-rs and DuckDB all follow the proxy variables, and none of them exempts the loopback by itself.
    """
    # Some read the one spelling, some the other, and most let the small letters hide the capitals.
    listed = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy"))
    hosts = dict.fromkeys(item.strip() for item in listed.split(",") if item.strip())
    if "*" not in hosts:
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join([*hosts, *({host} - hosts.keys())])
