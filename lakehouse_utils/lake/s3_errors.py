"""Translates errors of the S3 clients (boto3, delta-rs, DuckDB) into the exceptions of this package.

`translate_errors` is the entry point. It works in three steps:

1. Recognize the problem, with one function per library. boto3's errors have types and codes; delta-rs and DuckDB offer
   only a message, which is searched.
2. Diagnose a refusal without a reason: the answer to a HEAD request has no body. To get the reason, one listing is
   sent, whose answer has a body.
3. Build the exception. Its class and its text are in the table of problems below.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import duckdb
from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError as TransferRetriesExceededError
from urllib3 import exceptions as urllib3_errors

from lakehouse_utils import machine_errors
from lakehouse_utils.errors import (
    AccessDeniedError,
    AwsConfigurationError,
    BucketNotFoundError,
    CertificateError,
    ClockSkewError,
    DamagedTableError,
    ExpiredCredentialsError,
    GoneError,
    IncompleteAnswerError,
    InvalidCredentialsError,
    KeyTooLongError,
    LakehouseError,
    MissingCredentialsError,
    NotAnS3ServerError,
    ServerBusyError,
    ServerUnreachableError,
    StorageError,
    StorageFullError,
    WrongRegionError,
)
from lakehouse_utils.lake.credentials import Credentials
from lakehouse_utils.lake.damage import damaged_table, describe_damage


@dataclass(frozen=True)
class StorageLocation:
    """What a message says about the server and the lake that a request was for."""

    server: str  # its name or address
    bucket: str
    uri: str  # s3://bucket/prefix
    proxy_variable: str | None  # the variable that sends requests through a proxy, if any
    is_embedded: bool  # then advice about AWS_ENDPOINT_URL would be wrong
    lakehouse_uri_is_set: bool  # else advice to unset it would be wrong
    full_disk: str | None = None  # the folder of the embedded server, if its disk is full


class S3Access(Protocol):
    """The part of a Lake that the translation uses."""

    @property
    def location(self) -> StorageLocation:
        """The server and the lake that requests are for."""

    def send_listing(self) -> None:
        """Send one small request whose answer has a body. Raises what boto3 raises."""

    def credentials(self) -> Credentials:
        """Return the current credentials."""


@contextmanager
def translate_errors(action: str, lake: S3Access, *, objects_must_exist: bool = False) -> Iterator[None]:
    """Raise the matching StorageError in place of what an S3 client raises inside the `with` block.

    `action` completes the sentence "Could not ...". An error that is not recognized is raised unchanged, except that
    keys are removed from its message: delta-rs and DuckDB quote answers that repeat the access key and session token.
    With `objects_must_exist`, an object that is not found is an error too.

    Raises a subclass of StorageError, for example ExpiredCredentialsError, DamagedTableError for a damaged table, and
    MachineError for a problem of this machine, such as a full disk.
    """
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            _hide_keys(cause)
        if machine_error := machine_errors.recognize(error, action):
            raise machine_error from error
        for cause in causes:
            symptom = _recognize(cause)
            if isinstance(symptom, _Refusal):
                symptom = _diagnose_refusal(symptom, lake)
            if symptom:
                raise _exception(symptom, action, lake.location, cause) from error
        for cause in causes:
            if objects_must_exist and (code := _code_of_missing_object(cause)):
                raise _exception(_Symptom(_GONE, code), action, lake.location, cause) from error
            if damage := describe_damage(cause):
                raise _damaged_table(damage, action, cause) from error
        raise


def _damaged_table(damage: str, action: str, cause: BaseException) -> DamagedTableError:
    label = ".".join(damaged_table(str(cause), action) or ())
    rebuild = f", or rebuild the table with `--rebuild {label}`" if label else ""
    return DamagedTableError(
        f"Could not {action}: {label or 'the table'} is damaged: {damage}. Restore the missing or damaged objects"
        f" from a backup or an earlier object version{rebuild}.",
        table=label,
    )


# -- the problems: classes and texts


@dataclass(frozen=True)
class _Problem:
    """A kind of failure: its exception, what a message says happened, and what it advises."""

    error: type[StorageError]
    happened: str
    advice: str


_EXPIRED = _Problem(
    ExpiredCredentialsError,
    "the temporary credentials have expired",
    "Get new ones with `aws sso login`, or renew AWS_SESSION_TOKEN together with its two keys, and start again;"
    " finished work is kept.",
)
_INVALID_ACCESS_KEY = _Problem(
    InvalidCredentialsError,
    "{server} does not recognize the access key",
    "Check AWS_ACCESS_KEY_ID (or AWS_PROFILE), that AWS_SESSION_TOKEN is set if the key is a temporary one, and that"
    " the key is for the server in AWS_ENDPOINT_URL.",
)
_INVALID_SECRET_KEY = _Problem(
    InvalidCredentialsError,
    "{server} rejected the secret key",
    "Check that AWS_SECRET_ACCESS_KEY belongs to AWS_ACCESS_KEY_ID.",
)
_INVALID_TOKEN = _Problem(
    InvalidCredentialsError,
    "{server} rejected the session token",
    "Check AWS_SESSION_TOKEN, or unset it if the keys are permanent ones.",
)
_NO_CREDENTIALS = _Problem(
    MissingCredentialsError,
    "no AWS credentials were found for {uri}",
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment or in .env, or run where a"
    " role provides them.",
)
_HALF_OF_THE_KEYS = _Problem(
    MissingCredentialsError,
    "one of the two AWS keys is missing ({detail})",
    "Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
)
_NO_ANSWER_FROM_CREDENTIALS_SOURCE = _Problem(
    MissingCredentialsError,
    "getting AWS credentials failed ({detail})",
    "Check the setting they come from: AWS_PROFILE, AWS_CONTAINER_CREDENTIALS_FULL_URI or"
    " AWS_CONTAINER_CREDENTIALS_RELATIVE_URI.",
)
_UNKNOWN_PROFILE = _Problem(
    AwsConfigurationError,
    "AWS_PROFILE names a profile that is not in the AWS configuration ({detail})",
    "Change or unset AWS_PROFILE.",
)
_INVALID_CONFIGURATION = _Problem(
    AwsConfigurationError,
    "the AWS configuration is invalid ({detail})",
    "Fix the file, or set AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE or AWS_PROFILE to another file or profile.",
)
_DENIED = _Problem(
    AccessDeniedError,
    "{server} denied access to {uri}",
    "The policy of the role or user must allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and"
    " s3:DeleteObject below the prefix. Check the policy, LAKEHOUSE_URI and AWS_PROFILE.",
)
_NO_BUCKET = _Problem(
    BucketNotFoundError,
    "the bucket {bucket!r} does not exist on {server}",
    "Create it, or change LAKEHOUSE_URI (or --lake).",
)
_WRONG_REGION = _Problem(
    WrongRegionError,
    "the bucket {bucket!r} is in another region",
    "Set AWS_REGION to the bucket's region, and AWS_ENDPOINT_URL, if it is set, to an endpoint in that region.",
)
_CLOCK_SKEW = _Problem(
    ClockSkewError,
    "{server} rejected the request because its clock and this machine's clock differ",
    "Set this machine's clock.",
)
_BUSY = _Problem(
    ServerBusyError,
    "{server} kept failing (HTTP 5xx or throttling) after several retries",
    "Start again later; finished work is kept.",
)
_FULL = _Problem(
    StorageFullError,
    "{server} cannot store more data: its disk is full, or a quota is used up",
    "Free some space on the server, and start again; finished work is kept.",
)
_FULL_EMBEDDED = _Problem(
    StorageFullError,
    "the disk with {full_disk}, where {server} keeps its data, is full",
    "Free some space, or set LAKEHOUSE_STATE_DIR to a folder on another disk. Then start again; finished work is kept.",
)
_INCOMPLETE = _Problem(
    IncompleteAnswerError,
    "{server} kept sending incomplete answers after several retries",
    "Check the network, and any proxy in between. Then start again; finished work is kept.",
)
_GONE = _Problem(
    GoneError,
    "an object of a table no longer exists ({detail})",
    "Start again. If the error comes back, someone deleted the object, or a vacuum with a short retention removed it"
    " while it was in use: restore it, or rebuild the table with `--rebuild LAYER.TABLE`.",
)
_KEY_TOO_LONG = _Problem(
    KeyTooLongError,
    "the key of an object would be longer than {server} allows (1,024 bytes)",
    "Use a shorter prefix in LAKEHOUSE_URI (or --lake), or shorter names of tables and batches.",
)
_UNREACHABLE = _Problem(
    ServerUnreachableError,
    "{server} cannot be reached",
    "Check the network and AWS_ENDPOINT_URL (for AWS itself, leave it unset).",
)
_UNREACHABLE_BY_PROXY = _Problem(
    ServerUnreachableError,
    "{server} cannot be reached through the proxy",
    "Change {proxy_variable}, or add the server's host to NO_PROXY.",
)
_UNREACHABLE_EMBEDDED = _Problem(
    ServerUnreachableError,
    "{server} cannot be reached",
    "Run the command again, which starts the server.",
)
_NOT_S3 = _Problem(
    NotAnS3ServerError,
    "{server} does not answer like an S3 server",
    "Check AWS_ENDPOINT_URL.",
)
_UNTRUSTED = _Problem(
    CertificateError,
    "the certificate of {server} is not trusted, or the server does not use TLS",
    "Check http or https in AWS_ENDPOINT_URL, and the certificate files in AWS_CA_BUNDLE and, if it is set,"
    " SSL_CERT_FILE.",
)
_USE_EMBEDDED_SERVER = " To use the embedded server instead, remove LAKEHOUSE_URI from the environment and .env."


@dataclass(frozen=True)
class _Symptom:
    """A recognized problem, with the S3 error code or HTTP status that showed it, if one did."""

    problem: _Problem
    code: str | None = None


@dataclass(frozen=True)
class _Refusal:
    """An HTTP status 400, 403 or 404 without its reason.

    `otherwise` is the problem if a diagnosis finds nothing better.
    """

    code: str
    otherwise: _Problem | None = None


def _exception(symptom: _Symptom, action: str, location: StorageLocation, cause: BaseException) -> StorageError:
    problem = symptom.problem
    if problem is _UNREACHABLE and location.is_embedded:
        problem = _UNREACHABLE_EMBEDDED
    elif problem is _UNREACHABLE and location.proxy_variable:
        problem = _UNREACHABLE_BY_PROXY
    elif problem in (_BUSY, _FULL) and location.full_disk:
        problem = _FULL_EMBEDDED
    advice = problem.advice
    if problem is _NO_CREDENTIALS and location.lakehouse_uri_is_set:
        advice += _USE_EMBEDDED_SERVER
    text = f"{problem.happened}. {advice}".format(
        server=location.server,
        bucket=location.bucket,
        uri=location.uri,
        proxy_variable=location.proxy_variable,
        full_disk=location.full_disk,
        detail=str(cause).strip().split("\n")[0][:300].rstrip("."),
    )
    return problem.error(f"Could not {action}: {text}", server=location.server, uri=location.uri, code=symptom.code)


# -- recognize: S3's codes, then one function per library

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# The answer to a HEAD request has no body, so its status is the only code.
_BY_CODE = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": _INVALID_ACCESS_KEY,
    "InvalidClientTokenId": _INVALID_ACCESS_KEY,
    "SignatureDoesNotMatch": _INVALID_SECRET_KEY,
    "InvalidToken": _INVALID_TOKEN,
    "NoSuchBucket": _NO_BUCKET,
    "PermanentRedirect": _WRONG_REGION,
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "301": _WRONG_REGION,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "RequestTimeTooSkewed": _CLOCK_SKEW,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    "500": _BUSY,
    "502": _BUSY,
    "503": _BUSY,
    "504": _BUSY,
    "RequestTimeout": _BUSY,
    "RequestTimeoutException": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TooManyRequests": _BUSY,
    "OperationAborted": _BUSY,
    "408": _BUSY,
    "429": _BUSY,
    "507": _FULL,
    "InsufficientStorage": _FULL,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "KeyTooLongError": _KEY_TOO_LONG,
    "407": _UNREACHABLE,
}
_REFUSALS = {"400": None, "403": _DENIED}


def _recognize(error: BaseException) -> _Symptom | _Refusal | None:
    return _recognize_boto3(error) or _recognize_duckdb(error) or _recognize_object_store(error)


def _recognize_code(code: str, otherwise: _Problem | None = None) -> _Symptom | _Refusal | None:
    """Return what an S3 error code or an HTTP status means; for another one, the problem `otherwise`, if any."""
    if code in _REFUSALS:
        return _Refusal(code, _REFUSALS[code] or otherwise)
    problem = _BY_CODE.get(code, otherwise)
    return _Symptom(problem, code) if problem else None


_BY_BOTOCORE_CLASS: dict[type, _Problem] = {
    botocore_errors.ProfileNotFound: _UNKNOWN_PROFILE,
    botocore_errors.NoCredentialsError: _NO_CREDENTIALS,
    botocore_errors.PartialCredentialsError: _HALF_OF_THE_KEYS,
    botocore_errors.ConfigParseError: _INVALID_CONFIGURATION,
    botocore_errors.InvalidConfigError: _INVALID_CONFIGURATION,
    botocore_errors.InfiniteLoopConfigError: _INVALID_CONFIGURATION,
    botocore_errors.UnknownCredentialError: _INVALID_CONFIGURATION,
    botocore_errors.CredentialRetrievalError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.MetadataRetrievalError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.UnauthorizedSSOTokenError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.SSOTokenLoadError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.SSOError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.TokenRetrievalError: _NO_ANSWER_FROM_CREDENTIALS_SOURCE,
    botocore_errors.EndpointConnectionError: _UNREACHABLE,
    botocore_errors.ConnectTimeoutError: _UNREACHABLE,
    botocore_errors.ConnectionClosedError: _UNREACHABLE,
    botocore_errors.ReadTimeoutError: _UNREACHABLE,
    botocore_errors.ProxyConnectionError: _UNREACHABLE,
    botocore_errors.HTTPClientError: _UNREACHABLE,
    botocore_errors.ResponseStreamingError: _INCOMPLETE,
    botocore_errors.IncompleteReadError: _INCOMPLETE,
    botocore_errors.SSLError: _UNTRUSTED,
    ResponseParserError: _NOT_S3,
}
_CREDENTIALS_OPERATIONS = ("AssumeRole", "GetRoleCredentials")
# botocore raises a ValueError and a RuntimeError here.
_CREDENTIALS_MESSAGES = re.compile(
    r"\AUnsupported host .*Can only retrieve metadata from|\ACredentials were refreshed, but"
)
_CUT_OFF_XML = re.compile(r"no element found|unclosed token|unclosed CDATA")


def _recognize_boto3(error: BaseException) -> _Symptom | _Refusal | None:
    if isinstance(error, Boto3Error) and error.__context__:  # S3UploadFailedError quotes the ClientError
        error = error.__context__
    if isinstance(error, ResponseParserError) and _CUT_OFF_XML.search(str(error)):
        return _Symptom(_INCOMPLETE)
    if isinstance(error, urllib3_errors.ProtocolError):  # while boto3 reads the body of an answer
        return _Symptom(_INCOMPLETE)
    if isinstance(
        error, RetriesExceededError | TransferRetriesExceededError
    ):  # S3's transfer of a file, after several cut-off answers
        return _Symptom(_INCOMPLETE)
    if isinstance(error, BotoCoreError | ResponseParserError):
        classes = (base for base in type(error).__mro__ if base in _BY_BOTOCORE_CLASS)
        return next((_Symptom(_BY_BOTOCORE_CLASS[base]) for base in classes), None)
    if isinstance(error, ClientError):
        if error.operation_name.startswith(_CREDENTIALS_OPERATIONS):
            return _Symptom(_NO_ANSWER_FROM_CREDENTIALS_SOURCE)
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("404", "405") and not error.operation_name.startswith("Head"):  # S3 sends a name in the body
            return _Symptom(_NOT_S3, code)
        return _recognize_code(code) if code else _Symptom(_NOT_S3)
    if isinstance(error, ValueError | RuntimeError) and _CREDENTIALS_MESSAGES.search(str(error)):
        return _Symptom(_NO_ANSWER_FROM_CREDENTIALS_SOURCE)
    return None


# Rust's crate object_store, in delta-rs, in DuckDB's delta_scan and in Sail.
_OBJECT_STORE = re.compile(r"Generic S3 error|Error performing [A-Z]+ http|Error interacting with object store")
_OBJECT_STORE_CODE = r"<Error>\s*<Code>(?P<code>\w+)</Code>"
_OBJECT_STORE_STATUS = r"non-2xx status code\W+(?:31m\W+0m\W+)?(?P<status>\d+)\b"


def _recognize_object_store(error: BaseException) -> _Symptom | _Refusal | None:
    message = str(error)
    if not _OBJECT_STORE.search(message):
        return None
    return _search(message, _OBJECT_STORE_CODE, _OBJECT_STORE_STATUS)


_MISSING_OBJECT = re.compile(r"Object at location \S+ not found|\(HTTP 404[^)]*\)|Request returned HTTP 404 for")


def _code_of_missing_object(error: BaseException) -> str | None:
    """The code of an answer that an object does not exist; None if the error is of another kind."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        return code if code in ("NoSuchKey", "404") else None
    return "NoSuchKey" if _MISSING_OBJECT.search(str(error)) else None


