"""deploy/template.yaml: it passes the linters, protects the bucket, and its policies are the least that is needed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from parliament import analyze_policy_string

from lakehouse_utils.course import deployment
from lakehouse_utils.settings import CHECKOUT

TEMPLATE = deployment.template()
RESOURCES = TEMPLATE["Resources"]
WRITER_ACTIONS = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]


def actions(policy: dict) -> list[str]:
    lists = [entry["Action"] for entry in policy["Statement"]]
    return sorted(name for entry in lists for name in ([entry] if isinstance(entry, str) else entry))


def test_cfn_lint_finds_nothing():
    """cfn-lint accepts the template, which includes the schema of each resource."""
    command = [Path(sys.executable).with_name("cfn-lint"), deployment.TEMPLATE_PATH]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_parliament_finds_nothing():
    """parliament finds no problem in any policy of a role."""
    for name, resource in RESOURCES.items():
        for policy in resource["Properties"].get("Policies", []):
            text = re.sub(
                r"\{\"Fn::(?:Sub|GetAtt)\": (\[[^\]]*\]|\"(?:[^\"\\]|\\.)*\")\}",
                _plain,
                json.dumps(policy["PolicyDocument"]),
            )
            found = [finding.issue for finding in analyze_policy_string(text).findings]
            assert found == [], f"{name}, {policy['PolicyName']}"


def _plain(found: re.Match) -> str:
    value = json.loads(found[1])
    if isinstance(value, list):
        return '"arn:aws:iam::123456789012:role/writer"'
    known = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}
    return json.dumps(re.sub(r"\$\{([\w:]+)\}", lambda name: known.get(name[1], "lakehouse"), value))


def test_bucket_is_private_encrypted_and_versioned():
    """Block Public Access is on in all four parts, requests without TLS are denied, and old versions are kept."""
    bucket = RESOURCES["Bucket"]["Properties"]
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4 and all(bucket["PublicAccessBlockConfiguration"].values())
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (tls,) = RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (tls["Effect"], tls["Action"], tls["Principal"]) == ("Deny", "s3:*", "*")
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}} and len(tls["Resource"]) == 2


def test_lifecycle_never_touches_current_objects():
    """The rules delete unfinished uploads, noncurrent versions and then their delete markers, never current objects."""
    rules = RESOURCES["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    deletes = {"AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration", "ExpiredObjectDeleteMarker"}
    allowed = {"Id", "Status", *deletes}
    assert all(rule.keys() <= allowed and rule["Status"] == "Enabled" for rule in rules)
    assert {name for rule in rules for name in rule} == allowed


def test_roles_have_the_documented_actions():
    """The writer has the five actions of docs/settings.md on the same resources; the reader can only list and read."""
    writer = deployment.lake_policy("WriterRole", "your-bucket", "lakehouse")
    page = (CHECKOUT / "docs" / "settings.md").read_text("utf-8")
    documented = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert writer == documented and actions(writer) == WRITER_ACTIONS
    reader = deployment.lake_policy("ReaderRole", "your-bucket", "lakehouse")
    assert actions(reader) == ["s3:GetObject", "s3:ListBucket"]
    assert [entry["Resource"] for entry in reader["Statement"]] == [entry["Resource"] for entry in writer["Statement"]]


@pytest.mark.parametrize(("schedule", "options"), [("Schedule", []), ("MaintenanceSchedule", ["--maintain"])])
def test_schedule_starts_the_job_of_this_repository(schedule, options):
    """The schedule's request is valid JSON and runs a program that exists, as the writer, under a valid unique name."""
    request = deployment.scheduled_request(schedule)
    _, program, *given = request["AppSpecification"]["ContainerEntrypoint"]
    assert (CHECKOUT / program).is_file() and [option for option in given if option != "--quiet"] == options
    assert request["RoleArn"] == "${WriterRole.Arn}"
    longest = request["ProcessingJobName"].replace("<aws.scheduler.execution-id>", "0" * 36)
    assert len(longest) <= 63 and re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", longest)
    assert longest.startswith("lakehouse-"), "the scheduler's role may only start jobs with this prefix"


def test_schedule_reads_raw_files_from_the_bucket():
    """The job reads raw files from the folder that the stack's output names, and not from its image."""
    variables = deployment.scheduled_request("Schedule")["Environment"]
    landing = TEMPLATE["Outputs"]["LandingUri"]["Value"]["Fn::Sub"]
    assert variables["LAKEHOUSE_LANDING"] == landing == variables["LAKEHOUSE_URI"] + "/_landing"


def test_schedules_do_not_start_at_the_same_minute():
    """By default, the maintenance starts at a minute at which the job does not start."""
    job = TEMPLATE["Parameters"]["ScheduleExpression"]["Default"]
    maintenance = RESOURCES["MaintenanceSchedule"]["Properties"]["ScheduleExpression"]
    assert job.split()[0] != maintenance.split()[0] and maintenance.split()[4] == "SUN"


def test_scheduled_job_can_pull_its_image_and_log():
    """SageMaker pulls the image and writes the log with the writer's role, so that role allows both."""
    policies = {policy["PolicyName"]: policy for policy in RESOURCES["WriterRole"]["Properties"]["Policies"]}
    allowed = actions(policies["container"]["PolicyDocument"])
    assert {"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"} <= set(allowed)
    assert {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"} <= set(allowed)
    assert not any(name.startswith("s3:") or "*" in name for name in allowed)
