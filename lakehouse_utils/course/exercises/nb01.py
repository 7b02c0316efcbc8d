"""The checks of notebook 01: the size of a table, put-if-absent, and a policy for a reader."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
from botocore.config import Config
from botocore.exceptions import ClientError

from lakehouse_utils.course import restricted_keys
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_TABLE, _NEIGHBOUR = ("silver", "customers"), ("silver", "customers_history")


# -- sizes


def _sizes(lake: Lake, prefix: str) -> dict[str, int]:
    """Return key -> size in bytes of the objects below `prefix`."""
    return {entry["Key"]: entry["Size"] for entry in lake.objects(prefix)}


@exercise("01.1", "Find two mistakes in a measurement", expects=(int, np.integer))
def check_table_size(answer: int, lake: Lake) -> Right:
    """The answer is the size in bytes of all objects of silver/customers."""
    sizes = _sizes(lake, lake.key(*_TABLE, ""))
    data = sum(size for key, size in sizes.items() if key.endswith(".parquet"))
    total = sum(sizes.values())
    if answer == total:
        return Right(f"{len(sizes)} objects, {total / 1000:,.0f} kB. The log is {(total - data) / 1000:,.0f} kB of it.")
    if answer == sum(_sizes(lake, lake.key(*_TABLE)).values()):
        raise Wrong(
            "That includes silver/customers_history: its keys begin with the same letters. End the prefix with a slash."
        )
    if answer == data:
        raise Wrong("That is the size of the Parquet files. The log is part of the table too, and you pay for it.")
    if answer == total - data:
        raise Wrong(
            "That is the size of the log alone. If your code reads one page of the listing, the Parquet file is on"
            " the next one: use a paginator."
        )
    if answer == len(sizes):
        raise Wrong("That is the number of objects. Add up their sizes: `entry['Size']`.")
    rounded = sum(max(1, round(size / 1000)) for size in sizes.values())
    if answer in (round(total / 1000), total // 1024, round(total / 1024), rounded, 1000 * rounded):
        raise Wrong("That is in kB, or was rounded to kB. The answer must be in bytes, as S3 reports them.")
    if answer == 0:
        raise Wrong(
            "There are no objects with that prefix. Your tables have their own prefix in the bucket: use lake.key(...)."
        )
    raise Wrong(
        "The objects of silver/customers have a different total size. Is the prefix lake.key(...) with a slash?"
    )


# -- put-if-absent


@exercise("01.2", "Write put_if_absent", expects=Callable)
def check_put_if_absent(answer: Callable[[str, bytes], object], lake: Lake) -> Right:
    """The answer is a function that writes an object only if the key is free; the check calls it on the real server."""
    folder = lake.key("exercises", f"01.2-{secrets.token_hex(4)}")

    def content(name: str) -> bytes:
        body: bytes = lake.s3.get_object(Bucket=lake.bucket, Key=f"{folder}/{name}")["Body"].read()
        return body

    first = _call(answer, f"{folder}/free", b"first")
    if first is not True:
        raise Wrong(f"If the key is free, the function must write the object and return True. It returned {first!r}.")
    if not _sizes(lake, f"{folder}/free"):
        raise Wrong("The function returned True, but there is no object: nothing was written.")
    second = _call(answer, f"{folder}/free", b"second")
    if content("free") != b"first":
        raise Wrong(
            f"The second call replaced the object of the first call, and returned {second!r}. Did you pass IfNoneMatch?"
        )
    if second is not False:
        raise Wrong(f"If the object already exists, the function must return False. It returned {second!r}.")

    def write_first(**_: object) -> None:
        lake.session.client("s3", endpoint_url=lake.endpoint, region_name=lake.region, config=_PATH_STYLE).put_object(
            Bucket=lake.bucket, Key=f"{folder}/contested", Body=b"other writer"
        )

    with _before_put(lake, write_first) as calls:
        third = _call(answer, f"{folder}/contested", b"mine")
    if not calls:
        raise Wrong("Write the object with lake.s3. The check watches that client, and saw no PUT.")
    if content("contested") != b"other writer" or third is not False:
        raise Wrong(
            "Another writer wrote the object after your function had looked for it, and your PUT replaced it. Do not"
            " look first: with IfNoneMatch, the server checks and writes in one request."
        )
    attempts = count(1)

    def refuse(**_: object) -> object:
        if next(attempts) > _MAX_ATTEMPTS:
            raise Wrong("The server stayed busy, and your function sends its request again and again: set a limit.")
        return _BUSY

    with _before_put(lake, refuse):
        try:
            fourth = answer(f"{folder}/busy", b"fourth")
        except ClientError:
            pass
        except Wrong:
            raise
        except Exception as error:  # noqa: BLE001 - a learner's function may raise anything
            raise Wrong(
                f"The server was busy, and its ClientError became {type(error).__name__}: use `raise` alone."
            ) from None
        else:
            raise Wrong(
                f"The server answered 503 SlowDown, and your function returned {fourth!r}, although the key is free."
                " Return False only for PreconditionFailed, and raise every other error."
            )
    answers = iter([_CONFLICT])  # the second request goes to the server
    with _before_put(lake, lambda **_: next(answers, None)), suppress(ClientError):
        fifth = answer(f"{folder}/conflict", b"fifth")
        if not _sizes(lake, f"{folder}/conflict"):
            raise Wrong(
                f"The server answered 409 ConditionalRequestConflict, and your function returned {fifth!r}, although"
                " the key is free: no request has won. Raise that error, or send the same request again."
            )
        if fifth is not True:
            raise Wrong(f"After a 409, your function wrote the object with a second request, and returned {fifth!r}.")
    return Right("It returned True, then False, overwrote nothing, and takes no other error for a refusal.")


_MAX_ATTEMPTS = 20
_PATH_STYLE = Config(s3={"addressing_style": "path"})


def _error_answer(status: int, code: str, message: str) -> tuple[SimpleNamespace, dict[str, Any]]:
    """The answer of a server, as botocore takes it from a hook."""
    error = {"Code": code, "Message": message}
    return SimpleNamespace(status_code=status), {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}


_BUSY = _error_answer(503, "SlowDown", "Please reduce your request rate.")
_CONFLICT = _error_answer(409, "ConditionalRequestConflict", "A conflicting operation occurred. Try again.")


def _call(function: Callable[[str, bytes], object], key: str, body: bytes) -> object:
    try:
        return function(key, body)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Wrong(f"The function raised the refusal, {code}. Catch ClientError and return False.") from None
        raise Wrong(f"The function raised a ClientError with the code {code}.") from None


@contextmanager
def _before_put(lake: Lake, action: Callable[..., object]) -> Iterator[list[dict[str, Any]]]:
    """Call `action` between the learner's call of put_object and the request; yields the calls that were seen."""
    calls: list[dict[str, Any]] = []

    def hook(**event: Any) -> object:
        calls.append(event)
        return action(**event)

    events = lake.s3.meta.events
    events.register("before-call.s3.PutObject", hook)  # type: ignore[arg-type]  # botocore uses what a hook returns
    try:
        yield calls
    finally:
        events.unregister("before-call.s3.PutObject", hook)  # type: ignore[arg-type]


