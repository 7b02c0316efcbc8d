"""One lake: the addresses of its tables, and the same credentials for delta-rs, boto3 and DuckDB.

Credentials come from one boto3 session, by the AWS chain: keys, a profile, a container's or an instance's role.
delta-rs and DuckDB each know a part of that chain only, and both fill gaps from the environment. So both are told all
that boto3 found, the address and the region included, anew each time a table is opened.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import botocore.session
import duckdb
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError, NoCredentialsError
from deltalake.exceptions import TableNotFoundError
from duckdb import DuckDBPyConnection

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake.compatibility import Table
from lakehouse_utils.lake.s3_errors import translate_errors

# A wrong address must not keep a person waiting for minutes: delta-rs would try for three.
_CLIENT = Config(
    s3={"addressing_style": "path"},  # as the others do, and as every S3 takes it
    connect_timeout=3,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},
    request_checksum_calculation="when_required",  # other S3 servers don't all know the newer checksums
    response_checksum_validation="when_required",
)
_DELTA_PATIENCE = {"connect_timeout": "5s", "retry_timeout": "30s"}
_BELIEVED_ALIVE = 1.0  # seconds in which the embedded server isn't asked again


class Lake:
    """Delta tables below one `s3://bucket/prefix`, on the embedded server, on AWS or on another S3.

    >>> lake = Lake.open()
    >>> DeltaTable(lake.uri("silver", "orders"), storage_options=lake.storage_options).to_pandas()
    >>> lake.duckdb().sql(f"FROM delta_scan('{lake.uri('silver', 'orders')}')")

    Threads may share it.
    """

    def __init__(self, root: str, account: "_Account") -> None:
        self.root = root
        self.bucket = urlsplit(root).netloc
        self.prefix = urlsplit(root).path.strip("/")
        self._account = account

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
            root = settings.lake_uri(uri or config.lakehouse_uri or f"s3://{embedded_s3.BUCKET}")
        except ValueError as error:
            raise LakehouseError(f"The lake's address {settings.presentable(uri)} {error}.") from None
        embedded = (
            config.lakehouse_uri is None
            and (uri is None or config.endpoint_url is None)
            and urlsplit(root).netloc == embedded_s3.BUCKET
        )
        for host in ("localhost", "127.0.0.1", "::1"):
            settings.bypass_proxy_for(host)
        if embedded:
            return cls(root, _Embedded(config.state_dir))
        if config.ca_bundle:
            settings.trust(config.ca_bundle)
        return cls(root, _Account(config.endpoint_url, config.region, config.ca_bundle))

    def sibling(self, uri: str) -> "Lake":
        """The place `uri` on this lake's server, with this lake's credentials; renewed for one, they are for both."""
        return Lake(uri, self._account)

    def uri(self, *names: str) -> str:
        """The address below the lake: `lake.uri("silver", "orders")` is `s3://bucket/prefix/silver/orders`."""
        return "/".join([self.root, *names])

    def key(self, *names: str) -> str:
        """The same place as S3 calls it, without the bucket: `prefix/silver/orders`."""
        return "/".join([*([self.prefix] if self.prefix else []), *names])

    def objects(self, prefix: str) -> Iterator[dict]:
        """All objects whose keys begin with `prefix`, as S3 lists them: Key, Size, ETag, LastModified."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from page.get("Contents", [])

    def check_access(self) -> None:
        """Raise LakehouseError, in one sentence that names the setting to change, unless the lake can be listed."""
        with translate_errors(f"list {self.root}", self):
            answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.key(""), MaxKeys=1)
        if "Name" not in answer:  # boto3 takes any page for an empty listing
            raise LakehouseError(f"Could not list {self.root}. {self.server_name} is no S3: check AWS_ENDPOINT_URL.")

    # -- who serves it, and with whose credentials

    @property
    def server_name(self) -> str:
        """The server as a person would call it."""
        return self._account.name

    @property
    def proxy_variable(self) -> str | None:
        """The environment variable that puts a proxy between here and the server; None when there is none."""
        return settings.proxy_variable(self._account.address)

    @property
    def endpoint(self) -> str:
        """The server's address, AWS's too. The embedded server is started again here if it is gone."""
        return self.s3.meta.endpoint_url

    @property
    def session(self) -> boto3.Session:
        """The one boto3 session, which finds and renews the credentials."""
        with translate_errors(f"open {self.root}", self):
            return self._account.session

    @property
    def region(self) -> str:
        """The bucket's region: what it says of itself, else AWS_REGION, else the profile's."""
        with translate_errors(f"reach {self.root}", self):
            return self._account.region(self.bucket)

    @property
    def s3(self):
        """A boto3 S3 client for this lake's server and region. Fresh at each use: after a renewal it is another."""
        with translate_errors(f"reach {self.root}", self):
            return self._account.client(self._account.region(self.bucket))

    def credentials(self) -> "Credentials":
        """access_key, secret_key and token of this moment. LakehouseError when the chain finds none."""
        with translate_errors(f"open {self.root}", self):
            found = self._account.session.get_credentials()
            if found is None:
                raise NoCredentialsError
            keys = found.get_frozen_credentials()
            return Credentials(keys.access_key, keys.secret_key, keys.token or "")

    def renew_credentials(self) -> bool:
        """Ask the AWS chain again; whether to try again with what it gives: False where the keys are fixed ones.

        A role may give the same once more, and yet a table opened before held older ones: so try, but not for ever.
        """
        before = self.credentials()
        self._account.forget()
        return self.credentials() != before or isinstance(self.session.get_credentials(), RefreshableCredentials)

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to open a table. Fresh at each use: take it where a table is opened, keep it nowhere."""
        keys, endpoint = self.credentials(), self.endpoint
        return _StorageOptions(
            _DELTA_PATIENCE,
            AWS_ACCESS_KEY_ID=keys.access_key,
            AWS_SECRET_ACCESS_KEY=keys.secret_key,
            AWS_SESSION_TOKEN=keys.token,
            AWS_SKIP_SIGNATURE="false",
            AWS_REGION=self.region,
            AWS_ENDPOINT_URL=endpoint,
            AWS_ENDPOINT_URL_S3=endpoint,  # from the environment, it would go before the other
            AWS_VIRTUAL_HOSTED_STYLE_REQUEST="false",
            AWS_ALLOW_HTTP=str(endpoint.startswith("http://")).lower(),
        )

    # -- ways in

    def table(self, *names: str) -> "TableRef":
        """The place of a table, which may not exist yet: `lake.table("silver", "orders")`."""
        return TableRef(self, names)

    def delta(self, *names: str, version: int | None = None) -> Table | None:
        """The Delta table at `lake.uri(*names)`, opened with fresh credentials; None when there is none yet.

        A DeltaTable that refuses to return wrong rows: see `compatibility.Table`.
        """
        with translate_errors(f"open {self.uri(*names)}", self):
            try:
                return Table(self.uri(*names), version=version, storage_options=self.storage_options)
            except TableNotFoundError:
                return None

    def duckdb(self, **config) -> DuckDBPyConnection:
        """A new DuckDB connection that reads this lake: `delta`, `httpfs` and the credentials are in place.

        `config` goes to duckdb.connect. Nothing is downloaded: the extensions come as wheels. Whether DuckDB reads a
        table of another engine correctly, `compatibility.check(table, "duckdb")` tells.
        """
        connection = duckdb.connect(config={"temp_directory": tempfile.gettempdir(), **config})
        connection.execute("SET TimeZone = 'UTC'")
        # The bar would be drawn into files and notebooks, too. Jupyter without ipywidgets has none and refuses SET.
        if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()[0]:
            connection.execute("SET enable_progress_bar = false")
        for extension in ("httpfs", "delta"):
            _load_extension(connection, extension)
        self.authorize(connection)
        return connection

    def authorize(self, connection: DuckDBPyConnection) -> None:
        """Give `connection` the credentials of this moment for this lake's bucket, in place of those it has."""
        keys, endpoint = self.credentials(), self.endpoint
        options = {
            "SCOPE": f"s3://{self.bucket}",
            "KEY_ID": keys.access_key,
            "SECRET": keys.secret_key,
            "SESSION_TOKEN": keys.token,
            "REGION": self.region,
            "ENDPOINT": endpoint.partition("://")[2],
            "URL_STYLE": "path",
            "USE_SSL": str(endpoint.startswith("https://")).lower(),
        }
        # Parameters, not text: a statement is shown in errors and logs.
        values = ", ".join(f"{name} ${name}" for name in options)
        connection.execute(f'CREATE OR REPLACE SECRET "s3://{self.bucket}" (TYPE s3, {values})', options)
        if self._account.ca_bundle:
            connection.execute("SET ca_cert_file = $1", [str(self._account.ca_bundle)])


