"""Keys that a policy restricts do what it allows, and nothing else."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from lakehouse_utils.course import restricted_keys
from lakehouse_utils.lake import Lake


def policy(lake: Lake, *actions: str) -> dict[str, Any]:
    """A policy that allows actions on the lake's objects."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": f"arn:aws:s3:::{lake.bucket}/{lake.prefix}/*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_client_does_what_the_policy_allows(lake: Lake) -> None:
    """With s3:GetObject alone, the client can get an object and cannot put one."""
    address = {"Bucket": lake.bucket, "Key": lake.key("a.txt")}
    lake.s3.put_object(**address, Body=b"content")
    s3 = restricted_keys.issue(lake, policy(lake, "s3:GetObject")).s3
    assert s3.get_object(**address)["Body"].read() == b"content"
    with pytest.raises(ClientError, match="AccessDenied") as denied:
        s3.put_object(**address, Body=b"")
    assert denied.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_variables_are_the_keys_of_the_client(lake: Lake) -> None:
    """The variables have the names of AWS, and are the keys that the client uses."""
    keys = restricted_keys.issue(lake, policy(lake, "s3:GetObject"))
    used = keys.s3._request_signer._credentials
    assert keys.variables == {
        "AWS_ACCESS_KEY_ID": used.access_key,
        "AWS_SECRET_ACCESS_KEY": used.secret_key,
        "AWS_SESSION_TOKEN": used.token,
    }


def test_keys_are_not_shown(lake: Lake) -> None:
    """A notebook that shows the keys does not save them."""
    keys = restricted_keys.issue(lake, policy(lake, "s3:GetObject"))
    assert not [value for value in keys.variables.values() if value in repr(keys)]


def test_issue_with_an_invalid_policy(lake: Lake) -> None:
    """A policy that the server cannot read is an error of the server."""
    with pytest.raises(ClientError, match="policy"):
        restricted_keys.issue(lake, {"Version": "2012-10-17", "Statement": "none"})
