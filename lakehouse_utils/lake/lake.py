"""One lake: the addresses of its tables, and the same credentials for delta-rs, boto3 and DuckDB.

delta-rs and DuckDB each implement only a part of the AWS credential chain, and both fill gaps from the environment.
Therefore both get everything that boto3 found, endpoint and region included, each time a table is opened.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import duckdb
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.parsers import ResponseParserError
from deltalake.exceptions import TableNotFoundError
from duckdb import DuckDBPyConnection

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import SettingError
from lakehouse_utils.interrupts import uninterrupted
from lakehouse_utils.lake import spill_folders
from lakehouse_utils.lake.compatibility import Table
from lakehouse_utils.lake.credentials import Account, Credentials, EmbeddedAccount, StorageOptions
from lakehouse_utils.lake.s3_errors import StorageLocation, translate_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_PARALLEL_LISTINGS = 8
_DELTA_TIMEOUTS = {"connect_timeout": "5s", "retry_timeout": "30s"}  # by default delta-rs retries for three minutes


class Lake:
    """Delta tables below one `s3://bucket/prefix`, on the embedded server, on AWS or on another S3 server.

    >>> lake = Lake.open()
    >>> DeltaTable(lake.uri("silver", "orders"), storage_options=lake.storage_options).to_pandas()
    >>> lake.duckdb().sql(f"FROM delta_scan('{lake.uri('silver', 'orders')}')")

    Threads may share it. Everything that sends a request raises StorageError if the request fails, except `objects`,
    which raises what boto3 raises.
    """

    def __init__(self, root: str, account: Account) -> None:
        self.root = root
        self.bucket = urlsplit(root).netloc
        self.prefix = urlsplit(root).path.strip("/")
        self._account = account

    def __repr__(self) -> str:
        return f"Lake({self.root!r} on {self.server_name})"

    @classmethod
    def open(cls, uri: str | None = None, config: settings.Settings | None = None) -> "Lake":
        """Return the lake at `uri`, else at LAKEHOUSE_URI, else on the embedded server, which starts if necessary.

        Without LAKEHOUSE_URI and AWS_ENDPOINT_URL, a `uri` in the bucket `lakehouse` is on the embedded server too.
        `config` is the settings to use, by default those of `settings.load()`; they are applied to this process.

        Raises SettingError if the address or a setting is invalid.
        """
        config = config or settings.load()
        try:
            root = settings.lake_uri(uri or config.lakehouse_uri or f"s3://{embedded_s3.BUCKET}")
        except ValueError as error:
            reason = str(error)
        else:
            return cls(root, cls._account_for(root, uri, config))
        raise SettingError(
            f"The lake's address {settings.redact(uri)} is invalid: it {reason}. Change the address (or --lake).",
            setting="--lake",
        )

    @staticmethod
    def _account_for(root: str, uri: str | None, config: settings.Settings) -> Account:
        is_embedded = (
            config.lakehouse_uri is None
            and (uri is None or config.endpoint_url is None)
            and urlsplit(root).netloc == embedded_s3.BUCKET
        )
        settings.apply_to_process(config, trust_ca_bundle=not is_embedded)
        if is_embedded:
            return EmbeddedAccount(config.state_dir)
        return Account(
            config.endpoint_url,
            config.region,
            config.ca_bundle,
            lakehouse_uri_is_set=config.lakehouse_uri is not None and uri is None,
        )

    def sibling(self, uri: str) -> "Lake":
        """Return the lake or landing folder at `uri` on the same server; the two share their credentials."""
        return Lake(uri, self._account)

    # -- addresses

    def uri(self, *names: str) -> str:
        """Return the address below the lake: `lake.uri("silver", "orders")` is `s3://bucket/prefix/silver/orders`."""
        return "/".join([self.root, *names])

    def key(self, *names: str) -> str:
        """Return the object key for the same names, which has no bucket: `prefix/silver/orders`."""
        return "/".join([*([self.prefix] if self.prefix else []), *names])

    def objects(self, prefix: str, after: str = "") -> Iterator["ObjectTypeDef"]:
        """Yield all objects whose keys begin with `prefix`, as S3 lists them: Key, Size, ETag, LastModified.

        With `after`, only those whose keys sort after it.
        """
        pages = self.s3.get_paginator("list_objects_v2")
        first: dict[str, Any] = {"StartAfter": after} if after else {}
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, **first):
            _require_listing(page)
            yield from page.get("Contents", [])

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below the key `prefix`, which is empty or ends with a slash."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        names: list[str] = []
        for page in pages:
            _require_listing(page)
            names += (entry["Prefix"][len(prefix) : -1] for entry in page.get("CommonPrefixes", []))
        return names

    def tables(self) -> list["TableRef"]:
        """Return the Delta tables of the lake that are at `<layer>/<table>`, in the order of their names.

        Folders whose names start with `_` are not searched.
        """
        with (
            translate_errors(f"list {self.root}", self),
            uninterrupted(),
            ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool,
        ):
            layers = [name for name in self.folders(self.key("")) if not name.startswith("_")]
            names = pool.map(lambda layer: self.folders(self.key(layer, "")), layers)
            refs = [
                TableRef(self, (layer, table)) for layer, tables in zip(layers, names, strict=True) for table in tables
            ]
            return [ref for ref, is_table in zip(refs, pool.map(self._has_log, refs), strict=True) if is_table]

    def _has_log(self, ref: "TableRef") -> bool:
        response = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=ref.key("_delta_log", ""), MaxKeys=1)
        _require_listing(response)
        return bool(response.get("Contents"))

    def check_access(self) -> None:
        """Raise a StorageError that names the setting to change if the lake cannot be listed."""
        with translate_errors(f"list {self.root}", self):
            self.send_listing()

    def send_listing(self) -> None:
        """Ask the server for one object of the lake. Raises what boto3 raises; `check_access` translates it."""
        response = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.key(""), MaxKeys=1)
        _require_listing(response)

    # -- the server, and the credentials for it

    @property
    def server_name(self) -> str:
        """The server as messages name it: "AWS S3", "the embedded S3 server", or its address."""
        return self._account.server_name

    @property
    def is_embedded(self) -> bool:
        """Whether the lake is on the embedded S3 server of this checkout."""
        return self._account.is_embedded

    @property
    def is_aws(self) -> bool:
        """Whether the lake is on AWS itself."""
        return self._account.is_aws

    @property
    def location(self) -> StorageLocation:
        """What an error message says about where the lake is."""
        return StorageLocation(
            server=self.server_name,
            bucket=self.bucket,
            uri=self.root,
            proxy_variable=settings.proxy_variable(self._account.known_endpoint),
            is_embedded=self.is_embedded,
            lakehouse_uri_is_set=self._account.lakehouse_uri_is_set,
            full_disk=self._account.full_disk,
        )

    @property
    def endpoint(self) -> str:
        """The server's address, also on AWS. Restarts the embedded server if it is gone."""
        return self.s3.meta.endpoint_url

    @property
    def session(self) -> boto3.Session:
        """The boto3.Session that finds and refreshes the credentials."""
        with translate_errors(f"open {self.root}", self):
            return self._account.session

    @property
    def region(self) -> str:
        """The bucket's region: what the server reports, else AWS_REGION, else that of the profile."""
        with translate_errors(f"reach {self.root}", self):
            return self._account.region_of(self.bucket)

    @property
    def s3(self) -> "S3Client":
        """A boto3 S3 client for the lake's server and region. Get it for each use: a renewal replaces it."""
        with translate_errors(f"reach {self.root}", self):
            return self._account.client(self._account.region_of(self.bucket))

    def credentials(self) -> Credentials:
        """Return the current access key, secret key and token. Raises MissingCredentialsError if there are none."""
        with translate_errors(f"open {self.root}", self):
            credentials = self._account.session.get_credentials()
            keys = credentials.get_frozen_credentials() if credentials else None
            if not keys or not keys.access_key or not keys.secret_key:
                raise NoCredentialsError
            return Credentials(keys.access_key, keys.secret_key, keys.token or "")

    def renew_credentials(self) -> bool:
        """Run the AWS credential chain again. Returns whether another attempt makes sense: False for fixed keys.

        A role may return the same credentials again while an open table holds older ones, so try again, but not
        forever.
        """
        before = self.credentials()
        self._account.reset()
        return self.credentials() != before or isinstance(self.session.get_credentials(), RefreshableCredentials)

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to open a table. Get it each time a table is opened; stored, it would expire."""
        keys, endpoint = self.credentials(), self.endpoint
        return StorageOptions(
            _DELTA_TIMEOUTS,
            AWS_ACCESS_KEY_ID=keys.access_key,
            AWS_SECRET_ACCESS_KEY=keys.secret_key,
            AWS_SESSION_TOKEN=keys.token,
            AWS_SKIP_SIGNATURE="false",
            AWS_REGION=self.region,
            AWS_ENDPOINT_URL=endpoint,
            AWS_ENDPOINT_URL_S3=endpoint,  # one in the environment would take precedence over AWS_ENDPOINT_URL
            AWS_VIRTUAL_HOSTED_STYLE_REQUEST="false",
            AWS_ALLOW_HTTP=str(endpoint.startswith("http://")).lower(),
        )

    # -- tables and connections

    def table(self, *names: str) -> "TableRef":
        """Return a reference to a table, which may not exist yet: `lake.table("silver", "orders")`."""
        return TableRef(self, names)

    def delta(self, *names: str, version: int | None = None) -> Table | None:
        """Open the Delta table at `lake.uri(*names)` with current credentials; None if it does not exist.

        The result is a DeltaTable that raises an error instead of returning wrong rows: see `compatibility.Table`.
        """
        return self.table(*names).open(version)

    def duckdb(self, **config: str | bool | float | list[str]) -> DuckDBPyConnection:
        """Return a new DuckDB connection that reads this lake, with `delta`, `httpfs` and the credentials in place.

        `config` is passed to duckdb.connect. Nothing is downloaded: the extensions come as wheels. Use
        `compatibility.check(table, "duckdb")` to find out whether DuckDB reads a table of another engine correctly.
        """
        extensions = {name: extension_file(name) for name in ("httpfs", "delta")}
        # Verifying their signatures takes 0.4 s. The installer has compared the wheels with the hashes of the lock, and
        # anyone who can change these files can change this one. Extensions that are loaded later must be signed.
        from_wheels = all(extensions.values()) and "allow_unsigned_extensions" not in config
        if from_wheels:
            config = {**config, "allow_unsigned_extensions": True}
        connection = duckdb.connect(config={"temp_directory": str(spill_folders.new()), **config})
        connection.execute("SET TimeZone = 'UTC'")
        # DuckDB draws its progress bar into files and notebooks too. In Jupyter without ipywidgets it has none, and
        # refuses the SET.
        progress_bar = connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()
        if progress_bar and progress_bar[0]:
            connection.execute("SET enable_progress_bar = false")
        for name, file in extensions.items():
            if file is None:
                connection.install_extension(name)
            connection.load_extension(str(file or name))  # INSTALL would copy a file into the home folder
        if from_wheels:
            connection.execute("SET allow_unsigned_extensions = false")
        self.authorize(connection)
        return connection

    def authorize(self, connection: DuckDBPyConnection) -> None:
        """Give `connection` the current credentials for this lake's bucket, replacing those it has."""
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
        # As parameters, since errors and logs quote the text of a statement.
        values = ", ".join(f"{name} ${name}" for name in options)
        connection.execute(f'CREATE OR REPLACE SECRET "s3://{self.bucket}" (TYPE s3, {values})', options)
        if self._account.ca_bundle:
            connection.execute("SET ca_cert_file = $1", [str(self._account.ca_bundle)])


@dataclass(frozen=True)
class TableRef:
    """A reference to a Delta table in a lake, whether the table exists or not."""

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
        """Return the key of an object in the table's folder."""
        return self.lake.key(*self.names, *names)

    def open(self, version: int | None = None) -> Table | None:
        """Open the table with current credentials; None if it does not exist. Raises StorageError."""
        with translate_errors(f"open {self.uri}", self.lake):
            try:
                return Table(self.uri, version=version, storage_options=self.lake.storage_options)
            except TableNotFoundError:
                return None


def _require_listing(answer: Mapping[str, Any]) -> None:
    """Raise ResponseParserError unless it is a listing: boto3 reads any XML or HTML page as an empty one."""
    if "Name" not in answer:
        raise ResponseParserError("The answer is not a listing.")


def extension_file(name: str) -> Path | None:
    """The file of a DuckDB extension in its wheel; None if it is not installed: there is no wheel for Intel Macs."""
    try:
        folder = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
    except ModuleNotFoundError:
        return None
    return Path(str(folder / f"{name}.duckdb_extension"))
