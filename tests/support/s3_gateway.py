"""An S3 that does to credentials what AWS does, in a process of its own, in front of the embedded server.

It knows temporary and permanent keys, checks the signature of each request, and answers with AWS's own errors where
they don't fit: expired, unknown, of another region, not allowed here. What it lets through, it signs with the embedded
server's keys and passes on byte by byte. It also is the address where a container finds the credentials of its role.

    with Gateway.start(server) as gateway:
        keys = gateway.issue()                      # temporary; issue(token=False) gives permanent ones
        run(env=gateway.environment(keys))          # as a user with these keys
        run(env=gateway.environment())              # as a container with a role
        gateway.expire(after=20)                    # all temporary ones issued so far, 20 requests from now
        gateway.answer("/lakehouse/secret", 403, "AccessDenied")
        gateway.requests()                          # who asked for what: [{"method": ..., "path": ..., "key": ...}]
"""

import http.client
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import trustme
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.s3_proxy import ForwardingHandler, ProxyServer

if TYPE_CHECKING:
    from lakehouse_utils.embedded_s3 import Server

_MESSAGES = {
    "ExpiredToken": "The provided token has expired.",
    "InvalidToken": "The provided token is malformed or otherwise invalid.",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "SignatureDoesNotMatch": "The request signature we calculated does not match the signature you provided. "
    "Check your key and signing method.",
    "AccessDenied": "Access Denied",
    "PermanentRedirect": "The bucket you are attempting to access must be addressed using the specified endpoint. "
    "Please send all future requests to this endpoint.",
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
}


class Keys(NamedTuple):
    """One set of credentials; `token` is "" for permanent ones."""

    access_key: str
    secret_key: str
    token: str


