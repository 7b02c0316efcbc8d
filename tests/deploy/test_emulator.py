"""The stack on ministack, an emulator of AWS: it is created, used, and removed so that nothing is left.

ministack pins another botocore than the lock, so it has its own environment: `uv tool install ministack`.
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from contextlib import suppress

import boto3
import pytest

from lakehouse_utils.course import deployment
from lakehouse_utils.processes import wait_until
from lakehouse_utils.settings import CHECKOUT

STACK = "lakehouse"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "deploy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def emulator(tmp_path, monkeypatch):
    """The address of a running ministack, to which boto3 sends all requests."""
    program = shutil.which("ministack")
    if not program:
        pytest.skip("ministack is not installed: uv tool install 'ministack>=1.5,<2'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    settings = {"GATEWAY_PORT": str(port), "MINISTACK_HOST": "127.0.0.1", "HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program], env={**os.environ, **settings}, stdout=log, stderr=log, cwd=tmp_path)
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)

    def answers() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"{address}/_ministack/health", timeout=2).status == 200
        return False

    try:
        assert wait_until(answers, 60), (tmp_path / "log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def stack(emulator) -> dict[str, str]:
    """The outputs of the stack, deployed with all of its parts."""
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    values = {"VpcId": vpc, "RouteTableIds": table, "JobImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/lake:1"}
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName=STACK,
        TemplateBody=deployment.TEMPLATE_PATH.read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1})
    (stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def test_stack_is_created_with_all_parts(stack):
    """Every resource of the template exists, with the bucket's versioning and policy.

    The emulator does not apply lifecycle rules of a template; test_template.py has those.
    """
    created = dict(load("tear_down").resources(STACK))
    assert set(created) == {part["Type"] for part in deployment.template()["Resources"].values()}
    s3, bucket = boto3.client("s3"), stack["BucketName"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert f"arn:aws:s3:::{bucket}/*" in policy["Statement"][0]["Resource"]


def test_every_action_of_the_writer_is_simulated(stack):
    """IAM's simulation allows the writer each of its actions inside the lake, and nothing else."""
    iam, bucket = boto3.client("iam"), stack["BucketName"]
    inside = f"arn:aws:s3:::{bucket}/lakehouse/table"
    actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]

    def decisions(resource: str, *names: str) -> set[str]:
        answer = iam.simulate_principal_policy(
            PolicySourceArn=stack["WriterRoleArn"], ActionNames=names, ResourceArns=[resource]
        )
        return {result["EvalDecision"] for result in answer["EvaluationResults"]}

    assert decisions(inside, *actions) == {"allowed"}
    assert decisions(f"arn:aws:s3:::{bucket}/other/table", *actions) == {"implicitDeny"}
    assert decisions(inside, "s3:PutObjectAcl", "s3:DeleteObjectVersion") == {"implicitDeny"}


def test_tear_down_leaves_nothing(stack, capsys):
    """The script deletes every version of every object and every resource, and would report what is left."""
    s3, bucket, tear_down = boto3.client("s3"), stack["BucketName"], load("tear_down")
    for body in (b"1", b"2"):
        s3.put_object(Bucket=bucket, Key="lakehouse/a", Body=body)
    s3.delete_object(Bucket=bucket, Key="lakehouse/a")
    before = tear_down.resources(STACK)
    assert len(list(tear_down.remaining(before))) == len(before) - 1, "all are found, except for the bucket's policy"
    assert tear_down.main([STACK, "--confirm", STACK]) == 0
    assert "3 versions and uploads deleted" in capsys.readouterr().out
    assert bucket not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


def test_tear_down_can_be_repeated_after_it_failed(stack, monkeypatch):
    """If the bucket cannot be emptied, the stack still exists: a second call deletes both."""
    tear_down, s3 = load("tear_down"), boto3.client("s3")
    s3.put_object(Bucket=stack["BucketName"], Key="lakehouse/a", Body=b"1")

    def refuse(_bucket: str) -> int:
        raise RuntimeError("AccessDenied")

    with monkeypatch.context() as patched:
        patched.setattr(tear_down, "empty", refuse)
        with pytest.raises(RuntimeError, match="AccessDenied"):
            tear_down.main([STACK, "--confirm", STACK])
    assert tear_down.main([STACK, "--confirm", STACK]) == 0
    assert stack["BucketName"] not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


def test_tear_down_reports_a_bucket_that_it_could_not_delete(stack, monkeypatch, capsys):
    """If a writer still writes when the stack is gone, the bucket stays, and the exit code is 1."""
    tear_down, bucket, calls = load("tear_down"), stack["BucketName"], []

    def refuse_at_second_call(name: str) -> int:
        calls.append(name)
        if len(calls) == 2:
            raise RuntimeError("AccessDenied")
        return 0

    monkeypatch.setattr(tear_down, "empty", refuse_at_second_call)
    assert tear_down.main([STACK, "--confirm", STACK]) == 1
    assert f"{bucket} could not be deleted" in (printed := capsys.readouterr().out)
    assert f"AWS::S3::Bucket {bucket}: still exists" in printed
    boto3.client("s3").delete_bucket(Bucket=bucket)


def test_tear_down_goes_on_after_the_bucket_is_deleted(stack):
    """If the bucket was deleted in an earlier call, or by hand, the stack is deleted without an error."""
    boto3.client("s3").delete_bucket(Bucket=stack["BucketName"])
    assert load("tear_down").main([STACK, "--confirm", STACK]) == 0


def test_tear_down_wants_the_name_twice(capsys):
    """A wrong --confirm deletes nothing."""
    with pytest.raises(SystemExit):
        load("tear_down").main([STACK, "--confirm", "lake"])
    assert "not the name of the stack" in capsys.readouterr().err


def test_register_runs_twice_without_an_error(stack):
    """Each statement is accepted, also a second time. The emulator does not read Delta tables."""
    register, athena = load("register_tables"), boto3.client("athena")
    # The emulator does not know results that Athena manages itself.
    results = {"OutputLocation": f"s3://{stack['BucketName']}/results/"}
    athena.update_work_group(WorkGroup="lakehouse", ConfigurationUpdates={"ResultConfigurationUpdates": results})
    sql = "CREATE EXTERNAL TABLE IF NOT EXISTS lakehouse.gold_fact_sales LOCATION 's3://b/lakehouse/gold/fact_sales/' "
    for _ in range(2):
        register.execute(athena, sql + "TBLPROPERTIES ('table_type' = 'DELTA')")
