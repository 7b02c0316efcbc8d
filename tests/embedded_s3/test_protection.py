"""The protection of the embedded S3 server: no request without credentials reads, lists or changes an object."""

import contextlib
import http.client
import socket
import ssl
import stat
import struct
import sys
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from support.s3_servers import GRPC_PORTS, HTTP_PORTS, client, recorded_ports, running_pids, sockets_in_tmp

from lakehouse_utils import embedded_s3
from lakehouse_utils.embedded_s3 import Server, program, protection
from lakehouse_utils.errors import LocalServerError

CONTENT = b"what only the owner can read"


def test_server_listens_on_the_loopback_only(s3_server, s3_state_dir):
    """The server listens on its chosen ports of 127.0.0.1 and on nothing else, and starts no other process."""
    listening = [c.laddr for c in psutil.Process(s3_server.pid).net_connections("tcp") if c.status == "LISTEN"]
    ports = recorded_ports(s3_state_dir)
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == set(ports.values()) - {ports["webdav.port"]}
    assert psutil.Process(s3_server.pid).children() == []


def test_request_without_credentials_reaches_no_object(state_dir):
    """No request without credentials, on any port, reads, lists or changes anything."""
    server = embedded_s3.ensure(state_dir)
    assert what_strangers_can(server, state_dir) == set()


def test_certificate_of_the_server_opens_grpc(state_dir):
    """The gRPC ports accept the server's own certificate: they refuse strangers for lack of it and of nothing else."""
    embedded_s3.ensure(state_dir)
    tls = tls_without_certificate()
    tls.load_cert_chain(state_dir / "s3" / "grpc.pem", state_dir / "s3" / "grpc.key")
    assert all(speaks_http2(recorded_ports(state_dir)[name], tls) for name in GRPC_PORTS)


def test_check_of_strangers_sees_an_unprotected_server(state_dir, monkeypatch):
    """The requests of the test above succeed on a server without protection."""
    monkeypatch.setattr(protection, "variables", dict)
    monkeypatch.setattr(protection, "unprotected_ports", lambda ports: [])
    monkeypatch.setattr(program, "FLAGS", tuple(set(program.FLAGS) - {"-disableHttp"}))
    server = embedded_s3.ensure(state_dir)
    can = what_strangers_can(server, state_dir)
    assert {"read filer.port", "list filer.port", "change filer.port", "read volume.port", "token master.port"} <= can
    assert {f"gRPC in plain text {name}" for name in GRPC_PORTS} <= can


@pytest.mark.parametrize("missing", ["keys and certificates", "http"])
def test_unprotected_server_is_stopped(state_dir, monkeypatch, missing):
    """A server that turns out to accept requests without credentials is stopped, and its ports are named."""
    if missing == "http":
        monkeypatch.setattr(program, "FLAGS", tuple(set(program.FLAGS) - {"-disableHttp"}))
    else:
        monkeypatch.setattr(protection, "variables", dict)
    with pytest.raises(LocalServerError, match=r"accepts requests without credentials on these ports: \d{5} \("):
        embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == []
    assert embedded_s3.status(state_dir) is None


def test_server_on_all_interfaces_is_stopped(state_dir, monkeypatch):
    """A server that listens on other addresses than the loopback is stopped."""
    flags = tuple(flag.replace("127.0.0.1", "0.0.0.0") for flag in program.FLAGS)
    monkeypatch.setattr(program, "FLAGS", flags)
    with pytest.raises(LocalServerError, match=r"was stopped because it listens on unexpected addresses: .*:\d{5}"):
        embedded_s3.ensure(state_dir)
    assert running_pids(state_dir) == []


@pytest.mark.parametrize("wrong", [{"secret_key": "0" * 40}, {"access_key": "somebody"}])
def test_wrong_keys_are_refused(s3_server, wrong):
    """Requests with a wrong access key or secret key are refused."""
    s3 = client(s3_server, **wrong)
    for attempt in (
        lambda: s3.list_objects_v2(Bucket="lakehouse"),
        lambda: s3.put_object(Bucket="lakehouse", Key="intruder", Body=b""),
        s3.list_buckets,
    ):
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied"):
            attempt()


def test_keys_belong_to_one_checkout_and_can_be_replaced(state_dir, s3_server):
    """Each checkout has its own secret key; after its file is deleted there is a new one, and the old is refused."""
    server = embedded_s3.ensure(state_dir)
    assert server.secret_key != s3_server.secret_key
    assert len(server.secret_key) >= 40
    (state_dir / "s3" / "keys.json").unlink()
    renewed = embedded_s3.ensure(state_dir)
    assert renewed.secret_key != server.secret_key
    with pytest.raises(ClientError):
        client(renewed, access_key=server.access_key, secret_key=server.secret_key).list_buckets()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_files_and_sockets_are_readable_by_their_owner_only(state_dir):
    """Only the owner can enter the folder, read the keys and open the sockets."""
    embedded_s3.ensure(state_dir)
    assert stat.S_IMODE((state_dir / "s3").stat().st_mode) == 0o700
    for name in ("keys.json", "grpc.key"):
        assert stat.S_IMODE((state_dir / "s3" / name).stat().st_mode) == 0o600
    for path in sockets_in_tmp(state_dir):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0