class Gateway:
    """The test's side of a running gateway."""

    def __init__(self, endpoint: str, region: str, control: str, authority: str | None) -> None:
        self.endpoint = endpoint
        self.region = region
        self.authority = authority  # file of the certificate to trust when the address is https
        self._control = control

    def __repr__(self) -> str:
        return f"Gateway({self.endpoint!r})"

    @classmethod
    @contextmanager
    def start(cls, server: "Server", *, region: str = "eu-central-1", tls: bool = False) -> Iterator["Gateway"]:
        """A gateway to `server` that takes requests signed for `region`; with `tls`, under an authority of its own."""
        control = secrets.token_urlsafe()
        setup = {
            "upstream": urlsplit(server.endpoint).netloc,
            "upstream_region": server.region,
            "upstream_keys": [server.access_key, server.secret_key],
            "region": region,
            "control": control,
        }
        with tempfile.TemporaryDirectory(prefix="s3-gateway-") as folder:
            authority, *setup["tls"] = _certificates(Path(folder)) if tls else [None]
            process = subprocess.Popen(
                [sys.executable, "-m", "support.s3_gateway"],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,  # its end, also by our death, ends the gateway
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                print(json.dumps(setup), file=process.stdin, flush=True)
                port = int(process.stdout.readline())
                yield cls(f"{'https' if tls else 'http'}://127.0.0.1:{port}", region, control, authority)
            finally:
                process.stdin.close()
                process.stdout.close()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def issue(self, *, token: bool = True, lifetime: float = 6 * 3600) -> Keys:
        """New credentials: temporary ones, which live for `lifetime` seconds, or permanent ones without a token."""
        return Keys(*self._ask("issue", token=token, lifetime=lifetime))

    def expire(self, keys: Keys | None = None, *, after: int = 0) -> None:
        """Let `keys`, or all temporary ones issued so far, expire after so many more requests with each."""
        self._ask("expire", access_key=keys and keys.access_key, after=after)

    def role(self, *, lifetime: float = 6 * 3600, broken: bool = False) -> None:
        """Let the container's address give credentials of `lifetime` from now on; `broken`: none at all.

        As on ECS the same ones are given until they have expired. boto3 asks again 15 minutes before their end.
        """
        self._ask("role", lifetime=lifetime, broken=broken)

    def answer(
        self,
        path: str,
        status: int,
        code: str | None = None,
        *,
        method: str | None = None,
        times: int | None = None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer requests for keys or listings below `path` (/bucket/prefix) with an S3 error, or with `body`.

        A later rule goes before an earlier one; `times` limits how often it is used.
        """
        self._ask(
            "answer", path=path, status=status, code=code, method=method, times=times, body=body, headers=headers or {}
        )

    def allow(self, path: str) -> None:
        """Take requests below `path` out of the earlier rules."""
        self.answer(path, 0)

    def requests(self) -> list[dict]:
        """What was asked of the S3 side so far, refused requests included: method, path, query, key, status, code."""
        return self._ask("requests")

    def environment(self, keys: Keys | None = None) -> dict[str, str]:
        """Variables for a process that uses this S3: with `keys`, or else with the role of a container."""
        variables = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": self.region}
        if self.authority:
            variables["AWS_CA_BUNDLE"] = self.authority
        if keys:
            variables |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
            return variables | ({"AWS_SESSION_TOKEN": keys.token} if keys.token else {})
        return variables | {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.endpoint}/-/role",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._control,
        }

    def reset(self) -> None:
        """Forget all credentials, rules and requests."""
        self._ask("reset")

    def _ask(self, what: str, **values):
        place = urlsplit(self.endpoint)
        if place.scheme == "https":
            context = ssl.create_default_context(cafile=self.authority)
            connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
        try:
            connection.request("POST", f"/-/{what}", json.dumps(values), {"Authorization": self._control})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the gateway answered {answer.status}: {text!r}")
            return json.loads(text)
        finally:
            connection.close()


def _certificates(folder: Path) -> list[str]:
    """Write an authority's certificate, and a certificate and key for 127.0.0.1; return the three files."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = [folder / name for name in ("authority.pem", "gateway.pem", "gateway.key")]
    authority.cert_pem.write_to_path(files[0])
    certificate.cert_chain_pems[0].write_to_path(files[1])
    certificate.private_key_pem.write_to_path(files[2])
    return [str(file) for file in files]


# -- the other process


@dataclass
class _Known:
    """Credentials and how long they hold: until a moment, or for so many more requests."""

    secret_key: str
    token: str
    ends: int
    requests_left: int | None = None

    def is_expired(self) -> bool:
        return bool(self.token) and (time.time() >= self.ends or self.requests_left == 0)


@dataclass
class _Rule:
    path: str
    status: int
    code: str | None
    method: str | None
    times: int | None
    body: str | None
    headers: dict[str, str]

    def matches(self, method: str, path: str) -> bool:
        return self.times != 0 and self.method in (None, method) and path.startswith(self.path)


@dataclass
class _State:
    upstream: str
    upstream_region: str
    upstream_keys: list[str]
    region: str
    control: str
    tls: list[str]
    keys: dict[str, _Known] = field(default_factory=dict)
    rules: list[_Rule] = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    role_lifetime: float = 6 * 3600
    role_is_broken: bool = False
    role_keys: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class _Refused(Exception):
    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None, **details: str) -> None:
        super().__init__(code)
        self.status, self.code, self.headers, self.details = status, code, headers or {}, details


class _SignerOfUnreadBody(S3SigV4Auth):
    """Signs with the hash of the body that the client named, since the body passes by unread."""

    def payload(self, request: AWSRequest) -> str:
        return request.headers["X-Amz-Content-SHA256"]

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        said = self.payload(request)
        super()._modify_request_before_signing(request)
        del request.headers["X-Amz-Content-SHA256"]
        request.headers["X-Amz-Content-SHA256"] = said


class _Handler(ForwardingHandler):
    state: _State

    def answer_request(self) -> None:
        if self.path.startswith("/-/"):
            self._control(self.path.removeprefix("/-/"))
        else:
            self._answer_as_s3()

    # the S3 side

    def _answer_as_s3(self) -> None:
        address = urlsplit(self.path)
        entry = {
            "method": self.command,
            "path": unquote(address.path),
            "query": address.query,
            "key": None,
            "code": None,
        }
        try:
            rule = self._rule(entry)
            if rule is None or rule.body is None:  # a server that is not S3 asks for no credentials
                self._check_credentials(entry)
            if rule is None or not rule.status:
                entry["status"] = self.forward()
            elif rule.code:
                raise _Refused(rule.status, rule.code, rule.headers)
            else:
                self._send(rule.status, {"Content-Type": "text/html", **rule.headers}, (rule.body or "").encode())
                entry["status"] = rule.status
        except _Refused as refused:
            entry |= {"status": refused.status, "code": refused.code}
            self._refuse(refused)
        finally:
            with self.state.lock:
                self.state.log.append(entry)

    def _check_credentials(self, entry: dict) -> None:
        """Note the access key of the request in `entry`; raises _Refused in the order in which AWS looks."""
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/([^/]+)/s3/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=(\w+)",
            self.headers.get("Authorization", ""),
        )
        if not match:
            raise _Refused(403, "AccessDenied")
        access_key, region, signed, signature = match.groups()
        entry["key"] = access_key
        token = self.headers.get("X-Amz-Security-Token", "")
        if region != self.state.region:
            raise _Refused(400, "AuthorizationHeaderMalformed", Region=self.state.region)
        with self.state.lock:
            known = self.state.keys.get(access_key)
            if known is None:
                raise _Refused(403, "InvalidAccessKeyId", AWSAccessKeyId=access_key)
            if known.is_expired():
                raise _Refused(400, "ExpiredToken", **{"Token-0": token})
            if token != known.token:
                raise _Refused(*((400, "InvalidToken") if token else (403, "InvalidAccessKeyId")), **{"Token-0": token})
            if known.requests_left:
                known.requests_left -= 1
        expected, to_sign = self._signature(known, access_key, region, signed.split(";"))
        if signature != expected:
            raise _Refused(
                403,
                "SignatureDoesNotMatch",
                AWSAccessKeyId=access_key,
                StringToSign=to_sign,
                SignatureProvided=signature,
                CanonicalRequest=f"x-amz-security-token:{token}",
            )

    def _signature(self, known: _Known, access_key: str, region: str, signed: list[str]) -> tuple[str, str]:
        request = AWSRequest(self.command, f"http://{self.headers['Host']}{self.path}")
        for name in signed:
            request.headers[name] = self.headers[name]
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        signer = _SignerOfUnreadBody(Credentials(access_key, known.secret_key), "s3", region)
        to_sign = signer.string_to_sign(request, signer.canonical_request(request))
        return signer.signature(to_sign, request), to_sign

    def _rule(self, entry: dict) -> _Rule | None:
        path = entry["path"]
        if not path.strip("/").partition("/")[2]:  # a listing is of its prefix
            path = f"{path.rstrip('/')}/{dict(parse_qsl(entry['query'])).get('prefix', '')}"
        with self.state.lock:
            for rule in reversed(self.state.rules):
                if rule.matches(self.command, path):
                    rule.times = rule.times and rule.times - 1
                    return rule
        return None

    def request_headers(self) -> dict[str, str]:
        """The client's headers, signed again with the keys of the embedded server."""
        replaced = {"host", "authorization", "x-amz-security-token"}
        headers = {name: value for name, value in super().request_headers().items() if name.lower() not in replaced}
        request = AWSRequest(self.command, f"http://{self.upstream}{self.path}", headers=headers)
        signer = _SignerOfUnreadBody(Credentials(*self.state.upstream_keys), "s3", self.state.upstream_region)
        del request.headers["X-Amz-Date"]
        signer.add_auth(request)
        return dict(request.headers.items())

    def response_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """The server's headers, and the region that the gateway is said to be in."""
        return headers | {"x-amz-bucket-region": self.state.region}

    def _refuse(self, refused: _Refused) -> None:
        details = {"Code": refused.code, "Message": _MESSAGES.get(refused.code, refused.code), **refused.details}
        details |= {"RequestId": secrets.token_hex(8).upper(), "HostId": secrets.token_urlsafe(32)}
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in details.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
        headers = {"Content-Type": "application/xml", "x-amz-bucket-region": self.state.region, **refused.headers}
        self._send(refused.status, headers, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        for _ in self.body_blocks():
            pass
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # the role of a container, and the test's side

    def _control(self, what: str) -> None:
        text = b"".join(self.body_blocks())
        if self.headers.get("Authorization") != self.state.control:
            return self._send(401, {}, b"{}")
        with self.state.lock:
            if what == "role" and self.command == "GET":
                if self.state.role_is_broken:
                    return self._send(500, {}, b"no role here")
                result = self._of_role()
            else:
                result = getattr(self, f"_on_{what}")(**json.loads(text))
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(result).encode())

    def _of_role(self) -> dict[str, str]:
        state = self.state
        if state.role_keys is None or state.keys[state.role_keys].is_expired():
            state.role_keys = self._on_issue(True, state.role_lifetime)[0]
        known = state.keys[state.role_keys]
        ends = datetime.fromtimestamp(known.ends, UTC)
        return {
            "AccessKeyId": state.role_keys,
            "SecretAccessKey": known.secret_key,
            "Token": known.token,
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _on_issue(self, token: bool, lifetime: float) -> list[str]:
        known = _Known(
            secrets.token_hex(20), f"{secrets.token_urlsafe(60)}+/=" if token else "", int(time.time() + lifetime)
        )
        access_key = ("ASIA" if token else "AKIA") + secrets.token_hex(8).upper()
        self.state.keys[access_key] = known
        return [access_key, known.secret_key, known.token]

    def _on_expire(self, access_key: str | None, after: int) -> None:
        for name, known in self.state.keys.items():
            if known.token and access_key in (None, name):
                known.requests_left = after

    def _on_role(self, lifetime: float, broken: bool) -> None:
        self.state.role_lifetime, self.state.role_is_broken, self.state.role_keys = lifetime, broken, None

    def _on_answer(self, **rule) -> None:
        self.state.rules.append(_Rule(**rule))

    def _on_reset(self) -> None:
        state = self.state
        state.role_lifetime, state.role_is_broken, state.role_keys = 6 * 3600, False, None
        state.keys, state.rules, state.log = {}, [], []

    def _on_requests(self) -> list[dict]:
        return self.state.log


def _serve() -> None:
    _Handler.state = state = _State(**json.loads(sys.stdin.readline()))
    _Handler.upstream = state.upstream
    server = ProxyServer(("127.0.0.1", 0), _Handler)
    if state.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*state.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve()
