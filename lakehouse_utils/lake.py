"""One lake: the addresses of its tables, and the same credentials for delta-rs, boto3 and DuckDB.

Credentials come from one boto3 session, by the AWS chain: keys, a profile, a container's or an instance's role.
delta-rs and DuckDB each know a part of that chain only, so both get what boto3 found, taken anew each time a table
is opened; boto3 itself renews a role's credentials before they end.
"""

import tempfile
import threading
import time
from copy import copy
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import botocore.session
import duckdb
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, NoCredentialsError
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from duckdb import DuckDBPyConnection

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import LakehouseError, explained

# Standard mode tries five times; a wrong address must not keep a person waiting for a minute each time.
_CLIENT = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},
    request_checksum_calculation="when_required",  # other S3 servers don't all know the newer checksums
    response_checksum_validation="when_required",
)
_BELIEVED_ALIVE = 1.0  # seconds in which the embedded server isn't asked again


class Lake:
    """Delta tables below one `s3://bucket/prefix`, on the embedded server, on AWS or on another S3.

    >>> lake = Lake.open()
    >>> DeltaTable(lake.uri("silver", "orders"), storage_options=lake.storage_options).to_pandas()
    >>> lake.duckdb().sql(f"FROM delta_scan('{lake.uri('silver', 'orders')}')")
    """

    def __init__(self, root: str, *, endpoint: str | None, region: str | None, state_dir: Path | None) -> None:
        self.root = root
        self.bucket = urlsplit(root).netloc
        self.prefix = urlsplit(root).path.strip("/")
        self._endpoint = endpoint
        self._region = region
        self._state_dir = state_dir  # of the embedded server; None: somebody else's S3
        self._server: embedded_s3.Server | None = None
        self._session: boto3.Session | None = None
        self._client = None
        self._seen = 0.0  # when the embedded server last answered, by the monotonic clock
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Lake({self.root!r} on {self.server_name})"

    @classmethod
    def open(cls, uri: str | None = None, config: settings.Settings | None = None) -> "Lake":
        """The lake at `uri`, else at LAKEHOUSE_URI, else on the embedded server, which is started if need be.

        Without LAKEHOUSE_URI and AWS_ENDPOINT_URL, a `uri` in the bucket `lakehouse` is on the embedded server too.
        Raises LakehouseError where the address, the server or the platform won't do.
        """
        config = config or settings.load()
        try:
            root = settings.s3_uri(uri or config.lakehouse_uri or f"s3://{embedded_s3.BUCKET}")
        except ValueError as error:
            raise LakehouseError(f"The lake's address {uri!r} {error}.") from None
        embedded = (
            config.lakehouse_uri is None
            and (uri is None or config.endpoint_url is None)
            and urlsplit(root).netloc == embedded_s3.BUCKET
        )
        lake = cls(
            root,
            endpoint=None if embedded else config.endpoint_url,
            region=config.region,
            state_dir=config.state_dir if embedded else None,
        )
        host = urlsplit(lake.endpoint or "").hostname
        if host in ("localhost", "127.0.0.1", "::1"):
            settings.bypass_proxy_for(host)
        return lake

    def sibling(self, uri: str) -> "Lake":
        """The place `uri` on this lake's server, with this lake's credentials."""
        other = copy(self)
        other.root, other.bucket, other.prefix = uri, urlsplit(uri).netloc, urlsplit(uri).path.strip("/")
        return other

    def uri(self, *names: str) -> str:
        """The address below the lake: `lake.uri("silver", "orders")` is `s3://bucket/prefix/silver/orders`."""
        return "/".join([self.root, *names])

    def key(self, *names: str) -> str:
        """The same place as S3 calls it, without the bucket: `prefix/silver/orders`."""
        return "/".join([*([self.prefix] if self.prefix else []), *names])

    # -- who serves it, and with whose credentials

    @property
    def server_name(self) -> str:
        """The server as a person would call it."""
        return "the embedded S3 server" if self._state_dir else self._endpoint or "AWS S3"

    @property
    def endpoint(self) -> str | None:
        """The server's address; None on AWS. The embedded server is started again here if it is gone."""
        if self._state_dir is None:
            return self._endpoint
        if self._server and time.monotonic() - self._seen < _BELIEVED_ALIVE:
            return self._server.endpoint
        server = embedded_s3.ensure(self._state_dir)
        self._seen = time.monotonic()
        if server != self._server:  # the first use, or it came back on another port
            self._server = server
            self._session = self._client = None
        return server.endpoint

    @property
    def session(self) -> boto3.Session:
        """The one boto3 session, which finds and renews the credentials."""
        self.endpoint  # noqa: B018  brings the embedded server up, and forgets a session with another
        with self._lock:
            if self._session is None:
                self._session = self._new_session()
        return self._session

    def _new_session(self) -> boto3.Session:
        if self._server:
            # A profile meant for AWS must not reach the embedded server.
            core = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
            core.set_credentials(self._server.access_key, self._server.secret_key)
            return boto3.Session(botocore_session=core, region_name=self._server.region)
        with explained(f"open {self.server_name}", self):
            return boto3.Session(region_name=self._region)

    @cached_property
    def region(self) -> str:
        """AWS_REGION, else the profile's, else what the bucket says of itself."""
        if self.session.region_name or self.endpoint:
            return self.session.region_name or "us-east-1"
        with explained(f"find the region of {self.bucket}", self):
            probe = self.session.client("s3", region_name="us-east-1", config=_CLIENT)
            try:
                answer = probe.head_bucket(Bucket=self.bucket)
            except ClientError as error:  # a refusal names the region as well
                answer = error.response
        return answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "us-east-1")

    @property
    def s3(self):
        """A boto3 S3 client for this lake's server."""
        session, endpoint, region = self.session, self.endpoint, self.region
        with self._lock:
            if self._client is None:
                style = Config(s3={"addressing_style": "path"}) if endpoint else Config()
                self._client = session.client(
                    "s3", endpoint_url=endpoint, region_name=region, config=_CLIENT.merge(style)
                )
            return self._client

    def credentials(self) -> ReadOnlyCredentials:
        """access_key, secret_key and token of this moment. LakehouseError when the chain finds none."""
        with explained("get credentials", self):
            found = self.session.get_credentials()
            if found is None:
                raise NoCredentialsError
            return found.get_frozen_credentials()

    def renew_credentials(self) -> bool:
        """Ask the AWS chain again; False when it has nothing newer than before, as with fixed keys."""
        before = self.credentials()
        self._session = self._client = None
        return self.credentials() != before

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to open a table. Fresh at each use: take it where a table is opened, keep it nowhere."""
        endpoint, keys = self.endpoint, self.credentials()
        options = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token or "",  # said even when empty: delta-rs fills gaps from the environment
            "AWS_SKIP_SIGNATURE": "false",
            "AWS_REGION": self.region,
        }
        if endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false"
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        return options

    # -- ways in

    def delta(self, *names: str, version: int | None = None) -> DeltaTable | None:
        """The Delta table at `lake.uri(*names)`, opened with fresh credentials; None when there is none yet."""
        try:
            return DeltaTable(self.uri(*names), version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None

    def duckdb(self, **config) -> DuckDBPyConnection:
        """A DuckDB connection of its own that reads this lake: `delta`, `httpfs` and the credentials are in place.

        `config` goes to duckdb.connect. Nothing is downloaded: the extensions come as wheels.
        """
        connection = duckdb.connect(config={"temp_directory": tempfile.gettempdir(), **config})
        connection.execute("SET TimeZone = 'UTC'")
        for extension in ("httpfs", "delta"):
            _load_extension(connection, extension)
        self.authorize(connection)
        return connection

    def authorize(self, connection: DuckDBPyConnection) -> None:
        """Give `connection` the credentials of this moment, in place of those it has."""
        endpoint = self.endpoint
        keys = self.credentials()
        options = {"KEY_ID": keys.access_key, "SECRET": keys.secret_key, "REGION": self.region}
        options["SCOPE"] = f"s3://{self.bucket}"
        if keys.token:
            options["SESSION_TOKEN"] = keys.token
        if endpoint:
            options |= {"ENDPOINT": urlsplit(endpoint).netloc, "URL_STYLE": "path"}
            options["USE_SSL"] = str(endpoint.startswith("https://")).lower()
        values = ", ".join(f"{name} {_quoted(value)}" for name, value in options.items())
        connection.execute(f"CREATE OR REPLACE SECRET lake (TYPE s3, {values})")

    def check(self) -> None:
        """Raise LakehouseError, in one sentence that names the setting to change, unless the lake can be listed."""
        with explained(f"list {self.root}", self):
            self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)


def _load_extension(connection: DuckDBPyConnection, name: str) -> None:
    try:
        folder = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
    except ModuleNotFoundError:  # an Intel Mac has no such wheels
        connection.install_extension(name)
        connection.load_extension(name)
    else:
        # Loaded where it lies; INSTALL would copy it into the home folder.
        connection.load_extension(str(folder / f"{name}.duckdb_extension"))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
