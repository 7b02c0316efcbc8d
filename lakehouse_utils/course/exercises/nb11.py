"""The exercises of notebook 11: a policy for a loader, the requests of a schedule, an alarm that stays silent."""

import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

import duckdb
import numpy as np
from botocore.exceptions import ClientError

from lakehouse_utils.course import restricted_keys
from lakehouse_utils.course.exercises import Right, Wrong, exercise
from lakehouse_utils.lake import Lake

_PROBE = "probe-of-exercise-11-1"
# What a policy with a * in its actions might allow. Actions that it spells out are tried as well.
_BUCKET_ACTIONS = ["s3:ListBucket", "s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucket"]
_OBJECT_ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:PutObjectAcl"]
_NO_PREFIX = "Keys begin with `lake.prefix`, and so must resources and prefixes."
_RUNS = "run_id VARCHAR, command VARCHAR, started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, status VARCHAR, exit_code INT"


@exercise("11.1", "Write a policy for a loader", expects=dict)
def check_loader_policy(answer: dict[str, Any], lake: Lake) -> Right:
    """The policy lets a loader append to bronze and read silver, and nothing else; the server enforces it."""
    if not lake.is_embedded:
        raise Wrong("This exercise needs the embedded server, which issues keys with a policy. Set LAKE to ''.")
    try:
        s3 = restricted_keys.issue(lake, answer).s3
    except ClientError as error:
        raise Wrong(f"The server rejected the policy: {error.response['Error']['Message']}") from None
    if any(resource.startswith("s3://") for resource in _values(answer, "Resource")):
        raise Wrong("A resource is an ARN, such as arn:aws:s3:::bucket/key, and not an address with s3://.")
    for layer in ("bronze", "silver"):
        lake.s3.put_object(Bucket=lake.bucket, Key=_key(lake, layer), Body=b"")
    for layer in ("bronze", "silver"):
        if not _allowed(s3.list_objects_v2, lake, Prefix=lake.key(layer, "t", "")):
            raise Wrong(f"The loader cannot list the folder {layer}/. {_why_no_listing(answer, lake, layer)}")
    if not _allowed(s3.get_object, lake, Key=_key(lake, "silver")):
        raise Wrong(f"The loader cannot read silver. {_why_denied(answer, lake, 's3:GetObject', 'silver')}")
    if not _allowed(s3.put_object, lake, Key=_key(lake, "bronze")):
        raise Wrong(f"The loader cannot write to bronze. {_why_denied(answer, lake, 's3:PutObject', 'bronze')}")
    if not _allowed(s3.get_object, lake, Key=_key(lake, "bronze")):
        raise Wrong("The loader cannot append: it reads the log of the bronze table before it writes, with GetObject.")
    if not _permits(answer, "s3:AbortMultipartUpload", _arn(lake, "bronze")):
        raise Wrong("A large write is uploaded in parts. The loader must also be allowed to abort such an upload.")
    if _allowed(s3.put_object, lake, Key=_key(lake, "silver")):
        raise Wrong("The loader can write to silver. Allow PutObject below bronze/ only.")
    for layer in ("bronze", "silver"):
        if _allowed(s3.delete_object, lake, Key=_key(lake, layer)):
            raise Wrong(f"The loader can delete objects in {layer}. Appends never delete.")
        if _permits(answer, "s3:DeleteObjectVersion", _arn(lake, layer)):
            raise Wrong(
                "The loader can delete old versions of objects. Name the actions that it needs instead of `s3:*`."
            )
    _require_nothing_else(answer, lake)
    for prefix, hint in _forbidden_listings(lake):
        if any(_allowed(call, lake, Prefix=prefix) for call in (s3.list_objects_v2, s3.list_object_versions)):
            raise Wrong(hint)
    return Right("The loader appends to bronze, reads silver, and reaches nothing else.")


def _key(lake: Lake, layer: str) -> str:
    return lake.key(layer, "t", _PROBE)


