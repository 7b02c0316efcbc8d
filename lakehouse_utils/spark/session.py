"""Sessions of the Spark Connect client."""

import re
import sys
import warnings
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lakehouse_utils import settings
from lakehouse_utils.errors import EngineError, SettingError
from lakehouse_utils.spark import cluster

if TYPE_CHECKING:
    from pyspark.sql.connect.client.retries import RetryPolicy
    from pyspark.sql.connect.session import SparkSession

MISSING_PACKAGES = (
    "The engine spark needs packages that are not in the base install ({}). Install them with `make run ENGINE=spark`, "
    "with `make lab ENGINE=spark`, which opens the notebooks, or with `pip install -e '.[spark]'`."
)
_SESSION_OPTIONS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # The rules of a table are many conditions on the same columns. Spark would spend minutes combining them.
    "spark.sql.constraintPropagation.enabled": "false",
}


def import_pyspark() -> ModuleType:
    """Import Spark's client. Raises EngineError if its package is not installed."""
    main = sys.modules["__main__"]
    has_no_file = not hasattr(main, "__file__")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about pandas, which is not used here
            if has_no_file:
                main.__file__ = ""  # otherwise pyspark assumes that it runs in one of its tests
            import pyspark.sql.connect.session

            return pyspark
    except ImportError as error:
        raise EngineError(MISSING_PACKAGES.format(error)) from None
    finally:
        if has_no_file:
            del main.__file__


def connect_error() -> type[Exception]:
    """The exception class that Spark's client raises for an error on the server."""
    from pyspark.errors.exceptions.connect import SparkConnectException

    return SparkConnectException


def redact_address(remote: str) -> str:
    """Return the address of a server as it may be shown: without a user, a password or a token."""
    return re.sub("//.*@", "//", remote.partition("/;")[0])


def check_address(remote: str) -> None:
    """Raise SettingError unless `remote` is sc://host or sc://host:port, with or without parameters."""
    parts = urlsplit(remote)
    with suppress(ValueError):  # raised for an invalid port
        has_valid_port = parts.port is not None or not parts.netloc.endswith(":")
        if parts.scheme == "sc" and parts.hostname and has_valid_port and parts.path.partition(";")[0] in ("", "/"):
            return
    raise SettingError(
        f"--spark-remote={redact_address(remote)} is invalid. It must look like sc://host:port.",
        setting="--spark-remote",
    )


def short_retry_policies() -> "list[RetryPolicy]":
    """Retry policies that give up after a few seconds, in place of Spark's ten minutes."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    return [DefaultPolicy(max_retries=4)]


def open_session(remote: str) -> "SparkSession":
    """Open a session on the Spark Connect server at `remote`, sc://host:port.

    Raises EngineError if no server answers there, or Spark's client is not installed.
    """
    address = cluster.with_token(remote, settings.load().state_dir)
    session: SparkSession = import_pyspark().sql.connect.session.SparkSession.builder.remote(address).create()
    warnings.filterwarnings("ignore", re.escape("[RETRIES_EXCEEDED]"))  # the exception has the same text
    client = session.client
    long_retry_policies = client.get_retry_policies()  # right for a running job, but not for a mistyped address
    client.set_retry_policies(short_retry_policies())
    try:
        for name, value in _SESSION_OPTIONS.items():
            session.conf.set(name, value)
    except Exception as error:
        client.close()  # otherwise it tries again when the program ends
        details = re.search(r'details = "([^"]+)"', str(error))  # the essential part of gRPC's long message
        reason = details[1] if details else " ".join(str(error).split())[:300]
        raise EngineError(
            f"No Spark Connect server answers at {redact_address(remote)} ({reason}). Check --spark-remote."
        ) from error
    client.set_retry_policies(long_retry_policies)
    return session