_DUCKDB_CODE = r"\(HTTP \d+[^)]*\)\s+(?P<code>\w+): "
_DUCKDB_STATUS = r"\(HTTP (?P<status>\d+)[^)]*\)|Request returned HTTP (?P<kernel_status>\d+) for"


def _recognize_duckdb(error: BaseException) -> _Symptom | _Refusal | None:
    if not isinstance(error, duckdb.IOException):  # HTTPException is one
        return None
    message = str(error)
    if _OBJECT_STORE.search(message):
        return None
    return _search(message, _DUCKDB_CODE, _DUCKDB_STATUS)


# What delta-rs and DuckDB say if there was no S3 error code; the first match wins.
_PHRASES = {
    re.compile(r"Received redirect without LOCATION"): _WRONG_REGION,
    re.compile(r"certificate|SSL|TLS|InvalidContentType"): _UNTRUSTED,
    re.compile(
        r"response body error|list response body|error reading a body|error decoding response body|IncompleteMessage"
        r"|end of file before message length|Failed to read connection|partial file|content.length mismatch",
        re.IGNORECASE,
    ): _INCOMPLETE,
    re.compile(
        r"error sending request|tcp connect error|Could not connect to server|Could not resolve|Timeout was reached"
        r"|operation timed out|connection closed before|Server returned nothing"
    ): _UNREACHABLE,
    re.compile(r"<!DOCTYPE|<html|ETag Header missing|GET error.*\(HTTP 405[^)]*\)\Z"): _NOT_S3,
}
_NOT_FOUND_BY_DUCKDB = re.compile(r"GET error.*\(HTTP 404[^)]*\)\Z")  # from S3, or from a server of another kind
_NAMES = re.compile(r"\w+://\S+|'[^']*'|\"[^\"]*\"|[^\s<]*\w/\S*")  # of tables and files: they may contain any word


