"""What is heard is what was asked, and asking in its hearing changes nothing."""

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils.course.request_log import record
from lakehouse_utils.lake import Lake


def test_a_commit_is_heard_as_put_if_absent(lake: Lake) -> None:
    with record(lake) as ear:
        options = {**lake.storage_options, "AWS_ENDPOINT_URL": ear.address, "AWS_ENDPOINT_URL_S3": ear.address}
        write_deltalake(lake.uri("t"), pa.table({"n": [1, 2]}), storage_options=options)
    puts = ear.heard.query("request == 'PUT'")
    assert puts.values.tolist() == [
        ["PUT", "part-….parquet", "", 200],
        ["PUT", "00000000000000000000.json", "if absent", 200],
    ]
    assert DeltaTable(lake.uri("t"), storage_options=lake.storage_options).count() == 2


def test_ranges_and_refusals_are_heard(lake: Lake) -> None:
    place = {"Bucket": lake.bucket, "Key": lake.key("a.txt")}
    with record(lake) as ear:
        s3 = lake.session.client("s3", endpoint_url=ear.address, region_name=lake.region)
        s3.put_object(**place, Body=b"0123456789", IfNoneMatch="*")
        assert s3.get_object(**place, Range="bytes=-3")["Body"].read() == b"789"
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(**place, Body=b"", IfNoneMatch="*")
    assert ear.heard.values.tolist() == [
        ["PUT", "a.txt", "if absent", 200],
        ["GET", "a.txt", "bytes=-3", 206],
        ["PUT", "a.txt", "if absent", 412],
    ]
    assert lake.s3.get_object(**place)["Body"].read() == b"0123456789"
