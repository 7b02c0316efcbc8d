"""The request log records what was asked, and changes nothing about it."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils.course.request_log import RequestLog, record
from lakehouse_utils.lake import Lake


def client(lake: Lake, log: RequestLog) -> object:
    """An S3 client that sends its requests to `log`, each one once."""
    config = Config(retries={"total_max_attempts": 1})
    return lake.session.client("s3", endpoint_url=log.endpoint, region_name=lake.region, config=config)


def test_record_a_commit(lake: Lake) -> None:
    """A Delta commit is a PUT of a data file, and a PUT of the commit file if it is absent."""
    with record(lake) as log:
        assert log.is_recording
        options = {**lake.storage_options, "AWS_ENDPOINT_URL": log.endpoint, "AWS_ENDPOINT_URL_S3": log.endpoint}
        write_deltalake(lake.uri("t"), pa.table({"n": [1, 2]}), storage_options=options)
    puts = log.requests.query("request == 'PUT'")
    assert puts.values.tolist() == [
        ["PUT", "part-….parquet", "", 200],
        ["PUT", "00000000000000000000.json", "if absent", 200],
    ]
    assert "LIST" in set(log.requests["request"])
    assert DeltaTable(lake.uri("t"), storage_options=lake.storage_options).count() == 2


def test_record_ranges_and_refusals(lake: Lake) -> None:
    """Ranges and conditions are passed on, and recorded with the status of the answer."""
    address = {"Bucket": lake.bucket, "Key": lake.key("a.txt")}
    with record(lake) as log:
        s3 = client(lake, log)
        s3.put_object(**address, Body=b"0123456789", IfNoneMatch="*")
        assert s3.get_object(**address, Range="bytes=-3")["Body"].read() == b"789"
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(**address, Body=b"", IfNoneMatch="*")
    assert log.requests.values.tolist() == [
        ["PUT", "a.txt", "if absent", 200],
        ["GET", "a.txt", "bytes=-3", 206],
        ["PUT", "a.txt", "if absent", 412],
    ]
    assert lake.s3.get_object(**address)["Body"].read() == b"0123456789"


class LakeAt:
    """As much of a Lake as `record` looks at, at an address that the test chooses."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nothing listens, and that no other program can take during the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_record_when_the_server_is_gone(lake: Lake, closed_port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that does not answer is a request with the status 502, and no traceback."""
    with record(LakeAt(f"http://127.0.0.1:{closed_port}")) as log, pytest.raises(ClientError, match="502"):
        client(lake, log).get_object(Bucket=lake.bucket, Key="a.txt")
    assert log.requests.values.tolist() == [["GET", "a.txt", "", 502]]
    assert capfd.readouterr().err == ""


def test_record_when_a_client_hangs_up(lake: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that closes its connection in the middle of a request, or resets it, causes no traceback."""
    with record(lake) as log:
        address = (urlsplit(log.endpoint).hostname, urlsplit(log.endpoint).port)
        for request in (b"", b"GET /x HT", b"PUT /x HTTP/1.1\r\nContent-Length: 100\r\n\r\nfew bytes"):
            for linger in (b"\0" * 8, b"\1" + b"\0" * 7):  # closed in order, or with a reset
                with socket.create_connection(address) as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    connection.sendall(request)
        client(lake, log).put_object(Bucket=lake.bucket, Key=lake.key("a.txt"), Body=b"x")
    assert log.requests.values.tolist()[-1] == ["PUT", "a.txt", "", 200]
    assert capfd.readouterr().err == ""


def test_record_over_tls() -> None:
    """Over TLS the endpoint is the server's own, and nothing is recorded."""
    with record(LakeAt("https://s3.example")) as log:
        assert (log.endpoint, log.is_recording) == ("https://s3.example", False)
    assert log.requests.empty


def test_malformed_requests_print_no_traceback(lake, capfd):
    """Whatever a client sends, the recorder goes on, and prints nothing into the notebook."""
    malformed = [
        b"GET / HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ]
    with record(lake) as log:
        address = urlsplit(log.endpoint)
        for data in malformed:
            with socket.create_connection((address.hostname, address.port)) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"GET /lakehouse HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 403 ")
    assert list(log.requests["answer"]) == [403]
    assert capfd.readouterr().err == ""