def _search(message: str, code_pattern: str, status_pattern: str) -> _Symptom | _Refusal | None:
    if code := re.search(code_pattern, message):
        return _recognize_code(code[1])
    without_names = _NAMES.sub("", message)
    if _NOT_FOUND_BY_DUCKDB.search(without_names):
        return _Refusal("404", _GONE)
    by_phrase = next((problem for phrase, problem in _PHRASES.items() if phrase.search(without_names)), None)
    if status := re.search(status_pattern, message):
        return _recognize_code(status[status.lastindex or 0], by_phrase)
    return _Symptom(by_phrase) if by_phrase else None


# -- diagnose


def _diagnose_refusal(refusal: _Refusal, lake: S3Access) -> _Symptom | None:
    """Ask the server why it refused a request: a listing that is refused too says so in its answer's body.

    Sends one request. If that succeeds, the credentials have been renewed since the refused request was sent.
    """
    try:
        lake.send_listing()
    except (BotoCoreError, ResponseParserError, ClientError, ValueError, RuntimeError) as error:
        symptom = _recognize_boto3(error)
        if not isinstance(symptom, _Refusal):
            return symptom
    if refusal.code == "400" and lake.credentials().token:
        return _Symptom(_EXPIRED, refusal.code)
    return _Symptom(refusal.otherwise, refusal.code) if refusal.otherwise else None


# -- messages of other libraries

_KEYS = re.compile(
    r"(?s)(<(?:Token-\d|AWSAccessKeyId|StringToSign\w*|CanonicalRequest\w*|SignatureProvided)>).*?(?=</|\Z)"
    r"|(?<=Invalid Access Key: \")[^\"]*"
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _hide_keys(error: BaseException) -> None:
    if _KEYS.search(str(error)):
        error.args = tuple(_KEYS.sub(r"\1***", part) if isinstance(part, str) else part for part in error.args)
