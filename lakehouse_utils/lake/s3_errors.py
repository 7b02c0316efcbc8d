"""Errors of the S3 clients (boto3, delta-rs, DuckDB) as exceptions of this package: one sentence that names the setting to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from lakehouse_utils.errors import ExpiredCredentialsError, LakehouseError

if TYPE_CHECKING:
    from lakehouse_utils.lake.lake import Lake


_EXPIRED = (
    "The temporary credentials have expired: renew AWS_SESSION_TOKEN with its two keys (`aws sso login`, or your role's"
    " issuer), and start again; what is finished stays."
)
_DENIED = (
    "{where} refuses these credentials for {root}: the policy of the role or user must allow s3:ListBucket on the"
    " bucket and s3:GetObject, s3:PutObject, s3:DeleteObject below the prefix (LAKEHOUSE_URI, AWS_PROFILE)."
)
_ELSEWHERE = (
    "The bucket {bucket!r} is in another region: set AWS_REGION to the bucket's region (and AWS_ENDPOINT_URL, if set,"
    " to an address there)."
)
_BUSY = "{where} has trouble of its own, and had it again and again: start again later; what is finished stays."
_UNREACHABLE = "{where} can't be reached: check the network and AWS_ENDPOINT_URL (unset it for AWS itself)."
_BEHIND_PROXY = "{where} can't be reached through the proxy: change {proxy}, or add the server's host to NO_PROXY."
_NO_S3 = "{where} doesn't answer as an S3 does: check AWS_ENDPOINT_URL."
_UNTRUSTED = (
    "{where} shows a certificate that isn't trusted, or speaks no TLS: check http or https in AWS_ENDPOINT_URL, and the"
    " files of certificates in AWS_CA_BUNDLE and, if set, SSL_CERT_FILE."
)
_NO_CREDENTIALS = (
    "No AWS credentials were found for {root}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the"
    " environment or in .env, or run where a role gives them. Unset LAKEHOUSE_URI to use the embedded server."
)
_NO_ANSWER = (
    "The AWS credentials could not be had: check AWS_PROFILE, AWS_CONTAINER_CREDENTIALS_FULL_URI or"
    " AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, whichever gives them here ({text})."
)

# S3's error codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# An answer to HEAD has no body, and so no code but its status.
_CODES = {
    "ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId InvalidClientTokenId": "{where} doesn't know this access key: check AWS_ACCESS_KEY_ID (or"
    " AWS_PROFILE), that AWS_SESSION_TOKEN is there if it belongs to it, and that the keys are for the server in"
    " AWS_ENDPOINT_URL.",
    "SignatureDoesNotMatch": "{where} refuses the secret key: AWS_SECRET_ACCESS_KEY doesn't belong to this"
    " AWS_ACCESS_KEY_ID.",
    "InvalidToken": "{where} refuses the session token: check AWS_SESSION_TOKEN, or unset it for keys without one.",
    "NoSuchBucket": "The bucket {bucket!r} doesn't exist on {where}: create it, or change LAKEHOUSE_URI (or --lake).",
    "PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301": _ELSEWHERE,
    "AccessDenied AllAccessDisabled 403": _DENIED,
    "RequestTimeTooSkewed": "{where} refuses requests signed at another time than its own: set this machine's clock.",
    "SlowDown ServiceUnavailable InternalError 500 502 503 504": _BUSY,
    "407": _UNREACHABLE,
}
_BY_CODE = {code: sentence for codes, sentence in _CODES.items() for code in codes.split()}
_CODE = re.compile(
    r"\((\w+)\) when calling the"  # boto3
    r"|<Error>\s*<Code>(\w+)</Code>"  # delta-rs and delta_scan
    r"|\(HTTP \d+[^)]*\)\s+(\w+): "  # DuckDB
)
_STATUS = re.compile(
    r"\(HTTP (\d+)[^)]*\)|Request returned HTTP (\d+) for|non-2xx status code\W+(?:31m\W+0m\W+)?(\d+)\b"
)

_BOTO3 = {
    "ProfileNotFound": "AWS_PROFILE names a profile that isn't in your AWS configuration: change or unset AWS_PROFILE"
    " ({text}).",
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": "Of the AWS keys one half is missing: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong"
    " together ({text}).",
    "ConfigParseError InvalidConfigError InfiniteLoopConfigError UnknownCredentialError": "Your AWS configuration is no"
    " good: mend the file, or set AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE or AWS_PROFILE to another ({text}).",
    "CredentialRetrievalError MetadataRetrievalError UnauthorizedSSOTokenError SSOTokenLoadError SSOError"
    " TokenRetrievalError": _NO_ANSWER,
    "EndpointConnectionError ConnectTimeoutError ConnectionClosedError ReadTimeoutError ProxyConnectionError"
    " HTTPClientError": _UNREACHABLE,
    "SSLError": _UNTRUSTED,
    "ResponseParserError": _NO_S3,
}
_BY_TYPE = {name: sentence for names, sentence in _BOTO3.items() for name in names.split()}

# What delta-rs and DuckDB say where S3 said nothing; first match wins. Looked for without the names of files.
_PHRASES = {
    "Received redirect without LOCATION": _ELSEWHERE,
    "certificate|SSL|TLS|InvalidContentType": _UNTRUSTED,
    "error sending request|tcp connect error|Could not connect to server|Could not resolve|Timeout was reached"
    "|operation timed out|connection closed before|Server returned nothing|error reading a body": _UNREACHABLE,
    r"<!DOCTYPE|<html|ETag Header missing|GET error.*\(HTTP 40[45][^)]*\)\Z": _NO_S3,
}
_NAMES = re.compile(r"\w+://\S+|'[^']*'|\"[^\"]*\"|[^\s<]*\w/\S*")
_OF_S3 = re.compile(
    r"\A(?:HTTP|IO) Error: |Generic S3 error|Error performing [A-Z]+ http|Error interacting with object store"
)
_OF_THE_CHAIN = re.compile(
    r"when calling the (?:AssumeRole|GetRoleCredentials)|\AUnsupported host .*Can only retrieve metadata from"
    r"|\ACredentials were refreshed, but"
)

_KEYS = re.compile(
    r"(?s)(<(?:Token-\d|AWSAccessKeyId|StringToSign\w*|CanonicalRequest\w*|SignatureProvided)>).*?(?=</|\Z)"
    r"|(?<=Invalid Access Key: \")[^\"]*"
)


def explain(error: BaseException, lake: "Lake") -> str | None:
    """The sentence for `error`, from whichever client it came; None when the trouble isn't one of the known ones.

    May ask the server why: an answer to HEAD has no body that would say it.
    """
    for cause in _chain(error):
        if sentence := _sentence(cause, lake):
            if sentence == _UNREACHABLE and lake.proxy_variable:
                sentence = _BEHIND_PROXY
            return sentence.format(
                where=lake.server_name,
                bucket=lake.bucket,
                root=lake.root,
                proxy=lake.proxy_variable,
                text=str(cause).strip().split("\n")[0][:300].rstrip("."),
            )
    return None


def _sentence(error: BaseException, lake: "Lake") -> str | None:
    text = str(error)
    if isinstance(error, BotoCoreError | ResponseParserError):
        return next((_BY_TYPE[base.__name__] for base in type(error).__mro__ if base.__name__ in _BY_TYPE), None)
    if _OF_THE_CHAIN.search(text):
        return _NO_ANSWER
    if not isinstance(error, ClientError | Boto3Error) and not _OF_S3.search(text):
        return None
    if "An error occurred () when calling" in text:
        return _NO_S3
    if code := _CODE.search(text) or _STATUS.search(text):
        said = code[code.lastindex]
        sentence = _reason(said, lake) if said in ("400", "403") else _BY_CODE.get(said)
        if sentence or code.re is _CODE:
            return sentence
    text = _NAMES.sub("", text)
    return next((sentence for phrase, sentence in _PHRASES.items() if re.search(phrase, text)), None)


def _reason(status: str, lake: "Lake") -> str | None:
    """Why a request without an answer's body was refused: a listing, refused too, tells."""
    try:
        lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key(""), MaxKeys=1)
    except Exception as error:
        if not isinstance(error, ClientError) or error.response["Error"].get("Code") not in ("400", "403"):
            return _sentence(error, lake)
    if status == "400" and lake.credentials().token:  # renewed since; what was refused had older ones
        return _EXPIRED
    return _BY_CODE.get(status)


@contextmanager
def translate_errors(action: str, lake: "Lake") -> Iterator[None]:
    """Turn what a client raises inside into a LakehouseError; what nobody foresaw is raised on, as it is.

    But for keys: delta-rs and DuckDB quote S3's answer, which repeats the access key and the session token.
    """
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        for cause in _chain(error):
            _hide_keys(cause)
        sentence = explain(error, lake)
        if sentence is None:
            raise
        kind = ExpiredCredentialsError if sentence == _EXPIRED else LakehouseError
        raise kind(f"Could not {action}. {sentence}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _hide_keys(error: BaseException) -> None:
    if _KEYS.search(str(error)):
        error.args = tuple(_KEYS.sub(r"\1***", part) if isinstance(part, str) else part for part in error.args)
