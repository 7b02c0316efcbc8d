"""The exceptions of the package. Each message is complete: what happened, where, and what to do about it.

LakehouseError
├── SettingError                  a setting or option is invalid
├── StorageError                  an S3 request failed
│   ├── ServerUnreachableError    nothing answers at the address
│   ├── NotAnS3ServerError        something answers, but not as S3 does
│   ├── CertificateError          the server's certificate is not trusted, or it does not use TLS
│   ├── ServerBusyError           the server throttles requests or keeps failing (HTTP 5xx)
│   ├── BucketNotFoundError
│   ├── WrongRegionError
│   ├── AccessDeniedError
│   └── CredentialsError
│       ├── MissingCredentialsError
│       ├── InvalidCredentialsError
│       └── ExpiredCredentialsError
├── LocalServerError              the embedded S3 server or the Spark cluster could not be started or stopped
├── DescriptionError              sources.toml is invalid, or does not fit what was built before
├── UnreadableFileError           a raw file cannot be read at all
├── MissingTableError             a table that is needed does not exist
├── ConflictError                 another writer was faster, again and again
├── IncompatibleReaderError       this reader would silently return wrong rows of this table
└── EngineError                   the Spark server could not do its work
"""


class LakehouseError(Exception):
    """A failure whose message is all that a user needs. Command lines print it without a traceback."""


class SettingError(LakehouseError):
    """A setting or option is invalid. `setting` is the name of its variable or option."""

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class StorageError(LakehouseError):
    """An S3 request failed. `server` names the server, `uri` is the address that was asked for."""

    def __init__(self, message: str, *, server: str = "", uri: str = "") -> None:
        super().__init__(message)
        self.server = server
        self.uri = uri


class ServerUnreachableError(StorageError):
    """Nothing answers at the server's address, directly or through the proxy."""


class NotAnS3ServerError(StorageError):
    """Something answers at the address, but not as an S3 server does."""


class CertificateError(StorageError):
    """The server's certificate is not trusted, or the server does not use TLS."""


class ServerBusyError(StorageError):
    """The server throttled the request, or kept failing after several retries."""


class BucketNotFoundError(StorageError):
    """The bucket does not exist."""


class WrongRegionError(StorageError):
    """The bucket is in another region."""


class AccessDeniedError(StorageError):
    """The policy of the role or user does not allow the request."""


class CredentialsError(StorageError):
    """The credentials are missing or not accepted."""


class MissingCredentialsError(CredentialsError):
    """The AWS chain found no credentials."""


class InvalidCredentialsError(CredentialsError):
    """The server does not accept the access key, the secret key or the session token."""


class ExpiredCredentialsError(CredentialsError):
    """The session token has expired. With a role, `Lake.renew_credentials()` may get a new one."""


class LocalServerError(LakehouseError):
    """The embedded S3 server or the Spark cluster could not be started or stopped."""


class DescriptionError(LakehouseError):
    """A description of source tables is invalid, or does not fit what was built before. `entry` is its TOML path."""

    def __init__(self, message: str, *, entry: str = "") -> None:
        super().__init__(message)
        self.entry = entry


class UnreadableFileError(LakehouseError):
    """A raw file cannot be read at all; the message says why."""


class MissingTableError(LakehouseError):
    """A table that is needed does not exist. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class ConflictError(LakehouseError):
    """Another writer's commit came first, again and again. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class IncompatibleReaderError(LakehouseError):
    """This reader would silently return wrong rows of this table."""

    def __init__(self, message: str, *, reader: str = "", uri: str = "") -> None:
        super().__init__(message)
        self.reader = reader
        self.uri = uri


class EngineError(LakehouseError):
    """The Spark server could not do its work, or is gone."""