def _require_nothing_else(policy: dict[str, Any], lake: Lake) -> None:
    """Raise Wrong for an action that the policy allows on a resource where the loader does not need it."""
    named = [name for name in _values(policy, "Action") if not set("*?") & set(name)]
    for resource, accepted, hint in _limits(lake):
        for action in [*(_OBJECT_ACTIONS if "/" in resource else _BUCKET_ACTIONS), *named]:
            is_accepted = any(fnmatchcase(action.lower(), pattern) for pattern in accepted)
            if not is_accepted and _permits(policy, action, resource):
                raise Wrong(f"{hint} The policy allows {action} there.")


def _limits(lake: Lake) -> Iterator[tuple[str, list[str], str]]:
    """The ARN of a resource, the actions that the loader may have on it, and the hint if it has another action."""
    on_all = ["s3:listbucket*", "s3:getbucketlocation"]  # without an effect on objects
    reads = [*on_all, "s3:getobject*", "s3:listmultipartuploadparts"]
    writes = [*reads, "s3:putobject", "s3:abortmultipartupload"]
    for layer in ("gold", "quarantine", "operations"):
        yield _arn(lake, layer), on_all, f"The loader reaches {layer}. Its resources must end at bronze/ and silver/."
    for layer in ("bronze2", "silver2"):
        yield _arn(lake, layer), on_all, f"The loader reaches {layer}/. Put a slash before the *, as in bronze/*."
    for folder in (lake.key("gold", "bronze"), f"{lake.prefix}-other/bronze"):
        hint = f"The loader reaches {folder}/. Put `lake.prefix`, and no *, before bronze/ and silver/."
        yield f"arn:aws:s3:::{lake.bucket}/{folder}/{_PROBE}", on_all, hint
    for arn in (f"arn:aws:s3:::other-{lake.bucket}", f"arn:aws:s3:::other-{lake.bucket}/{_key(lake, 'bronze')}"):
        yield arn, [], "The loader reaches other buckets. Name the bucket in each resource."
    yield _arn(lake, "silver"), reads, "The loader may only read in silver."
    yield _arn(lake, "bronze"), writes, "The loader may do more in bronze than it needs. Name the actions in full."
    yield f"arn:aws:s3:::{lake.bucket}", writes, "The loader may do more with the bucket than list it."


def _forbidden_listings(lake: Lake) -> Iterator[tuple[str, str]]:
    """Prefixes of listings that must be denied, and the hint for each."""
    rest = "The loader sees the rest of the lake: it may list more than bronze/ and silver/."
    for prefix in ("", *(lake.key(*names, "") for names in ((), ("gold",), ("quarantine",), ("operations",)))):
        yield prefix, rest
    for prefix in (lake.prefix, lake.key("bronze"), lake.key("silver")):
        hint = "without a slash, and so all keys that begin with it. Let the allowed prefixes end with a slash and a *."
        yield prefix, f"The loader may list '{prefix}' {hint}"
    for prefix in (lake.key("bronze2", ""), lake.key("silver2", ""), f"{lake.prefix}-other/bronze/"):
        yield prefix, rest


def _allowed(call: Callable[..., Any], lake: Lake, **arguments: str) -> bool:
    try:
        call(Bucket=lake.bucket, **arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] not in ("AccessDenied", "403")
    return True


def _arn(lake: Lake, layer: str) -> str:
    return f"arn:aws:s3:::{lake.bucket}/{_key(lake, layer)}"


def _permits(policy: dict[str, Any], action: str, resource: str) -> bool:
    """Whether the policy itself allows the action, for actions that the server does not tell apart."""
    effects = {
        statement.get("Effect")
        for statement in _as_list(policy.get("Statement"))
        if _applies(statement, "Action", action.lower(), str.lower) and _applies(statement, "Resource", resource, str)
    }
    return "Allow" in effects and "Deny" not in effects


def _applies(statement: dict[str, Any], element: str, value: str, fold: Callable[[str], str]) -> bool:
    def matches(patterns: object) -> bool:
        return any(fnmatchcase(value, fold(pattern)) for pattern in _as_list(patterns))

    return matches(statement[element]) if element in statement else not matches(statement.get(f"Not{element}", "*"))


