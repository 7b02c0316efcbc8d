"""deploy/template.yaml: what each role may do with the lake, and what the schedules start."""

import json
import re
from typing import Any

import yaml

from lakehouse_utils import settings

TEMPLATE_PATH = settings.CHECKOUT / "deploy" / "template.yaml"


def template() -> dict[str, Any]:
    """Return the CloudFormation template as a dict."""
    content: dict[str, Any] = yaml.safe_load(TEMPLATE_PATH.read_text("utf-8"))
    return content


def lake_policy(role: str, bucket: str, prefix: str) -> dict[str, Any]:
    """Return the policy `lake` of `role`, "WriterRole" or "ReaderRole", for a lake at s3://<bucket>/<prefix>.

    What CloudFormation would put in (the bucket's name, the prefix, the partition `aws`) is put in here.
    """
    values = {"Bucket": bucket, "LakePrefix": prefix, "AWS::Partition": "aws"}
    policies = template()["Resources"][role]["Properties"]["Policies"]
    document = next(policy["PolicyDocument"] for policy in policies if policy["PolicyName"] == "lake")
    policy: dict[str, Any] = _resolved(document, values)
    return policy


def scheduled_request(schedule: str) -> dict[str, Any]:
    """Return the request to SageMaker of a schedule, such as "Schedule", with CloudFormation's ${...} still in it."""
    target = template()["Resources"][schedule]["Properties"]["Target"]
    request: dict[str, Any] = json.loads(target["Input"]["Fn::Sub"])
    return request


def without_action(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """Return the policy without one action, such as "s3:GetObject"; a statement that allows nothing else goes too."""
    statements = []
    for statement in policy["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        if kept := [name for name in actions if name != action]:
            statements.append(statement | {"Action": kept})
    return policy | {"Statement": statements}


def _resolved(part: Any, values: dict[str, str]) -> Any:  # noqa: ANN401 - any part of a YAML file
    if isinstance(part, list):
        return [_resolved(entry, values) for entry in part]
    if isinstance(part, dict):
        if part.keys() == {"Fn::Sub"}:
            return re.sub(r"\$\{([\w:]+)\}", lambda name: values[name[1]], part["Fn::Sub"])
        return {name: _resolved(entry, values) for name, entry in part.items()}
    return part
