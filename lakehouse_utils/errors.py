"""The exceptions of the package. Each message is complete: what happened, where, and what to do about it.

LakehouseError
├── SettingError                  a setting or option is invalid
├── StorageError                  an S3 request failed
│   ├── ServerUnreachableError    nothing answers at the server's address
│   ├── NotAnS3ServerError        something answers, but it is not an S3 server
│   ├── CertificateError          the server's certificate is not trusted, or the server does not use TLS
│   ├── ServerBusyError           the server throttles requests or keeps failing (HTTP 5xx)
│   ├── IncompleteAnswerError     the server's answers end before they are complete
│   ├── KeyTooLongError           the key of an object is longer than S3 allows
│   ├── StorageFullError          the server's disk is full, or a quota is used up
│   ├── GoneError                 an object of a table no longer exists
│   ├── BucketNotFoundError       the bucket does not exist
│   ├── WrongRegionError          the bucket is in another region
│   ├── ClockSkewError            this machine's clock is wrong
│   ├── AccessDeniedError         a policy does not allow the request
│   └── CredentialsError          the credentials are missing or not accepted
│       ├── AwsConfigurationError      AWS_PROFILE or the AWS configuration file is invalid
│       ├── MissingCredentialsError    no credentials were found, or their source did not provide any
│       ├── InvalidCredentialsError    the server does not accept a key or the session token
│       └── ExpiredCredentialsError    the session token has expired
├── MachineError                  a disk of this machine is full or broken, or memory or file handles ran out
├── LocalServerError              the embedded S3 server or the Spark cluster could not be started or stopped
├── DescriptionError              sources.toml is invalid, or does not match the tables built so far
├── UnreadableFileError           a raw file cannot be read at all
├── MissingTableError             a required table does not exist
├── ConflictError                 other writers committed first in every attempt
├── DamagedTableError             the log or a data file of a table is damaged
├── MemoryLimitError              a table needs more memory than the engine may use
├── FailedTablesError             several tables could not be brought up to date
├── IncompatibleReaderError       a reader would silently return wrong rows of a table
└── EngineError                   the Spark server failed or is gone
    └── LostAnswerError               the Spark server cannot say whether a query succeeded

The texts of storage errors are in `lakehouse_utils/lake/s3_errors.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any


class LakehouseError(Exception):
    """A failure whose message is all that a user needs. Command lines print it without a traceback."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Exception's own calls the class with the message alone, and would fail on required fields.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(error_class: type[LakehouseError], args: tuple[Any, ...], fields: Mapping[str, Any]) -> LakehouseError:
    error = error_class.__new__(error_class, *args)
    error.__dict__.update(fields)
    return error


class SettingError(LakehouseError):
    """A setting or option is invalid. `setting` is the name of its variable or option."""

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class StorageError(LakehouseError):
    """An S3 request failed.

    `server` is the server's name or address, `uri` the s3:// address of the lake or landing folder. `code` is the S3
    error code or the HTTP status in the answer, such as "SlowDown" or "503"; None if there was no such answer.
    """

    def __init__(self, message: str, *, server: str, uri: str, code: str | None = None) -> None:
        super().__init__(message)
        self.server = server
        self.uri = uri
        self.code = code


class ServerUnreachableError(StorageError):
    """Nothing answers at the server's address, directly or through the proxy."""


class NotAnS3ServerError(StorageError):
    """Something answers at the address, but not as an S3 server does."""


class CertificateError(StorageError):
    """The server's certificate is not trusted, or the server does not use TLS."""


class ServerBusyError(StorageError):
    """The server throttled the request, or kept failing after several retries."""


class IncompleteAnswerError(StorageError):
    """The server ended an answer before it was complete."""


class KeyTooLongError(StorageError):
    """The key of an object is longer than S3 allows."""


class StorageFullError(StorageError):
    """The server cannot store more data: its disk is full, or a quota is used up."""


class GoneError(StorageError):
    """An object of a table no longer exists, although the table's log or a listing named it."""


class BucketNotFoundError(StorageError):
    """The bucket does not exist."""


class WrongRegionError(StorageError):
    """The bucket is in another region."""


class ClockSkewError(StorageError):
    """The server rejected a request because this machine's clock is wrong."""


class AccessDeniedError(StorageError):
    """The policy of the role or user does not allow the request."""


class CredentialsError(StorageError):
    """The credentials are missing or not accepted."""


class AwsConfigurationError(CredentialsError):
    """AWS_PROFILE names a profile that does not exist, or the AWS configuration file is invalid."""


class MissingCredentialsError(CredentialsError):
    """The AWS chain found no credentials, found only half of a pair, or their source did not provide any."""


class InvalidCredentialsError(CredentialsError):
    """The server does not accept the access key, the secret key or the session token."""


class ExpiredCredentialsError(CredentialsError):
    """The session token has expired. With a role, `Lake.renew_credentials()` may get a new one."""


class MachineError(LakehouseError):
    """A disk of this machine is full or broken, or its memory or file handles ran out, so the work cannot go on.

    `code` is the operating system's name for the problem, such as "ENOSPC".
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class LocalServerError(LakehouseError):
    """The embedded S3 server or the Spark cluster could not be started or stopped."""


class DescriptionError(LakehouseError):
    """A description of source tables is invalid, or does not match the tables built so far.

    `entry` is the path of the entry in the TOML file.
    """

    def __init__(self, message: str, *, entry: str = "") -> None:
        super().__init__(message)
        self.entry = entry


class UnreadableFileError(LakehouseError):
    """A raw file cannot be read at all; the message says why."""


class MissingTableError(LakehouseError):
    """A required table does not exist. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class ConflictError(LakehouseError):
    """Other writers committed first in every attempt. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class DamagedTableError(LakehouseError):
    """The log or a data file of a table is damaged, so the table cannot be read. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class MemoryLimitError(LakehouseError):
    """A table needs more memory than the engine may use. `table` is `<layer>.<name>`."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class FailedTablesError(LakehouseError):
    """Several tables could not be brought up to date. `tables` are their labels, `<layer>.<name>`."""

    def __init__(self, message: str, *, tables: list[str]) -> None:
        super().__init__(message)
        self.tables = tables


class IncompatibleReaderError(LakehouseError):
    """A reader would silently return wrong rows of a table. `reader` is its name, `uri` the table's address."""

    def __init__(self, message: str, *, reader: str = "", uri: str = "") -> None:
        super().__init__(message)
        self.reader = reader
        self.uri = uri


class EngineError(LakehouseError):
    """The Spark server failed or is gone."""


class LostAnswerError(EngineError):
    """The Spark server cannot say whether a query succeeded: the connection broke before the answer arrived."""