# -- a policy


@dataclass(frozen=True)
class _Probe:
    """One request, whether a reader of silver/customers must be allowed to make it, and the hint if that differs."""

    allowed: bool
    action: str
    key: str
    hint: str


def _probes(lake: Lake) -> list[_Probe]:
    table, neighbour = lake.key(*_TABLE, ""), lake.key(*_NEIGHBOUR, "")
    commit = "_delta_log/00000000000000000000.json"
    data_file = next(key for key in _sizes(lake, table) if key.endswith(".parquet"))
    return [
        _Probe(
            True,
            "s3:ListBucket",
            f"{table}_delta_log/",
            "A reader could not list the log of silver/customers. The Resource of ListBucket is the bucket, without"
            " /*. s3:prefix is the key without the bucket, as lake.key returns it, and with StringLike it can end in"
            " *.",
        ),
        _Probe(
            True,
            "s3:GetObject",
            table + commit,
            "A reader could not get a commit of silver/customers. The Resource of GetObject is the objects, so it ends"
            " with /*. A condition on s3:prefix works only for listing, so it belongs in a separate statement.",
        ),
        _Probe(
            False,
            "s3:PutObject",
            f"{table}_delta_log/99999999999999999999.json",
            "That policy allows writing a commit. A reader needs only s3:ListBucket and s3:GetObject.",
        ),
        _Probe(
            False,
            "s3:DeleteObject",
            f"{table}no-such-object",
            "That policy allows deleting objects. A reader does not need that.",
        ),
        _Probe(
            False,
            "s3:GetObject",
            lake.key("gold", "fact_sales", commit),
            "That policy allows reading other tables too, such as gold/fact_sales. Name silver/customers/ in the"
            " Resource of GetObject.",
        ),
        _Probe(
            False,
            "s3:ListBucket",
            lake.key("gold", "fact_sales", "_delta_log", ""),
            "That policy allows listing silver/customers_history and everything else. Restrict it with a condition:"
            " StringLike on s3:prefix.",
        ),
        _Probe(
            False,
            "s3:GetObject",
            lake.key("bronze", "orders", commit),
            "That policy allows reading bronze/orders too. Name one table, silver/customers/, in the Resource of"
            " GetObject.",
        ),
        _Probe(
            True,
            "s3:GetObject",
            data_file,
            "A reader could not get the data files of silver/customers, only its log. The Resource of GetObject is the"
            " whole folder of the table.",
        ),
        _Probe(
            False,
            "s3:GetObject",
            neighbour + commit,
            "That policy allows reading silver/customers_history too: its keys begin with the same letters. Put a slash"
            " before the *.",
        ),
        _Probe(
            False,
            "s3:ListBucket",
            f"{neighbour}_delta_log/",
            "That policy allows listing silver/customers_history too. Restrict s3:prefix to silver/customers/, with a"
            " slash before the *.",
        ),
        _Probe(
            False,
            "s3:ListBucket",
            lake.key(*_TABLE),
            "That policy allows a LIST of the prefix silver/customers, without the slash, which shows the keys of"
            " silver/customers_history too.",
        ),
    ]


