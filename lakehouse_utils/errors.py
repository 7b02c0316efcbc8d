"""Errors that are for people: one sentence that says what happened, where, and which setting to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakehouse_utils.lake import Lake


class LakehouseError(Exception):
    """A failure whose message is all that a person needs; the command line prints it without a traceback."""


class ExpiredCredentials(LakehouseError):
    """The server no longer takes the session token; with a role, `Lake.renew_credentials()` may mend it."""


# What boto3, delta-rs and DuckDB say of the same trouble differs; the error codes of S3 are in all their texts. First
# match wins. Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_KNOWN = [
    (
        "ExpiredToken|RequestExpired|TokenRefreshRequired|token (?:included in the request )?(?:is|has) expired",
        "The temporary credentials have expired: renew AWS_SESSION_TOKEN with its two keys (`aws sso login`, or your"
        " role's issuer), and start again; what is finished stays.",
    ),
    (
        "InvalidAccessKeyId|InvalidClientTokenId",
        "{where} doesn't know this access key: check AWS_ACCESS_KEY_ID (or AWS_PROFILE), and that the keys belong to"
        " the server in AWS_ENDPOINT_URL.",
    ),
    (
        "SignatureDoesNotMatch",
        "{where} refuses the secret key: AWS_SECRET_ACCESS_KEY doesn't belong to this AWS_ACCESS_KEY_ID.",
    ),
    (
        "InvalidToken",
        "{where} refuses the session token: check AWS_SESSION_TOKEN, or unset it for keys without one.",
    ),
    (
        "NoSuchBucket",
        "The bucket {bucket!r} doesn't exist on {where}: create it, or change LAKEHOUSE_URI (or --lake).",
    ),
    (
        "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint",
        "The bucket {bucket!r} is in another region: set AWS_REGION to the bucket's region.",
    ),
    (
        "ProfileNotFound|config profile",
        "AWS_PROFILE names a profile that isn't in your AWS configuration: change or unset AWS_PROFILE ({text}).",
    ),
    (
        "NoCredentials|PartialCredentials|Unable to locate credentials",
        "No AWS credentials were found for {root}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in"
        " the environment or in .env, or run where a role gives them. Unset LAKEHOUSE_URI to use the embedded server.",
    ),
    (
        "CredentialRetrievalError|MetadataRetrievalError|UnauthorizedSSOToken|SSOTokenLoadError|TokenRetrievalError",
        "The AWS credentials could not be had: check AWS_PROFILE, AWS_CONTAINER_CREDENTIALS_FULL_URI or"
        " AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, whichever gives them here ({text}).",
    ),
    (
        "ProxyConnectionError|[Pp]roxy",
        "{where} could not be reached through the proxy: add its host to NO_PROXY, or change HTTP_PROXY/HTTPS_PROXY.",
    ),
    (
        "EndpointConnectionError|ConnectTimeout|ConnectionClosed|ReadTimeout|Could not connect|Connection refused|"
        "connection error|error sending request|[Cc]onnect|dns error|timed out",
        "{where} can't be reached: check the network and AWS_ENDPOINT_URL (unset it for AWS itself).",
    ),
    (
        "AccessDenied|Forbidden|HTTP 403|status code: 403|\\b403\\b",
        "{where} refuses these credentials for {root}: the policy of the role or user must allow s3:ListBucket on the"
        " bucket and s3:GetObject, s3:PutObject, s3:DeleteObject below the prefix (LAKEHOUSE_URI, AWS_PROFILE).",
    ),
    ("No space left on device|InternalError.*no (?:free|writable) volumes", "The disk is full ({text})."),
]
_EXPIRED = _KNOWN[0][1]


def explain(error: BaseException, lake: "Lake") -> str | None:
    """The sentence for `error`, from whichever client it came; None when the trouble isn't one of the known ones."""
    text = " ".join(f"{type(cause).__name__}: {cause}" for cause in _chain(error))
    for pattern, sentence in _KNOWN:
        if re.search(pattern, text):
            where = lake.server_name
            first_line = str(error).strip().split("\n")[0]
            return sentence.format(where=where, bucket=lake.bucket, root=lake.root, text=first_line[:200])
    return None


@contextmanager
def explained(doing: str, lake: "Lake") -> Iterator[None]:
    """Turn what a client raises inside into a LakehouseError; what nobody foresaw is raised on, as it is."""
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        sentence = explain(error, lake)
        if sentence is None:
            raise
        kind = ExpiredCredentials if sentence == _EXPIRED else LakehouseError
        raise kind(f"Could not {doing}. {sentence}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
