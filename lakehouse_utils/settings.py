"""Where the lake is and whose credentials open it. Nothing else in the package reads the environment.

Values come, in this order, from the environment, from `.env` in the checkout, from the defaults below.
With no LAKEHOUSE_URI the lake is on the embedded S3 server (`embedded_s3.py`), which starts when it is first needed.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import load_dotenv
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lakehouse_utils.errors import LakehouseError

CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """The settings of one process. Credentials are not among them: boto3 finds those by the AWS chain (`lake.py`)."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True)

    lakehouse_uri: str | None = Field(None, description="s3://bucket/prefix of the lake; empty: the embedded server")
    landing: str = Field(
        str(CHECKOUT / "data" / "landing"),
        validation_alias="LAKEHOUSE_LANDING",
        description="folder or s3://bucket/prefix of the raw files",
    )
    state_dir: Path = Field(
        CHECKOUT / ".lakehouse",
        validation_alias="LAKEHOUSE_STATE_DIR",
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
        description="region of the bucket; empty: the profile's, else the bucket's own",
    )

    @field_validator("lakehouse_uri")
    @classmethod
    def _is_s3_uri(cls, value: str | None) -> str | None:
        return None if value is None else s3_uri(value)

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("must look like http://host:port or https://host")
        return value


def s3_uri(value: str) -> str:
    """`value` without trailing slashes; ValueError unless it is s3://bucket or s3://bucket/prefix."""
    parts = urlsplit(value)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must look like s3://bucket or s3://bucket/prefix")
    return value.rstrip("/")


def load(env_file: Path | None = None) -> Settings:
    """The settings of this process, read anew.

    `.env` fills in what the environment leaves out, AWS_PROFILE and the keys included, so that boto3 sees them too.
    Raises LakehouseError that names the setting that is off and where it may stand.
    """
    load_dotenv(env_file or CHECKOUT / ".env", override=False)
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        reason = problem["msg"].removeprefix("Value error, ")
        raise LakehouseError(
            f"{_variable(name)}={problem['input']!r} {reason}. Change it in the environment or in .env."
        ) from None


def _variable(name: str) -> str:
    return name if name.isupper() else name.upper()


def bypass_proxy_for(host: str) -> None:
    """Let this process reach `host`, a loopback address, directly even where HTTP_PROXY is set.

    boto3, delta-rs and DuckDB all follow the proxy variables, and none of them exempts the loopback by itself.
    """
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [item for item in os.environ.get(name, "").split(",") if item]
        if host not in hosts and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, host])
