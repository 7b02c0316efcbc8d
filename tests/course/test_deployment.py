"""The policies that notebook 11 takes from deploy/template.yaml, and what is left of one without an action."""

import copy
import json
import re
from typing import Any

import pytest

from lakehouse_utils.course import deployment

ROLES = ["WriterRole", "ReaderRole"]


def resources(policy: dict[str, Any]) -> set[str]:
    """The resources of all statements."""
    return {statement["Resource"] for statement in policy["Statement"]}


# -- the template


def test_template_has_the_two_roles() -> None:
    """The template is read as YAML: a dict with both roles among its resources."""
    assert set(ROLES) <= deployment.template()["Resources"].keys()


def test_template_can_be_changed_by_its_caller() -> None:
    """Each call reads the file again, so that a change of one result is not in the next one."""
    deployment.template()["Resources"].clear()
    assert deployment.template()["Resources"]


# -- lake_policy


@pytest.mark.parametrize("role", ROLES)
def test_lake_policy_is_for_the_given_lake(role: str) -> None:
    """The policy is about the bucket and the objects below the prefix, and it lists below that prefix only."""
    policy = deployment.lake_policy(role, "a-bucket", "a-prefix")
    assert resources(policy) == {"arn:aws:s3:::a-bucket", "arn:aws:s3:::a-bucket/a-prefix/*"}
    (listing,) = (statement for statement in policy["Statement"] if statement["Action"] == "s3:ListBucket")
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "a-prefix/*"}}


@pytest.mark.parametrize("role", ROLES)
def test_lake_policy_has_no_function_of_cloudformation(role: str) -> None:
    """Nothing is left for CloudFormation to put in: the policy is what AWS and the embedded server take."""
    policy = json.dumps(deployment.lake_policy(role, "a-bucket", "a-prefix"))
    assert "Fn::" not in policy and "${" not in policy


def test_lake_policy_of_a_nested_prefix() -> None:
    """The prefix may have several parts, as that of a notebook's lake has."""
    policy = deployment.lake_policy("ReaderRole", "a-bucket", "a/b")
    assert "arn:aws:s3:::a-bucket/a/b/*" in resources(policy)


@pytest.mark.parametrize("role", ROLES)
def test_lake_policy_without_the_other_policies_of_the_role(role: str) -> None:
    """Only the policy `lake` is returned: a role's other policies, for its container or for Athena, are left out."""
    policy = json.dumps(deployment.lake_policy(role, "a-bucket", "a-prefix"))
    assert set(re.findall(r'"(\w+):[A-Z]\w+"', policy)) == {"s3"}


def test_lake_policy_of_a_role_that_does_not_exist() -> None:
    """The name of a role is the one in the template."""
    with pytest.raises(KeyError, match="OwnerRole"):
        deployment.lake_policy("OwnerRole", "a-bucket", "a-prefix")


# -- without_action


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "the bucket", "Condition": {"StringLike": {}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "its objects"},
    ],
}


def test_without_action_of_several() -> None:
    """The statement keeps its other actions, and everything else about it."""
    (_, objects) = deployment.without_action(POLICY, "s3:GetObject")["Statement"]
    assert objects == {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "its objects"}


def test_without_the_only_action_of_a_statement() -> None:
    """A statement that allows nothing else goes; the version of the policy stays."""
    policy = deployment.without_action(POLICY, "s3:ListBucket")
    assert policy == {"Version": "2012-10-17", "Statement": [POLICY["Statement"][1]]}


@pytest.mark.parametrize("action", ["s3:DeleteObject", "s3:Get", ""])
def test_without_action_that_it_does_not_have(action: str) -> None:
    """The policy allows the same as before; a part of a name is not a name."""
    listing, objects = deployment.without_action(POLICY, action)["Statement"]
    assert listing == POLICY["Statement"][0] | {"Action": ["s3:ListBucket"]}
    assert objects == POLICY["Statement"][1]


def test_without_action_returns_another_policy() -> None:
    """The given policy is not changed, so that one policy can be tried without each of its actions in turn."""
    before = copy.deepcopy(POLICY)
    deployment.without_action(POLICY, "s3:GetObject")
    assert before == POLICY


def test_without_each_action_of_the_writer() -> None:
    """The writer's policy can be tried without each of its five actions: then it allows the other four."""
    policy = deployment.lake_policy("WriterRole", "a-bucket", "a-prefix")
    names = ["ListBucket", "GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"]
    for left_out in names:
        text = json.dumps(deployment.without_action(policy, f"s3:{left_out}"))
        assert [name for name in names if f'"s3:{name}"' not in text] == [left_out]
