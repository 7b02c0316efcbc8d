"""The policies of deploy/template.yaml, enforced by a real S3 server: something needs each action.

The embedded server issues temporary credentials with a session policy, and refuses what the policy does not allow.
"""

from collections.abc import Callable

import pandas as pd
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

import ingestion_processor
from lakehouse_utils.course import deployment, restricted_keys
from lakehouse_utils.course.restricted_keys import RestrictedKeys
from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

Job = Callable[..., tuple[int, str]]


@pytest.fixture
def role_with(lake) -> Callable[..., RestrictedKeys]:
    """Return keys with the policy of a role of the template, or with one action less."""

    def make(name: str = "WriterRole", without: str = "") -> RestrictedKeys:
        policy = deployment.lake_policy(name, lake.bucket, lake.prefix)
        return restricted_keys.issue(lake, deployment.without_action(policy, without))

    return make


@pytest.fixture
def job(s3_server, lake, monkeypatch, tmp_path) -> Job:
    """Run the job as a role, and return its exit code and its output."""

    def run(role: RestrictedKeys, *arguments: str, **variables: str) -> tuple[int, str]:
        values = role.variables | {"AWS_ENDPOINT_URL": s3_server.endpoint, "LAKEHOUSE_URI": lake.root} | variables
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(ingestion_processor.main, arguments)
        return done.exit_code, done.output

    return run


def options_of(role: RestrictedKeys, lake: Lake) -> dict[str, str]:
    return {**lake.storage_options, **role.variables, "max_retries": "0"}


def old_files(lake: Lake) -> str:
    """A table with one file that a vacuum deletes."""
    uri = lake.uri("silver", "small")
    for number in (1, 2):
        write_deltalake(uri, pd.DataFrame({"n": [number]}), mode="overwrite", storage_options=lake.storage_options)
    return uri


def vacuum(uri: str, options: dict[str, str]) -> list[str]:
    table = DeltaTable(uri, storage_options=options)
    return table.vacuum(0, enforce_retention_duration=False, dry_run=False)


@pytest.mark.slow
def test_job_runs_checks_and_maintains_as_the_writer(job, role_with):
    """Under the policy, the job builds the lake, finds nothing new in a second run, checks it and maintains it."""
    role = role_with()
    for arguments in ([], [], ["--check"], ["--maintain"]):
        code, output = job(role, *arguments)
        assert code == 0, f"{arguments}: {output}"


@pytest.mark.slow
def test_scheduled_job_reads_raw_files_as_the_writer(job, role_with, lake):
    """With the variables of the schedule, the job loads the landing folder, which is not a table of the lake."""
    names = {"${Bucket}": lake.bucket, "${LakePrefix}": lake.prefix}
    variables = deployment.scheduled_request("Schedule")["Environment"]
    for name, value in names.items():
        variables = {key: text.replace(name, value) for key, text in variables.items()}
    assert variables["LAKEHOUSE_URI"] == lake.root
    code, output = job(role_with(), **variables)
    assert code == 0 and "there are no files to load at" in output
    raw = CHECKOUT / "data" / "landing" / "2026-01-01" / "stores.csv"
    lake.s3.upload_file(str(raw), lake.bucket, lake.key("_landing", "2026-01-01", "stores.csv"))
    for arguments in ([], ["--check"], ["--maintain"]):
        code, output = job(role_with(), *arguments, **variables)
        assert code == 0, f"{arguments}: {output}"
    assert lake.delta("bronze", "stores").count() > 0
    assert all(not ref.names[0].startswith("_") for ref in lake.tables())


def test_job_needs_to_list(job, role_with):
    """Without s3:ListBucket, the job fails before it writes anything, and says what is denied."""
    code, output = job(role_with(without="s3:ListBucket"))
    assert code == 1 and "s3:ListBucket" in output


def test_job_needs_to_put(job, role_with):
    """Without s3:PutObject, the job cannot build a table."""
    code, output = job(role_with(without="s3:PutObject"))
    assert code == 1 and "s3:PutObject" in output


@pytest.mark.slow
def test_job_needs_to_get(job, role_with):
    """Without s3:GetObject, the job cannot read the tables of an earlier run."""
    assert job(role_with())[0] == 0
    code, output = job(role_with(without="s3:GetObject"))
    assert code == 1 and "s3:GetObject" in output


def test_vacuum_needs_to_delete(lake, role_with):
    """Without s3:DeleteObject, a vacuum fails and the old file stays; with it, the file goes."""
    uri = old_files(lake)
    with pytest.raises(OSError, match="AccessDenied"):
        vacuum(uri, options_of(role_with(without="s3:DeleteObject"), lake))
    assert len(vacuum(uri, options_of(role_with(), lake))) == 1


def test_appends_do_not_need_to_delete(lake, role_with):
    """Without s3:DeleteObject, a writer that only appends works."""
    uri, options = old_files(lake), options_of(role_with(without="s3:DeleteObject"), lake)
    write_deltalake(uri, pd.DataFrame({"n": [3]}), mode="append", storage_options=options)
    assert DeltaTable(uri, storage_options=options).count() == 2


@pytest.mark.parametrize("role", ["WriterRole", "ReaderRole"])
def test_role_cannot_leave_its_prefix(role, lake, role_with):
    """Neither role can list, read or write outside of the lake, not even where keys begin with the lake's prefix."""
    s3 = role_with(role).s3
    outside = {"Bucket": lake.bucket, "Key": f"{lake.prefix}-other/object"}
    lake.s3.put_object(**outside, Body=b"")
    calls = [
        lambda: s3.list_objects_v2(Bucket=lake.bucket),
        lambda: s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.prefix),
        lambda: s3.list_objects_v2(Bucket=lake.bucket, Prefix=f"{lake.prefix}-other/"),
        lambda: s3.get_object(**outside),
        lambda: s3.put_object(**outside, Body=b"x"),
        lambda: s3.delete_object(**outside),
    ]
    for call in calls:
        with pytest.raises(ClientError, match="AccessDenied"):
            call()


def test_reader_reads_and_cannot_write(lake, role_with):
    """The reader opens and reads a table; an append and a vacuum are refused."""
    uri, options = old_files(lake), options_of(role_with("ReaderRole"), lake)
    assert DeltaTable(uri, storage_options=options).to_pandas()["n"].tolist() == [2]
    with pytest.raises((OSError, DeltaError), match=r"privileges|AccessDenied"):
        write_deltalake(uri, pd.DataFrame({"n": [3]}), mode="append", storage_options=options)
    with pytest.raises(OSError, match=r"privileges|AccessDenied"):
        vacuum(uri, options)


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject"])
def test_reader_needs_each_action(action, lake, role_with):
    """Without either of its two actions, the reader cannot open a table."""
    uri = old_files(lake)
    with pytest.raises(OSError, match=r"privileges|AccessDenied"):
        DeltaTable(uri, storage_options=options_of(role_with("ReaderRole", without=action), lake))
