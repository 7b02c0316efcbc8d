"""Delete the stack and its bucket with all versions of all objects, and check that nothing is left.

    python deploy/tear_down.py lakehouse --confirm lakehouse

The exit code is 0 only if no resource of the stack is found afterwards. There is no way back: the lake is gone.
Stop all writers first. The bucket is emptied first: if that fails, nothing else is deleted, and you can call the script
again.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import boto3
from botocore.exceptions import ClientError

_KEYS_PER_DELETE = 1000  # the limit of S3's DeleteObjects
_GONE = {"404", "NoSuchBucket", "NoSuchEntity", "EntityNotFoundException", "ResourceNotFoundException"}


def resources(stack: str) -> list[tuple[str, str]]:
    """The type and the physical id of each resource of the stack."""
    pages = boto3.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    found = [entry for page in pages for entry in page["StackResourceSummaries"]]
    return [(entry["ResourceType"], entry["PhysicalResourceId"]) for entry in found if entry.get("PhysicalResourceId")]


def empty(bucket: str) -> int:
    """Delete all versions, delete markers and unfinished uploads, and return how many there were."""
    s3, deleted = boto3.client("s3"), 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        keys = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        for begin in range(0, len(keys), _KEYS_PER_DELETE):
            chunk = keys[begin : begin + _KEYS_PER_DELETE]
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": chunk, "Quiet": True})
            if errors := answer.get("Errors"):
                raise RuntimeError(f"{errors[0]['Key']} could not be deleted: {errors[0]['Code']}")
            deleted += len(chunk)
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            deleted += 1
    return deleted


def exists(kind: str, id: str) -> bool | None:
    """Whether a resource exists; None for a type that this script cannot look up."""
    look_ups: dict[str, Callable[[], object]] = {
        "AWS::S3::Bucket": lambda: boto3.client("s3").head_bucket(Bucket=id),
        "AWS::IAM::Role": lambda: boto3.client("iam").get_role(RoleName=id),
        "AWS::Glue::Database": lambda: boto3.client("glue").get_database(Name=id),
        "AWS::Athena::WorkGroup": lambda: boto3.client("athena").get_work_group(WorkGroup=id),
        "AWS::Scheduler::Schedule": lambda: boto3.client("scheduler").get_schedule(Name=id),
    }
    if kind == "AWS::EC2::VPCEndpoint":
        filters = [{"Name": "vpc-endpoint-id", "Values": [id]}]
        endpoints = boto3.client("ec2").describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
        return any(endpoint.get("State", "").lower() != "deleted" for endpoint in endpoints)
    if kind not in look_ups:
        return None
    try:
        look_ups[kind]()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _GONE or (code == "InvalidRequestException" and "not found" in str(error)):
            return False
        raise
    return True


def remaining(before: list[tuple[str, str]]) -> Iterator[str]:
    """Describe each resource that still exists or could not be looked up. A bucket's policy goes with the bucket."""
    for kind, id in before:
        if kind == "AWS::S3::BucketPolicy":
            continue
        found = exists(kind, id)
        if found or found is None:
            yield f"{kind} {id}: {'still exists' if found else 'cannot be looked up'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stack")
    parser.add_argument("--confirm", required=True, metavar="STACK", help="the name of the stack, a second time")
    options = parser.parse_args(arguments)
    if options.confirm != options.stack:
        parser.error(f"--confirm {options.confirm} is not the name of the stack")
    cloudformation = boto3.client("cloudformation")
    if cloudformation.describe_stacks(StackName=options.stack)["Stacks"][0].get("EnableTerminationProtection"):
        parser.error(f"{options.stack} is protected against termination: nothing was deleted")
    before = resources(options.stack)
    buckets = [id for kind, id in before if kind == "AWS::S3::Bucket" and exists(kind, id)]
    for bucket in buckets:  # before the stack, because a stack that is deleted no longer says what belonged to it
        print(f"{bucket}: {empty(bucket)} versions and uploads deleted")
    cloudformation.delete_stack(StackName=options.stack)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=options.stack, WaiterConfig={"Delay": 5})
    for bucket in buckets:  # the stack retains it
        try:
            empty(bucket)  # of what a writer that was still running has written
            boto3.client("s3").delete_bucket(Bucket=bucket)
        except (ClientError, RuntimeError) as error:
            print(f"{bucket} could not be deleted, so delete it by hand: {error}")
    problems = list(remaining(before))
    print("\n".join(problems) or f"Nothing is left of {len(before)} resources.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