@exercise("01.3", "Give a reader access", expects=dict)
def check_reader_policy(answer: dict[str, Any], lake: Lake) -> Right:
    """The answer is a policy that allows reading silver/customers and nothing else; the check tries what it allows."""
    missing = {"Version", "Statement"} - answer.keys()
    if missing:
        raise Wrong(f"The policy has no {' and no '.join(sorted(missing))}.")
    if not isinstance(answer["Statement"], list):
        raise Wrong('"Statement" must be a list: one statement about the bucket, and one about the objects.')
    if answer["Version"] != "2012-10-17":
        raise Wrong('"Version" is the version of the policy language, not of your policy: "2012-10-17".')
    embedded = lake.server_name == "the embedded S3 server"
    is_allowed = _decided_by_server(answer, lake) if embedded else _decided_by_text(answer, lake)
    probes = _probes(lake)
    with ThreadPoolExecutor(len(probes)) as pool:
        decisions = list(pool.map(lambda probe: is_allowed(probe.action, probe.key), probes))
    for probe, allowed in zip(probes, decisions, strict=True):
        if allowed != probe.allowed:
            raise Wrong(probe.hint)
    return Right("A reader can list and get silver/customers. It cannot write, and cannot see customers_history.")


def _decided_by_server(policy: dict[str, Any], lake: Lake) -> Callable[[str, str], bool]:
    """Return a function that makes a request with temporary keys that `policy` restricts."""
    try:
        s3 = restricted_keys.issue(lake, policy).s3
    except ClientError as error:
        raise Wrong(f"The server rejected the policy: {error.response['Error']['Message']}") from None
    requests: dict[str, Callable[[str], object]] = {
        "s3:ListBucket": lambda key: s3.list_objects_v2(Bucket=lake.bucket, Prefix=key),
        "s3:GetObject": lambda key: s3.get_object(Bucket=lake.bucket, Key=key),
        "s3:PutObject": lambda key: s3.put_object(Bucket=lake.bucket, Key=f"{key}.probe", Body=b""),
        "s3:DeleteObject": lambda key: s3.delete_object(Bucket=lake.bucket, Key=key),
    }

    def is_allowed(action: str, key: str) -> bool:
        try:
            requests[action](key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDenied":
                return False
            raise
        if action == "s3:PutObject":
            lake.s3.delete_object(Bucket=lake.bucket, Key=f"{key}.probe")
        return True

    return is_allowed


def _decided_by_text(policy: dict[str, Any], lake: Lake) -> Callable[[str, str], bool]:
    """Return a function that evaluates simple statements itself, for servers where the learner cannot create keys."""

    def matches(patterns: str | list[str], value: str) -> bool:
        return any(fnmatchcase(value, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))

    def is_allowed(action: str, key: str) -> bool:
        effects = []
        listing = action == "s3:ListBucket"
        arn = f"arn:aws:s3:::{lake.bucket}" if listing else f"arn:aws:s3:::{lake.bucket}/{key}"
        for statement in policy["Statement"]:
            conditions = [c["s3:prefix"] for c in statement.get("Condition", {}).values() if "s3:prefix" in c]
            condition_met = all(listing and matches(patterns, key) for patterns in conditions)
            if matches(statement["Action"], action) and matches(statement["Resource"], arn) and condition_met:
                effects.append(statement["Effect"])
        return "Allow" in effects and "Deny" not in effects

    return is_allowed