def _values(policy: dict[str, Any], element: str) -> list[str]:
    """The values of "Action" or "Resource" in all statements."""
    return [value for statement in _as_list(policy.get("Statement")) for value in _as_list(statement.get(element))]


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy has one value or a list of them
    return [] if value is None else value if isinstance(value, list) else [value]


def _why_denied(policy: dict[str, Any], lake: Lake, action: str, layer: str) -> str:
    statements = _as_list(policy.get("Statement"))
    with_action = [each for each in statements if _applies(each, "Action", action.lower(), str.lower)]
    resources = _values({"Statement": with_action}, "Resource")
    if resources and not any(lake.prefix in resource for resource in resources):
        return _NO_PREFIX
    return f"Look at the actions, and at the folder {layer}/ in resources and prefixes."


def _why_no_listing(policy: dict[str, Any], lake: Lake, layer: str) -> str:
    if not _permits(policy, "s3:ListBucket", f"arn:aws:s3:::{lake.bucket}"):
        if _permits(policy, "s3:ListBucket", _arn(lake, layer)):
            return "ListBucket is an action on the bucket: its resource is the bucket's ARN, without a folder."
        return "Which action lists, and what is its resource?"
    text = json.dumps(policy)
    if "StringEquals" in text:
        return "StringEquals compares the whole prefix, and * is a plain character in it. StringLike knows *."
    if lake.prefix and lake.prefix not in text:
        return _NO_PREFIX
    return f"Look at the actions, and at the folder {layer}/ in resources and prefixes."


@exercise("11.2", "Predict the cost of a schedule", expects=(int, float, np.integer, np.floating, Decimal))
def check_schedule(answer: float, lake: Lake) -> Right:  # noqa: ARG001 - all checks take a lake
    """The most runs a day whose requests cost at most 10 dollars in 30 days: 900 PUT or LIST and 2,000 GET a run."""
    answer = float(answer)
    expensive, cheap, budget, days = 900 * 0.005 / 1000, 2000 * 0.0004 / 1000, 10, 30
    one_run = expensive + cheap
    right = int(budget / (days * one_run))
    hints = {
        int(budget / (days * expensive)): "You left out the GET requests.",
        int(budget / (days * cheap)): "You left out the PUT and LIST requests.",
        int(budget / one_run): "That is the number of runs in a month. A month has 30 days.",
        days * right: "That is the number of runs in a month. The question is about a day.",
        int(budget / (31 * one_run)): "The month of the exercise has 30 days.",
        int(budget / (days * 2900 * 0.005 / 1000)): "GET requests have another price, which is much lower.",
        int(budget / (days * 2900 * 0.0004 / 1000)): "PUT and LIST requests cost more than GET requests.",
        int(budget / (days * (2000 * 0.005 + 900 * 0.0004) / 1000)): "The two prices are swapped.",
        right + 1: "With one run fewer you would stay within 10 dollars: round down.",
    }
    if answer == right:
        return Right(f"{right} runs a day: about one every {24 * 60 / right:.0f} minutes.")
    if abs(answer - one_run) < 1e-6:
        raise Wrong("That is the price of one run. How many of them do 10 dollars pay for?")
    if abs(answer - right * days * one_run) < 0.05:
        raise Wrong("That is what the runs of a month cost. How many runs are that in a day?")
    if abs(answer - 24 * 60 / right) < 1:
        raise Wrong("That is the number of minutes between two runs. How many runs is it in a day?")
    if math.isfinite(answer) and int(answer) in hints:
        raise Wrong(hints[int(answer)])
    if right <= answer < right + 1:
        raise Wrong("The answer is a whole number of runs: round down.")
    if 0 <= answer < 1:
        raise Wrong("The prices are for 1,000 requests each.")
    raise Wrong("Work out the price of one run first, then how many of them 10 dollars pay for in 30 days.")


