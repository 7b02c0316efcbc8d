"""Temporary keys that a policy restricts: the embedded server denies what the policy does not allow."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.credentials import Credentials

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DURATION_S = 900


@dataclass(frozen=True)
class RestrictedKeys:
    """The keys, and a boto3 client that uses them: with path-style addresses, and each request sent once."""

    credentials: Credentials
    s3: "S3Client"

    @property
    def variables(self) -> dict[str, str]:
        """The keys by the names of AWS, which are environment variables and storage options of delta-rs."""
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "AWS_SESSION_TOKEN": self.credentials.token,
        }


def issue(lake: Lake, policy: dict[str, Any]) -> RestrictedKeys:
    """Return keys for the lake's server that allow only what `policy` allows; they expire after 15 minutes.

    Raises botocore's ClientError if the server rejects the policy.
    """
    server: dict[str, Any] = {"endpoint_url": lake.endpoint, "region_name": lake.region}
    sts = lake.session.client("sts", **server, config=Config(parameter_validation=False))  # the server needs no RoleArn
    role: dict[str, Any] = {"RoleSessionName": "restricted", "DurationSeconds": _DURATION_S}
    issued = sts.assume_role(**role, Policy=json.dumps(policy))["Credentials"]
    keys = Credentials(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
    session = boto3.Session(keys.access_key, keys.secret_key, keys.token)
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return RestrictedKeys(keys, session.client("s3", **server, config=config))
