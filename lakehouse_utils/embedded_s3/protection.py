"""The protection of the embedded S3 server: keys, a certificate, and a check from outside that they work.

Without it, anyone on this machine can read, write and list all objects through SeaweedFS's ports other than S3.
"""

import http.client
import ipaddress
import secrets
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime

from lakehouse_utils.embedded_s3.ports import COMPONENTS
from lakehouse_utils.processes import HOST, Ports, StateFolder

_CERTIFICATE, _CERTIFICATE_KEY = "grpc.pem", "grpc.key"
_ANSWER_TIMEOUT_S = 5  # under load, single requests take seconds
# An unprotected server answers these requests from anyone: listings, a token to write, the volumes.
_PROTECTED_PAGES = (
    ("s3.port", "/"),
    ("filer.port", "/"),
    ("filer.port", "/buckets/"),
    ("master.port", "/dir/assign"),
    ("volume.port", "/ui/index.html"),
)


def access_keys(folder: StateFolder) -> dict[str, str]:
    """The `access_key` and `secret_key` of the server in `folder`. Created on first use."""
    keys: dict[str, str] = folder.read_json("keys.json")
    if not keys:
        keys = {"access_key": f"LAKE{secrets.token_hex(8).upper()}", "secret_key": secrets.token_hex(20)}
        folder.write_json("keys.json", keys)
    return keys


def variables() -> dict[str, str]:
    """The variables that protect the ports other than S3: signed HTTP requests, mutual TLS for gRPC.

    The signing keys are new at each call. `write_certificate` writes the files that the other variables name.
    """
    values = {"WEED_GRPC_CA": _CERTIFICATE}
    for use in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ"):
        values[f"WEED_JWT_{use}_KEY"] = secrets.token_hex(32)
    for component in ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT"):
        values[f"WEED_GRPC_{component}_CERT"] = _CERTIFICATE
        values[f"WEED_GRPC_{component}_KEY"] = _CERTIFICATE_KEY
    return values


def write_certificate(folder: StateFolder) -> None:
    """Write a new self-signed certificate, by which the server's components recognize each other."""
    # Imported here, because it is needed only to start a server, and every program that uses one imports this module.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lakehouse")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))  # the server must start even if the clock is wrong
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private_key = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.write_text(_CERTIFICATE, certificate.public_bytes(pem).decode())
    folder.write_text(_CERTIFICATE_KEY, private_key.decode())


def unprotected_ports(ports: Ports) -> list[str]:
    """The ports of a running server that accept requests without credentials, with what each is for."""
    pages = [f"{ports[name]} ({name} {page})" for name, page in _PROTECTED_PAGES if _shows_page(ports[name], page)]
    grpc = [f"{component}.port.grpc" for component in COMPONENTS]
    return pages + [f"{ports[name]} ({name})" for name in grpc if _speaks_grpc(ports[name])]


def http_status(port: int, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    """Send a request to the server and return the status of its answer.

    Raises OSError or http.client.HTTPException if there is no answer within five seconds.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request(method, path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def _shows_page(port: int, page: str) -> bool:
    try:
        return http_status(port, "GET", page) < 400
    except (OSError, http.client.HTTPException):
        return False


def _speaks_grpc(port: int) -> bool:
    """Whether `port` accepts HTTP/2 from a client without a certificate, in plain text or in TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.set_alpn_protocols(["h2"])
    return _accepts_http2(port, lambda connection: connection) or _accepts_http2(port, tls.wrap_socket)


def _accepts_http2(port: int, wrap: Callable[[socket.socket], socket.socket]) -> bool:
    preface, empty_settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"
    try:
        with (
            socket.create_connection((HOST, port), timeout=_ANSWER_TIMEOUT_S) as plain,
            wrap(plain) as connection,
        ):
            connection.sendall(preface + empty_settings)
            return connection.recv(9)[3:4] == b"\4"  # the type of a SETTINGS frame
    except OSError:
        return False