@exercise("11.3", "Find the fault in an alarm", expects=str)
def check_alarm(answer: str, lake: Lake) -> Right:  # noqa: ARG001 - all checks take a lake
    """The SQL is true if no run of the job succeeded in the last 26 hours, for every history of runs."""
    results = [_alarm(answer, rows) for rows, _, _ in _HISTORIES]
    if all(result is (not expected) for result, (_, expected, _) in zip(results, _HISTORIES, strict=True)):
        raise Wrong("It is the other way round: true when the job succeeded.")
    for result, (_, expected, hint) in zip(results, _HISTORIES, strict=True):
        if result is not None and not isinstance(result, bool):
            raise Wrong(f"It should return true or false; it returns {result!r}.")
        if result is not expected:
            raise Wrong(hint)
    return Right("It rings when the job failed, was interrupted, was never started, or has not run at all.")


# command, hours since the start, hours since the end, status, exit code
_Row = tuple[str, float, float, str, int]
_NOT_YET = "It rings although a run succeeded 5 hours ago, because a later run did not. The limit is 26 hours."
_HISTORIES: list[tuple[list[_Row], bool, str]] = [
    ([("run", 2, 1, "ok", 0)], False, "The job succeeded an hour ago, and your alarm does not stay false."),
    ([("run", 2, 1, "quarantined", 3)], False, "A run that put rows into quarantine succeeded."),
    ([("run", 2, 1, "quarantined", 0)], False, "Without --strict, a run that quarantines rows has exit code 0."),
    ([("run", 2, 1, "refused", 4)], False, "A run that refused one file succeeded otherwise."),
    ([("run", 30, 29, "ok", 0)], True, "The last success was 29 hours ago, and your alarm is not true."),
    ([("run", 26.5, 26.2, "ok", 0)], True, "The last success was over 26 hours ago. Which limit do you use?"),
    ([("run", 25.8, 25.5, "ok", 0)], False, "The last success was less than 26 hours ago. Which limit do you use?"),
    ([("run", 30, 29, "ok", 0), ("run", 2, 1, "failed", 1)], True, "The only run of the last day failed."),
    ([("run", 30, 29, "ok", 0), ("run", 2, 1, "interrupted", 130)], True, "An interrupted run counts as a success."),
    ([("run", 30, 29, "ok", 0), ("maintain", 2, 1, "ok", 0)], True, "A run of --maintain counts as one of the job."),
    ([("run", 30, 1, "ok", 0)], False, "A run took 29 hours and ended an hour ago. When did it succeed?"),
    ([("run", 50, 49, "ok", 0), ("run", 2, 1, "ok", 0)], False, "It rings for an old run, but there is a newer one."),
    ([("run", 6, 5, "ok", 0), ("run", 2, 1, "failed", 1)], False, _NOT_YET),
    ([("run", 6, 5, "ok", 0), ("run", 2, 1, "interrupted", 130)], False, _NOT_YET),
    ([("run", 2, 1, "failed", 1)], True, "There is only a failed run, and your alarm is NULL or false."),
    ([], True, "The table is empty, and your alarm is NULL or false."),
]  # fmt: skip


def _alarm(sql: str, rows: list[_Row]) -> object:
    """The one value that `sql` returns for these runs."""
    if not sql.strip(" \n;"):
        raise Wrong("The answer contains no SQL.")
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE runs ({_RUNS})")
        for row in rows:
            connection.execute(
                "INSERT INTO runs"
                " VALUES ('', $1, now() - to_seconds($2 * 3600), now() - to_seconds($3 * 3600), $4, $5)",
                row,
            )
        try:
            result = connection.execute(sql).fetchall()
        except duckdb.Error as error:
            raise Wrong(f"DuckDB cannot run it: {str(error).splitlines()[0]}") from None
    if len(result) != 1:
        runs = "one run" if len(rows) == 1 else f"{len(rows)} runs"
        raise Wrong(f"It should return one row with one value; for {runs} it returns {len(result)} rows.")
    if len(result[0]) != 1:
        raise Wrong(f"It should return one row with one value; it returns {len(result[0])} columns.")
    return result[0][0]
