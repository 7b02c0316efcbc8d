"""The exercises of notebook 11: a policy for a loader, the requests of a schedule, an alarm that stays silent."""

import json
import math
from collections.abc import Callable
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
    for layer in ("bronze", "silver", "gold"):
        lake.s3.put_object(Bucket=lake.bucket, Key=_key(lake, layer), Body=b"")
    for layer in ("bronze", "silver"):
        if not _allowed(s3.list_objects_v2, lake, Prefix=lake.key(layer, "t", "")):
            raise Wrong(f"The loader cannot list the folder {layer}/. {_why_no_listing(answer, lake, layer)}")
    _require(s3.get_object, lake, "silver", "read silver", Key=_key(lake, "silver"))
    _require(s3.put_object, lake, "bronze", "write to bronze", Key=_key(lake, "bronze"))
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
    if _allowed(s3.get_object, lake, Key=_key(lake, "gold")) or _allowed(s3.put_object, lake, Key=_key(lake, "gold")):
        raise Wrong("The loader reaches gold. Its resources must end at bronze/ and silver/.")
    for prefix in ("", lake.key(""), lake.key("gold", "")):
        if _allowed(s3.list_objects_v2, lake, Prefix=prefix):
            raise Wrong("The loader sees the rest of the lake: it may list more than bronze/ and silver/.")
    return Right("The loader appends to bronze, reads silver, and reaches nothing else.")


def _key(lake: Lake, layer: str) -> str:
    return lake.key(layer, "t", _PROBE)


def _require(call: Callable[..., Any], lake: Lake, layer: str, what: str, **arguments: str) -> None:
    if not _allowed(call, lake, **arguments):
        raise Wrong(
            f"The loader cannot {what}. Look at the actions, and at the folder {layer}/ in resources and prefixes."
        )


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


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy has one value or a list of them
    return [] if value is None else value if isinstance(value, list) else [value]


def _why_no_listing(policy: dict[str, Any], lake: Lake, layer: str) -> str:
    if not _permits(policy, "s3:ListBucket", f"arn:aws:s3:::{lake.bucket}"):
        if _permits(policy, "s3:ListBucket", _arn(lake, layer)):
            return "ListBucket is an action on the bucket: its resource is the bucket's ARN, without a folder."
        return "Which action lists, and what is its resource?"
    text = json.dumps(policy)
    if "StringEquals" in text:
        return "StringEquals compares the whole prefix, and * is a plain character in it. StringLike knows *."
    if lake.prefix and lake.prefix not in text:
        return "Keys begin with `lake.prefix`, and so must resources and prefixes."
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
        right + 1: "With one run less you would stay within 10 dollars: round down.",
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
    if 0 < answer < 1:
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