@dataclass(frozen=True)
class TableRef:
    """The place of a Delta table in a lake, whether it exists or not."""

    lake: Lake
    names: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The address of the table's folder."""
        return self.lake.uri(*self.names)

    @property
    def label(self) -> str:
        """The table's name in messages and reports: `silver.orders`."""
        return ".".join(self.names)

    def key(self, *names: str) -> str:
        """The key of an object below the table's folder."""
        return self.lake.key(*self.names, *names)

    def open(self, version: int | None = None) -> Table | None:
        """The table, opened with fresh credentials; None where there is none yet."""
        return self.lake.delta(*self.names, version=version)


@dataclass(frozen=True)
class Credentials:
    """Keys to hand on, never to be shown; `token` is "" for permanent ones."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)


class _StorageOptions(dict):
    """A notebook shows, and saves, the value of a cell's last line: not this one's keys."""

    _HIDDEN = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})

    def __repr__(self) -> str:
        return repr({name: "***" if name in self._HIDDEN and value else value for name, value in self.items()})


class _Account:
    """An S3 and the credentials for it: what lakes and landings on one server share."""

    def __init__(self, endpoint: str | None, region: str | None, ca_bundle: Path | None = None) -> None:
        self.ca_bundle = ca_bundle
        self._endpoint = endpoint
        self._region = region
        self._session: boto3.Session | None = None
        self._clients: dict[str, object] = {}  # by region
        self._regions: dict[str, str] = {}  # by bucket
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        return "AWS S3" if ".amazonaws.com" in self.address else self.address

    @property
    def address(self) -> str:
        """Where it is, as far as that is known: a profile may name an endpoint too."""
        return self._endpoint or next((c.meta.endpoint_url for c in self._clients.values()), "https://s3.amazonaws.com")

    @property
    def session(self) -> boto3.Session:
        with self._lock:
            if self._session is None:
                self._session = boto3.Session(region_name=self._region)
            return self._session

    def region(self, bucket: str) -> str:
        with self._lock:
            if bucket not in self._regions:
                self._regions[bucket] = self._ask_for_region(bucket)
            return self._regions[bucket]

    def _ask_for_region(self, bucket: str) -> str:
        # boto3 and DuckDB find out by themselves when they have the wrong one; delta-rs doesn't.
        region = self.session.region_name or "us-east-1"
        try:
            answer = self.client(region).head_bucket(Bucket=bucket)
        except ClientError as error:  # a refusal names the region as well
            answer = error.response
        return answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)

    def client(self, region: str):
        with self._lock:
            if region not in self._clients:
                self._clients[region] = self.session.client(
                    "s3", endpoint_url=self._endpoint, region_name=region, config=_CLIENT
                )
            return self._clients[region]

    def forget(self) -> None:
        """Let the AWS chain be asked again."""
        with self._lock:
            self._session = None
            self._clients.clear()


class _Embedded(_Account):
    """The embedded server, started again when it is gone, whatever the environment says of AWS."""

    name = "the embedded S3 server"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(None, embedded_s3.REGION)
        self._state_dir = state_dir
        self._server: embedded_s3.Server | None = None
        self._seen = 0.0  # when it last answered, by the monotonic clock

    def _bring_up(self) -> embedded_s3.Server:
        with self._lock:
            if self._server is None or time.monotonic() - self._seen > _BELIEVED_ALIVE:
                server = embedded_s3.ensure(self._state_dir)
                self._seen = time.monotonic()
                if server != self._server:  # the first use, or it came back on another port
                    self.forget()
                    self._server, self._endpoint = server, server.endpoint
            return self._server

    @property
    def session(self) -> boto3.Session:
        with self._lock:
            server = self._bring_up()
            if self._session is None:
                nowhere = {name: (None, None, os.devnull, None) for name in ("config_file", "credentials_file")}
                core = botocore.session.Session({"profile": (None, None, None, None), **nowhere})
                core.set_credentials(server.access_key, server.secret_key)
                self._session = boto3.Session(botocore_session=core, region_name=server.region)
            return self._session

    def client(self, region: str):
        with self._lock:
            self._bring_up()
            return super().client(region)

    def _ask_for_region(self, bucket: str) -> str:
        return self._region


def _load_extension(connection: DuckDBPyConnection, name: str) -> None:
    try:
        folder = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
    except ModuleNotFoundError:  # an Intel Mac has no such wheels
        connection.install_extension(name)
        connection.load_extension(name)
    else:
        # Loaded where it lies; INSTALL would copy it into the home folder.
        connection.load_extension(str(folder / f"{name}.duckdb_extension"))
