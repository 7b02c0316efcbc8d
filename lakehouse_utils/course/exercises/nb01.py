"""The exercises of notebook 01: weigh a table, find a footer, put if absent, and a policy that lets a reader in."""

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import SimpleNamespace

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import ClientError

from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_TABLE, _NEIGHBOUR = ("silver", "customers"), ("silver", "customers_history")


# -- weights and footers


def _sizes(lake: Lake, prefix: str) -> dict[str, int]:
    return {entry["Key"]: entry["Size"] for entry in lake.objects(prefix)}


@exercise(
    "01.1",
    "Weigh a table",
    hint="List what lies below `lake.key('silver', 'customers', '')`, and add up each object's `Size`.",
    expects=(int, np.integer),
)
def weight(answer, lake):
    """The bytes of all objects of silver/customers."""
    sizes = _sizes(lake, lake.key(*_TABLE, ""))
    data = sum(size for key, size in sizes.items() if key.endswith(".parquet"))
    total = sum(sizes.values())
    if answer == total:
        return Right(
            f"{len(sizes)} objects, {total / 1000:,.0f} kB, and {(total - data) / 1000:,.0f} of them are the log."
        )
    if answer == sum(_sizes(lake, lake.key(*_TABLE)).values()):
        raise Wrong("That counts silver/customers_history as well: its keys begin alike. End the prefix with a slash.")
    if answer == data:
        raise Wrong("Those are the Parquet files. The log belongs to the table too, and you pay for it as well.")
    if answer == total - data:
        raise Wrong("Those are the commits alone. The Parquet files hold the rows.")
    if answer == len(sizes):
        raise Wrong("That is how many objects there are. Add up their sizes: `entry['Size']`.")
    rounded = sum(max(1, round(size / 1000)) for size in sizes.values())
    if answer in (round(total / 1000), total // 1024, round(total / 1024), rounded, 1000 * rounded):
        raise Wrong("Those are kB, or were rounded to them. The answer should be in bytes, as S3 says them.")
    if answer == 0:
        raise Wrong("Nothing lies there. Your tables have a prefix of their own in the bucket: lake.key(...) knows it.")
    raise Wrong("The objects below silver/customers/ weigh something else. Is the prefix lake.key(...), with a slash?")


@exercise(
    "01.2",
    "Read the length of a footer",
    hint='`s3.get_object(..., Range="bytes=-8")` gives the last 8 bytes. The first 4 of them are the length.',
    expects=(int, np.integer),
)
def footer(answer, lake):
    """The length of the footer of the one Parquet file of silver/customers."""
    (key, size) = next((k, s) for k, s in _sizes(lake, lake.key(*_TABLE, "")).items() if k.endswith(".parquet"))
    tail = lake.s3.get_object(Bucket=lake.bucket, Key=key, Range="bytes=-8")["Body"].read()
    length = int.from_bytes(tail[:4], "little")
    if answer == length:
        return Right(f"The footer has {length:,} bytes, the file {size:,}: a reader asks for the last {length + 8:,}.")
    if answer == length + 8:
        raise Wrong("That is the footer with the 8 bytes behind it. The length alone stands in the first 4 of those.")
    if answer == int.from_bytes(tail[:4], "big"):
        raise Wrong("The bytes are right, the order isn't: the smallest comes first, which is called little-endian.")
    if answer == int.from_bytes(tail, "little"):
        raise Wrong("That takes all 8 bytes for the number. The last 4 are the letters PAR1.")
    if answer == int.from_bytes(tail[4:], "little"):
        raise Wrong("Those 4 bytes are the letters PAR1. The number is in the 4 before them.")
    if answer == size:
        raise Wrong("That is the size of the whole file. The footer is a part of it.")
    raise Wrong("The footer of the Parquet file of silver/customers has another length. Is it that table's file?")


# -- put if absent


@exercise(
    "01.3",
    "Write put_if_absent",
    hint='A function of `key` and `body`: `s3.put_object(..., IfNoneMatch="*")`, True when that goes well, and False'
    " when it is refused because there is an object already.",
    expects=Callable,
)
def put_if_absent(answer, lake):
    """A function that puts an object unless there is one, tried on the real server."""
    folder = lake.key("exercises", f"01.3-{secrets.token_hex(4)}")

    def body(name: str) -> bytes:
        return lake.s3.get_object(Bucket=lake.bucket, Key=f"{folder}/{name}")["Body"].read()

    first = _call(answer, f"{folder}/free", b"first")
    if first is not True:
        raise Wrong(f"For a free key it should put the object and return True; it returned {first!r}.")
    if not _sizes(lake, f"{folder}/free"):
        raise Wrong("It returned True, and there is no object: nothing was put.")
    second = _call(answer, f"{folder}/free", b"second")
    if body("free") != b"first":
        raise Wrong(f"The second call replaced the first one's object, and returned {second!r}. Where is IfNoneMatch?")
    if second is not False:
        raise Wrong(f"When there is an object already it should return False; it returned {second!r}.")

    def other_is_first(**_) -> None:
        lake.session.client("s3", endpoint_url=lake.endpoint, region_name=lake.region, config=_PATH_STYLE).put_object(
            Bucket=lake.bucket, Key=f"{folder}/contested", Body=b"the other's"
        )

    with _before_put(lake, other_is_first) as called:
        third = _call(answer, f"{folder}/contested", b"mine")
    if not called:
        raise Wrong("It should put the object with lake.s3: this check listens there.")
    if body("contested") != b"the other's" or third is not False:
        raise Wrong(
            "Another writer came between your look and your put, and lost its object. Don't look first: let the"
            " server look, in the same request, with IfNoneMatch."
        )
    with _before_put(lake, lambda **_: _BUSY):
        try:
            fourth = answer(f"{folder}/busy", b"fourth")
        except ClientError:
            return Right(
                "Once True, then False, nothing overwritten; and other errors are not mistaken for a lost race."
            )
        except Exception as error:
            raise Wrong(f"A busy server's ClientError became {type(error).__name__}: use `raise` alone.") from None
    raise Wrong(
        f"The server said 503 SlowDown, and your function returned {fourth!r}: but nobody else has put that object."
        " Return False for PreconditionFailed only, and raise the error otherwise."
    )


_PATH_STYLE = Config(s3={"addressing_style": "path"})
_BUSY = (
    SimpleNamespace(status_code=503),
    {
        "Error": {"Code": "SlowDown", "Message": "Please reduce your request rate."},
        "ResponseMetadata": {"HTTPStatusCode": 503},
    },
)


def _call(function: Callable, key: str, body: bytes) -> object:
    try:
        return function(key, body)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Wrong(f"The refusal, {code}, came out as an error: catch ClientError, and return False.") from None
        raise Wrong(f"It raised a ClientError with the code {code}.") from None


@contextmanager
def _before_put(lake: Lake, happens: Callable) -> Iterator[list]:
    """What happens between the learner's call of put_object and the request."""
    called: list = []

    def hook(**event) -> object:
        called.append(event)
        return happens(**event)

    events = lake.s3.meta.events
    events.register("before-call.s3.PutObject", hook)
    try:
        yield called
    finally:
        events.unregister("before-call.s3.PutObject", hook)


# -- a policy


@exercise(
    "01.4",
    "Let a reader in",
    hint="Two statements: s3:ListBucket on the bucket, with a condition on s3:prefix, and s3:GetObject on the table's"
    " objects.",
    expects=dict,
)
def policy(answer, lake):
    """A policy that lets a holder read silver/customers and do nothing else, put to the test."""
    missing = {"Version", "Statement"} - answer.keys()
    if missing:
        raise Wrong(f"The policy has no {' and no '.join(sorted(missing))}.")
    if not isinstance(answer["Statement"], list):
        raise Wrong('"Statement" should be a list: one statement about the bucket, and one about objects.')
    if answer["Version"] != "2012-10-17":
        raise Wrong('"Version" is the version of the language of policies, not of yours: "2012-10-17".')
    table, neighbour = lake.key(*_TABLE, ""), lake.key(*_NEIGHBOUR, "")
    commit = "_delta_log/00000000000000000000.json"
    if lake.server_name == "the embedded S3 server":
        may = _as_the_server_decides(answer, lake)
    else:
        may = _as_the_policy_reads(answer, lake)
    tried = [
        (True, "s3:ListBucket", f"{table}_delta_log/", "A reader could not list the log of silver/customers. "
         "ListBucket's Resource is the bucket itself, without /*. s3:prefix is the key, without the bucket, as "
         "lake.key gives it, and StringLike lets it end with *."),
        (True, "s3:GetObject", table + commit, "A reader could not get a commit of silver/customers. GetObject's "
         "Resource is the objects, so it ends with /*. A condition on s3:prefix is for lists: it stands in a statement "
         "of its own."),
        (False, "s3:PutObject", f"{table}_delta_log/99999999999999999999.json",
         "That lets its holder write a commit. A reader needs s3:ListBucket and s3:GetObject, and no more."),
        (False, "s3:DeleteObject", f"{table}no-such-object", "That lets its holder delete. A reader doesn't."),
        (False, "s3:GetObject", lake.key("gold", "fact_sales", commit),
         "That opens other tables as well, such as gold/fact_sales. Name silver/customers/ in GetObject's Resource."),
        (False, "s3:ListBucket", lake.key("gold", "fact_sales", "_delta_log", ""),
         "That lists silver/customers_history too, and all else. A condition narrows it: StringLike, with s3:prefix."),
        (False, "s3:GetObject", neighbour + commit,
         "That opens silver/customers_history too: its keys begin alike. Put a slash before the *."),
        (False, "s3:ListBucket", f"{neighbour}_delta_log/",
         "That lists silver/customers_history too. Narrow s3:prefix to silver/customers/, with a slash before the *."),
    ]  # fmt: skip
    with ThreadPoolExecutor(len(tried)) as pool:
        found = list(pool.map(lambda probe: may(*probe[1:3]), tried))
    for (wanted, _, _, hint), allowed in zip(tried, found, strict=True):
        if allowed != wanted:
            raise Wrong(hint)
    return Right("A reader lists and gets silver/customers, and can neither write there nor see its neighbour.")


def _as_the_server_decides(policy: dict, lake: Lake) -> Callable[[str, str], bool]:
    """Ask with temporary keys that `policy` narrows."""
    once = {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}}
    place = {"endpoint_url": lake.endpoint, "region_name": lake.region}
    sts = lake.session.client("sts", **place, config=Config(parameter_validation=False, **once))
    try:
        keys = sts.assume_role(RoleSessionName="reader", DurationSeconds=900, Policy=json.dumps(policy))["Credentials"]
    except ClientError as error:
        raise Wrong(f"The server doesn't take it for a policy: {error.response['Error']['Message']}") from None
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    s3 = session.client("s3", **place, config=Config(**once))
    calls = {
        "s3:ListBucket": lambda key: s3.list_objects_v2(Bucket=lake.bucket, Prefix=key),
        "s3:GetObject": lambda key: s3.get_object(Bucket=lake.bucket, Key=key),
        "s3:PutObject": lambda key: s3.put_object(Bucket=lake.bucket, Key=f"{key}.tried", Body=b""),
        "s3:DeleteObject": lambda key: s3.delete_object(Bucket=lake.bucket, Key=key),
    }

    def may(action: str, key: str) -> bool:
        try:
            calls[action](key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDenied":
                return False
            raise
        if action == "s3:PutObject":
            lake.s3.delete_object(Bucket=lake.bucket, Key=f"{key}.tried")
        return True

    return may


def _as_the_policy_reads(policy: dict, lake: Lake) -> Callable[[str, str], bool]:
    """What statements of the simple kind say: for servers where nobody may make keys."""

    def matches(patterns: object, value: str) -> bool:
        return any(fnmatchcase(value, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))

    def may(action: str, key: str) -> bool:
        effects = []
        for statement in policy["Statement"]:
            listing = action == "s3:ListBucket"
            arn = f"arn:aws:s3:::{lake.bucket}" if listing else f"arn:aws:s3:::{lake.bucket}/{key}"
            conditions = [c["s3:prefix"] for c in statement.get("Condition", {}).values() if "s3:prefix" in c]
            fits = all(listing and matches(patterns, key) for patterns in conditions)
            if matches(statement["Action"], action) and matches(statement["Resource"], arn) and fits:
                effects.append(statement["Effect"])
        return "Allow" in effects and "Deny" not in effects

    return may
