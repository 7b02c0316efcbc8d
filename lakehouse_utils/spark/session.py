"""Sessions of Spark's Connect client."""

import re
import sys
import warnings
from contextlib import suppress
from urllib.parse import urlsplit

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.spark import cluster

LACKING = (
    "The engine spark needs packages that the base install leaves out: `make run ENGINE=spark` installs them,"
    " `make lab ENGINE=spark` does and opens the notebooks, and so does `pip install -e '.[spark]'` ({})."
)
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # The rules of a table are many conditions on the same columns: Spark would combine each with each, for minutes.
    "spark.sql.constraintPropagation.enabled": "false",
}


def pyspark():
    main = sys.modules["__main__"]
    nameless = not hasattr(main, "__file__")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas, which isn't used here
            if nameless:
                main.__file__ = ""  # pyspark takes a program without a file for a test of its own
            import pyspark.sql.connect.session

            return pyspark
    except ImportError as error:
        raise LakehouseError(LACKING.format(error)) from None
    finally:
        if nameless:
            del main.__file__


def connect_error() -> type[Exception]:
    from pyspark.errors.exceptions.connect import SparkConnectException

    return SparkConnectException


def shown_address(remote: str) -> str:
    return re.sub("//.*@", "//", remote.partition("/;")[0])  # what follows may hold a token


def refuse_other_addresses(remote: str) -> None:
    parts = urlsplit(remote)
    with suppress(ValueError):  # of a port that is none
        port = parts.port is not None or not parts.netloc.endswith(":")
        if parts.scheme == "sc" and parts.hostname and port and parts.path.partition(";")[0] in ("", "/"):
            return
    raise LakehouseError(f"--spark-remote must look like sc://host:port, and {shown_address(remote)} doesn't.")


def impatient_retries() -> list:
    """For some seconds instead of Spark's ten minutes."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    return [DefaultPolicy(max_retries=4)]


def session_at(remote: str):
    """A session of Spark's client on the server at `remote`. Raises LakehouseError where none answers."""
    address = cluster.authorized(remote, settings.load().state_dir)
    session = pyspark().sql.connect.session.SparkSession.builder.remote(address).create()
    warnings.filterwarnings("ignore", re.escape("[RETRIES_EXCEEDED]"))  # an error says it
    client = session.client
    patient = client.get_retry_policies()  # right for a job at work, not for a mistyped address
    client.set_retry_policies(impatient_retries())
    try:
        for name, value in _SETTINGS.items():
            session.conf.set(name, value)
    except Exception as error:
        client.close()  # else it asks again when the program ends
        told = re.search(r'details = "([^"]+)"', str(error))  # gRPC tells much more
        said = told[1] if told else " ".join(str(error).split())[:300]
        raise LakehouseError(
            f"No Spark Connect server answers at {shown_address(remote)}: check --spark-remote ({said})."
        ) from error
    client.set_retry_policies(patient)
    return session