def test_secret_key_is_in_its_file_only(state_dir):
    """The secret key is in no command line, log or repr; the only file that holds it is keys.json."""
    server = embedded_s3.ensure(state_dir)
    client(server).put_object(Bucket="lakehouse", Key="a", Body=b"a")
    assert server.secret_key not in " ".join(psutil.Process(server.pid).cmdline())
    assert server.secret_key not in repr(server)
    embedded_s3.stop(state_dir)
    files = [path for path in (state_dir / "s3").rglob("*") if path.is_file()]
    assert [path.name for path in files if server.secret_key.encode() in path.read_bytes()] == ["keys.json"]


# Requests without credentials


def what_strangers_can(server: Server, state_dir: Path) -> set[str]:
    """What somebody without credentials can do with objects, as '<action> <port>'."""
    s3 = client(server)
    s3.put_object(Bucket="lakehouse", Key="folder/private-object", Body=CONTENT * 100)
    ports = recorded_ports(state_dir)
    file_ids = file_ids_of(state_dir)
    assert file_ids
    private = ["/lakehouse/folder/private-object", "/buckets/lakehouse/folder/private-object", *file_ids]
    lists = ["/", "/buckets/", "/buckets/lakehouse/", "/buckets/lakehouse/folder/", "/lakehouse?list-type=2"]
    lists += ["/lakehouse?versions", "/lakehouse/folder/", "/?pretty=y", "/vol/status", "/dir/status", "/metrics"]
    lists += ["/api/files", "/api/s3/buckets", "/api/users", "/admin", "/stats/disk", "/ui/index.html"]
    tokens = ["/dir/assign", "/dir/assign?collection=lakehouse", f"/dir/lookup?volumeId={file_ids[0][1:2]}"]
    changes = [*private, *lists, "/lakehouse/intruder", "/buckets/lakehouse/intruder", "/lakehouse", "/submit"]
    changes += ["/buckets/lakehouse/?recursive=true", "/col/delete?collection=lakehouse", "/vol/grow?count=1"]
    can = set()
    for name in HTTP_PORTS + GRPC_PORTS:
        for path in private + lists + tokens:
            status, body = send(ports[name], "GET", path)
            if CONTENT in body:
                can.add(f"read {name}")
            if b"private-object" in body and status == 200:
                can.add(f"list {name}")
            if status == 200 and (b'"fid"' in body or b'"locations"' in body):
                can.add(f"token {name}")
    for name in HTTP_PORTS + GRPC_PORTS:
        before = stored(s3)
        for method in ("PUT", "POST", "DELETE"):
            for path in changes:
                send(ports[name], method, path, b"changed by a stranger")
        if stored(s3) != before:
            can.add(f"change {name}")
    can |= {f"gRPC in plain text {name}" for name in ports if speaks_http2(ports[name])}
    can |= {f"gRPC in TLS {name}" for name in ports if speaks_http2(ports[name], tls_without_certificate())}
    return can


def stored(s3) -> dict[str, bytes]:
    """All objects. An object that cannot be read any more counts as changed."""
    try:
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket="lakehouse").get("Contents", [])]
        return {key: s3.get_object(Bucket="lakehouse", Key=key)["Body"].read() for key in keys}
    except ClientError as error:
        return {"error": str(error).encode()}


def send(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def speaks_http2(port: int, tls: ssl.SSLContext | None = None) -> bool:
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            if tls:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return connection.recv(9)[3:4] == b"\x04"  # the server's SETTINGS
    except OSError:
        return False


def tls_without_certificate() -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.set_alpn_protocols(["h2"])
    return tls


def file_ids_of(state_dir: Path) -> list[str]:
    """The addresses of all stored files on the volume server: '/volume,key+cookie'."""
    addresses = []
    for index in (state_dir / "s3" / "data").glob("lakehouse_*.idx"):
        volume, data = index.stem.rpartition("_")[2], index.with_suffix(".dat").read_bytes()
        for key, low, high, _ in struct.iter_unpack(">QIBi", index.read_bytes()):
            (cookie,) = struct.unpack_from(">I", data, (high << 32 | low) * 8)
            addresses.append(f"/{volume},{key:x}{cookie:08x}")
    return addresses
