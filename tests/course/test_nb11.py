"""Notebook 11: right answers that are written differently, and what a policy permits."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from lakehouse_utils.course.exercises import Right, Wrong, nb11
from lakehouse_utils.lake import Lake

SUCCEEDED = "command = 'run' AND status IN ('ok', 'quarantined', 'refused')"
EXITED_WELL = "command = 'run' AND exit_code IN (0, 3, 4)"
ALARMS = [
    f"SELECT NOT EXISTS (FROM runs WHERE {SUCCEEDED} AND ended_at >= now() - INTERVAL 26 HOURS);",
    f"SELECT count(*) FILTER ({SUCCEEDED} AND ended_at > now() - INTERVAL '26' HOUR) = 0 AS alarm FROM runs",
    f"SELECT coalesce(date_diff('second', max(ended_at), now()) > 26 * 3600, true) FROM runs WHERE {SUCCEEDED}",
    f"SELECT t IS NULL OR t < now() - INTERVAL 26 HOURS FROM (SELECT max(ended_at) AS t FROM runs WHERE {SUCCEEDED})",
    f"SELECT NOT EXISTS (FROM runs WHERE {EXITED_WELL} AND ended_at >= now() - INTERVAL 26 HOURS)",
]


@pytest.mark.parametrize("sql", ALARMS)
def test_alarm_in_any_form(sql: str, lake: Lake) -> None:
    """An alarm is right if it is true in the right cases, whichever way it is written."""
    assert isinstance(nb11.check_alarm(sql, lake), Right)


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64, Decimal])
def test_schedule_as_any_number(kind: Callable[[int], float], lake: Lake) -> None:
    """The number of runs is accepted in any type of number, and no other number is."""
    assert isinstance(nb11.check_schedule(kind(62), lake), Right)
    for other in range(1, 3000):
        if other != 62:
            with pytest.raises(Wrong):
                nb11.check_schedule(kind(other), lake)


def _statements(lake: Lake, *objects: dict[str, Any]) -> dict[str, Any]:
    bucket, folders = f"arn:aws:s3:::{lake.bucket}", [lake.key("bronze", "*"), lake.key("silver", "*")]
    listing = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket}
    listing |= {"Condition": {"StringLike": {"s3:prefix": folders}}}
    return {"Version": "2012-10-17", "Statement": [listing, *objects]}


def test_loader_policy_in_any_form(lake: Lake) -> None:
    """Statements may be split or joined, actions have wildcards or any case, and Deny takes away what Allow gives."""
    arn = f"arn:aws:s3:::{lake.bucket}"
    bronze, silver = f"{arn}/{lake.key('bronze', '*')}", f"{arn}/{lake.key('silver', '*')}"
    writes = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": bronze}
    objects = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": [bronze, silver]}, writes]

    def listing(layer: str) -> dict[str, Any]:
        condition = {"StringLike": {"s3:prefix": lake.key(layer, "*")}}
        return {"Effect": "Allow", "Action": ["s3:List*"], "Resource": [arn], "Condition": condition}

    policies = [
        _statements(lake, {"Effect": "Allow", "Action": "s3:Get*", "Resource": [bronze, silver]}, writes),
        _statements(
            lake,
            {"Effect": "Allow", "Action": "s3:getobject", "Resource": silver},
            {"Effect": "Allow", "Action": ["s3:getobject", "s3:putobject", "s3:abort*"], "Resource": [bronze]},
        ),
        _statements(
            lake,
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:DeleteObject"], "Resource": [bronze, silver]},
            {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"},
            writes,
        ),
        _statements(
            lake,
            {"Sid": "Region", "Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": arn},
            {"Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": silver},
            {"Sid": "Append", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": bronze},
            {"Effect": "Allow", "Action": ["s3:Abort*", "s3:ListMultipartUploadParts"], "Resource": bronze},
        ),
        {"Version": "2012-10-17", "Statement": [*(listing(layer) for layer in ("bronze", "silver")), *objects]},
    ]
    for policy in policies:
        assert isinstance(nb11.check_loader_policy(policy, lake), Right)


@pytest.mark.parametrize(
    ("statement", "permits"),
    [
        ({"Action": "s3:Delete*", "Resource": "*"}, True),
        ({"Action": ["s3:deleteobject"], "Resource": ["arn:aws:s3:::b/silver/*", "arn:aws:s3:::b/bronze/*"]}, True),
        ({"NotAction": "s3:GetObject", "Resource": "*"}, True),
        ({"Action": "*", "NotResource": "arn:aws:s3:::b/gold/*"}, True),
        ({"NotAction": "s3:Delete*", "Resource": "*"}, False),
        ({"Action": "s3:DeleteObjectVersion", "Resource": "*"}, False),
        ({"Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::b"}, False),
    ],
)
def test_policy_permits_what_it_allows_and_does_not_deny(statement: dict[str, Any], permits: bool) -> None:
    """Names of actions have wildcards and any case; a Deny that applies wins."""
    action, resource = "s3:DeleteObject", "arn:aws:s3:::b/bronze/t"
    assert nb11._permits({"Statement": {"Effect": "Allow", **statement}}, action, resource) is permits
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = {"Statement": [everything, {"Effect": "Deny", **statement}]}
    assert nb11._permits(policy, action, resource) is not permits
