"""The credentials for an S3 server, and the boto3 session and clients that use them.

Credentials come from one boto3 session, which runs the AWS credential chain: keys, a profile, the role of a container
or an instance. Those of the embedded server come from the server's own folder instead.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError

from lakehouse_utils import embedded_s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A wrong address must not keep a user waiting for minutes.
_CLIENT_CONFIG = Config(
    s3={"addressing_style": "path"},  # like delta-rs and DuckDB; every S3 server supports it
    connect_timeout=3,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=64,  # 8 tables and 8 commits of each at a time; beyond the limit, a warning goes to stderr
    request_checksum_calculation="when_required",  # not all S3 servers support the newer checksums
    response_checksum_validation="when_required",
)
_CHECK_INTERVAL_S = 1.0  # the embedded server is checked at most this often


@dataclass(frozen=True)
class Credentials:
    """Keys to pass to a client, never to be shown; `token` is "" for permanent keys."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)


class StorageOptions(dict[str, str]):
    """The storage options of delta-rs: a dict whose `repr` hides the keys, since a notebook saves what it shows."""

    _HIDDEN = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})

    def __repr__(self) -> str:
        return repr({name: "***" if name in self._HIDDEN and value else value for name, value in self.items()})


class Account:
    """An S3 server and the AWS credentials for it. All lakes and landing folders on a server share one account.

    `endpoint` is None for AWS, unless the AWS configuration names an endpoint; `region` is None to use that of the AWS
    configuration. `lakehouse_uri_is_set` says whether LAKEHOUSE_URI chose this server. Threads may share an account.

    Methods raise what boto3 raises; `lake.s3_errors` translates it.
    """

    is_embedded = False

    def __init__(
        self,
        endpoint: str | None,
        region: str | None,
        ca_bundle: Path | None = None,
        *,
        lakehouse_uri_is_set: bool = False,
    ) -> None:
        self.ca_bundle = ca_bundle
        self.lakehouse_uri_is_set = lakehouse_uri_is_set
        self._endpoint = endpoint
        self._region = region
        self._session: boto3.Session | None = None
        self._clients: dict[str, S3Client] = {}  # by region
        self._regions: dict[str, str] = {}  # by bucket
        self._lock = threading.RLock()

    @property
    def is_aws(self) -> bool:
        """Whether the server is AWS itself."""
        return ".amazonaws.com" in (urlsplit(self.known_endpoint).hostname or "")

    @property
    def server_name(self) -> str:
        """The server as messages name it."""
        return "AWS S3" if self.is_aws else self.known_endpoint

    @property
    def known_endpoint(self) -> str:
        """The server's address as far as it is known without a request."""
        if self._endpoint:
            return self._endpoint
        for client in self._clients.values():  # a profile may name an endpoint too
            return client.meta.endpoint_url
        return "https://s3.amazonaws.com"

    @property
    def full_disk(self) -> str | None:
        """The folder in which the server keeps its data, if it is on this machine and its disk is full."""
        return None

    @property
    def session(self) -> boto3.Session:
        """The boto3.Session, which finds the credentials and refreshes those of a role."""
        with self._lock:
            if self._session is None:
                self._session = boto3.Session(region_name=self._region)
            return self._session

    def region_of(self, bucket: str) -> str:
        """Return the bucket's region: what the server reports, else AWS_REGION, else that of the profile."""
        with self._lock:
            if bucket not in self._regions:
                self._regions[bucket] = self._request_region(bucket)
            return self._regions[bucket]

    def _request_region(self, bucket: str) -> str:
        # boto3 and DuckDB correct a wrong region; delta-rs does not.
        region = self.session.region_name or "us-east-1"
        try:
            headers = self.client(region).head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
        except ClientError as error:  # the answer to a refused request also names the region
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        return headers.get("x-amz-bucket-region", region)

    def client(self, region: str) -> "S3Client":
        """Return the boto3 S3 client for `region`."""
        with self._lock:
            if region not in self._clients:
                client = self.session.client(
                    "s3", endpoint_url=self._endpoint, region_name=region, config=_CLIENT_CONFIG
                )
                client.meta.events.register("before-parse.s3", _require_complete_answer)
                self._clients[region] = client
            return self._clients[region]

    def reset(self) -> None:
        """Drop the session and its clients, so that the next use runs the AWS credential chain again."""
        with self._lock:
            self._session = None
            self._clients.clear()


@cache
def _service_descriptions() -> botocore.loaders.Loader:
    """The files in which botocore describes S3. Each session would read them again, which takes a tenth of a second."""
    return botocore.loaders.create_loader()


def _require_complete_answer(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:  # noqa: ANN401
    """Raise IncompleteReadError for an answer that is shorter than it should be.

    boto3 does not notice: it reads a listing of which nothing arrived as one without objects.
    """
    body, length = response_dict["body"], response_dict["headers"].get("content-length", "")
    if (
        operation_model.http["method"] != "HEAD"
        and isinstance(body, bytes)
        and length.isdigit()
        and len(body) < int(length)
    ):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=int(length))


class EmbeddedAccount(Account):
    """The embedded server, which is restarted if it is gone. AWS settings in the environment do not apply to it."""

    is_aws = False
    is_embedded = True
    server_name = "the embedded S3 server"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(None, embedded_s3.REGION)
        self._state_dir = state_dir
        self._server: embedded_s3.Server | None = None
        self._checked_at = 0.0  # when it last answered, by the monotonic clock

    @property
    def full_disk(self) -> str | None:
        """The folder in which the server keeps its data, if its disk is full."""
        return embedded_s3.full_disk(self._state_dir)

    def _ensure_server(self) -> embedded_s3.Server:
        with self._lock:
            if self._server is None or time.monotonic() - self._checked_at > _CHECK_INTERVAL_S:
                server = embedded_s3.ensure(self._state_dir)
                self._checked_at = time.monotonic()
                if server != self._server:  # the first use, or a restart, perhaps on another port
                    self.reset()
                    self._server, self._endpoint = server, server.endpoint
            return self._server

    @property
    def session(self) -> boto3.Session:
        """A boto3.Session with the server's keys, which reads neither AWS variables nor configuration files."""
        with self._lock:
            server = self._ensure_server()
            if self._session is None:
                no_files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
                core = botocore.session.Session({"profile": (None, None, None, None), **no_files})
                core.set_credentials(server.access_key, server.secret_key)
                core.register_component("data_loader", _service_descriptions())
                self._session = boto3.Session(botocore_session=core, region_name=server.region)
            return self._session

    def client(self, region: str) -> "S3Client":
        """Return the boto3 S3 client, after a check that the server runs."""
        with self._lock:
            self._ensure_server()
            return super().client(region)

    def region_of(self, bucket: str) -> str:  # noqa: ARG002  the same for all buckets
        """Return the region of the embedded server."""
        return embedded_s3.REGION
