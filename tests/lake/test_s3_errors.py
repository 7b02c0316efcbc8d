"""Each failure of an S3 client becomes one exception class, and one message that says what to change.

No client is replaced: boto3, delta-rs and DuckDB talk to a real S3 server, most of them through `s3_gateway`, which
answers as AWS does.
"""

import ast
import contextlib
import inspect
import socket
from functools import partial

import boto3
import duckdb
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from support import faults
from support.s3_clients import (
    CLIENTS,
    open_lake,
    query,
    read_parquet,
    scan,
    translated_error,
    use_with_every_client,
    write,
)
from support.s3_gateway import Gateway

from lakehouse_utils import embedded_s3, errors
from lakehouse_utils.embedded_s3 import server
from lakehouse_utils.errors import (
    AccessDeniedError,
    AwsConfigurationError,
    BucketNotFoundError,
    CertificateError,
    ClockSkewError,
    DamagedTableError,
    ExpiredCredentialsError,
    GoneError,
    IncompleteAnswerError,
    InvalidCredentialsError,
    KeyTooLongError,
    MissingCredentialsError,
    NotAnS3ServerError,
    ServerBusyError,
    ServerUnreachableError,
    StorageError,
    StorageFullError,
    WrongRegionError,
)
from lakehouse_utils.lake import s3_errors
from lakehouse_utils.lake.s3_errors import translate_errors

# What an S3 server refuses, in AWS's words


REFUSALS = {
    "unknown access key": ({"access_key": "ASIANOSUCHKEY"}, ["does not recognize the access key", "AWS_ACCESS_KEY_ID"]),
    "wrong secret": ({"secret_key": "wrong" * 8}, ["rejected the secret key", "AWS_SECRET_ACCESS_KEY"]),
    "wrong token": ({"token": "junktoken"}, ["rejected the session token", "AWS_SESSION_TOKEN"]),
    "no token": ({"token": ""}, ["does not recognize the access key", "AWS_SESSION_TOKEN is set"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_keys_that_are_invalid(gateway, prefix, case):
    """A wrong key or token raises InvalidCredentialsError, which names the variable that holds it, with any client."""
    change, words = REFUSALS[case]
    keys = gateway.issue()._replace(**change)
    lake = open_lake(prefix, gateway.environment(keys))
    for client in CLIENTS:
        error = translated_error(lake, client, *keys)
        assert type(error) is InvalidCredentialsError
        assert all(word in str(error) for word in [*words, gateway.endpoint]), (client, str(error))


def test_a_bucket_that_does_not_exist(gateway):
    """A missing bucket raises BucketNotFoundError, which names the bucket, the server and LAKEHOUSE_URI."""
    lake = open_lake("s3://no-such-bucket/x", gateway.environment(gateway.issue()))
    for client in CLIENTS.keys() - {"boto3 HEAD"}:
        error = translated_error(lake, client)
        assert (type(error), error.code) == (BucketNotFoundError, "NoSuchBucket")
        assert f"the bucket 'no-such-bucket' does not exist on {gateway.endpoint}" in str(error)
        assert "LAKEHOUSE_URI" in str(error)


def test_a_prefix_that_is_denied(gateway, prefix):
    """A denied request raises AccessDeniedError, which lists the actions that the policy must allow."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer(f"/lakehouse/{lake.prefix}", 403, "AccessDenied")
    for client in CLIENTS:
        error = translated_error(lake, client)
        assert type(error) is AccessDeniedError, client
        assert f"denied access to {prefix}" in str(error) and "s3:PutObject" in str(error), (client, str(error))


def test_a_policy_for_the_prefix_alone_is_sufficient(gateway, prefix):
    """The usual policy allows s3:ListBucket only where s3:prefix begins with the lake's prefix; that is enough."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer("/lakehouse", 403, "AccessDenied")
    gateway.allow(f"/lakehouse/{lake.prefix}/")
    use_with_every_client(lake)


def test_an_endpoint_in_another_region_than_the_bucket(gateway):
    """A redirect to another region raises WrongRegionError, which names the bucket and AWS_REGION."""
    gateway.answer("/elsewhere", 301, "PermanentRedirect", headers={"x-amz-bucket-region": "ap-south-1"})
    lake = open_lake("s3://elsewhere/x", gateway.environment(gateway.issue()))
    for client in CLIENTS.keys() - {"boto3 HEAD"}:
        error = translated_error(lake, client)
        assert type(error) is WrongRegionError, client
        assert "'elsewhere' is in another region" in str(error) and "AWS_REGION" in str(error), (client, str(error))


def test_a_server_that_is_overloaded(gateway, prefix):
    """A server that throttles after all retries raises ServerBusyError."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    lake.check_access()
    gateway.answer("/lakehouse", 503, "SlowDown")
    for client in ("boto3", "DuckDB on Parquet"):
        error = translated_error(lake, client)
        assert type(error) is ServerBusyError and error.code in ("SlowDown", "503")
        assert "kept failing (HTTP 5xx or throttling) after several retries" in str(error)


def test_a_clock_that_is_wrong(gateway, prefix):
    """A request with a wrong time raises ClockSkewError, which says to set the clock."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer("/lakehouse", 403, "RequestTimeTooSkewed")
    for client in ("delta-rs", "DuckDB on Delta", "DuckDB on Parquet"):
        error = translated_error(lake, client)
        assert type(error) is ClockSkewError and "Set this machine's clock" in str(error)


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_server_that_is_not_s3(gateway, prefix, status):
    """A web server at the address raises NotAnS3ServerError, which names the server and AWS_ENDPOINT_URL."""
    gateway.answer("/", status, body="<!DOCTYPE html><html><head><title>Welcome</title></head></html>")
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    with pytest.raises(NotAnS3ServerError, match=r"S3 server\. Check AWS_ENDPOINT_URL") as info:
        lake.check_access()
    assert gateway.endpoint in str(info.value)
    if status != 200:  # the other clients read such a page as an empty listing
        for client in CLIENTS.keys() - {"boto3 HEAD"}:
            error = translated_error(lake, client)
            assert type(error) is NotAnS3ServerError, client
            assert "does not answer like an S3 server. Check AWS_ENDPOINT_URL" in str(error), client


def test_an_upload_that_is_refused(gateway, prefix, tmp_path):
    """boto3's transfer functions wrap the client's error; the reason is recognized all the same."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    (tmp_path / "raw.csv").write_text("x")
    s3 = lake.s3
    gateway.answer(f"/lakehouse/{lake.prefix}", 403, "AccessDenied")
    with pytest.raises(AccessDeniedError) as info, translate_errors("upload", lake):
        s3.upload_file(str(tmp_path / "raw.csv"), lake.bucket, lake.key("raw.csv"))
    assert isinstance(info.value.__cause__, S3UploadFailedError)


def test_a_diagnosis_sends_one_request_and_only_for_a_refusal_without_reason(gateway, prefix):
    """A refused HEAD is followed by one listing; an error that names its reason is not followed by any request."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    s3 = lake.s3
    gateway.answer(f"/lakehouse/{lake.prefix}", 403, "AccessDenied")

    def requests_for(use) -> list[str]:
        before = len(gateway.requests())
        with pytest.raises(AccessDeniedError), translate_errors("read", lake):
            use(Bucket=lake.bucket, Key=lake.key("raw.csv"))
        return [entry["method"] for entry in gateway.requests()[before:]]

    assert requests_for(s3.head_object) == ["HEAD", "GET"]
    assert requests_for(s3.get_object) == ["GET"]


# No connection


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


KEYS = {"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": "nobodyssecret"}


@pytest.mark.slow
def test_a_server_that_goes_away(s3_server, prefix):
    """A server that stops raises ServerUnreachableError with each client."""
    with Gateway.start(s3_server) as gateway:
        keys = gateway.issue()
        lake = open_lake(prefix, gateway.environment(keys))
        write(lake, "t")
    for client in ("boto3", "delta-rs", "DuckDB on Delta", "DuckDB on Parquet"):
        error = translated_error(lake, client, *keys)
        assert (type(error), error.code) == (ServerUnreachableError, None)
        message = str(error)
        assert f"{gateway.endpoint} cannot be reached" in message and "AWS_ENDPOINT_URL" in message, (client, message)


def test_the_embedded_server_stops_during_a_request(tmp_path):
    """The message says that the server comes back, and nothing about AWS_ENDPOINT_URL, which it does not use."""
    state_dir = tmp_path / "state"
    lake = open_lake(None, {"LAKEHOUSE_STATE_DIR": str(state_dir)})
    try:
        s3 = lake.s3
        embedded_s3.stop(state_dir)
        with pytest.raises(ServerUnreachableError) as info, translate_errors("read t", lake):
            s3.list_objects_v2(Bucket=lake.bucket)
    finally:
        embedded_s3.stop(state_dir)
    assert str(info.value) == (
        "Could not read t: the embedded S3 server cannot be reached. Run the command again, which starts the server."
    )


@pytest.mark.timeout(30)  # a user waits as long as that, not for minutes
@pytest.mark.parametrize("address", ["http://no.such.host.invalid:9000", "https://no.such.host.invalid", None])
def test_an_address_without_a_network(address):
    """Where the network or the host is missing, the error comes within seconds and names the server."""
    lake = open_lake("s3://some-bucket/x", KEYS, {"AWS_ENDPOINT_URL": address} if address else {})
    with pytest.raises(
        ServerUnreachableError, match=r"cannot be reached\. Check the network and AWS_ENDPOINT_URL"
    ) as info:
        lake.check_access()
    assert (address or "AWS S3") in str(info.value)


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_a_server_that_accepts_no_connections():
    """A firewall that drops packets, so that nothing is refused and nothing answers, costs no minutes either."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for taken in (first, second):  # the queue is full: the next connection waits
                taken.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    taken.connect(address)
            lake = open_lake("s3://some-bucket/x", KEYS, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{address[1]}"})
            with pytest.raises(ServerUnreachableError, match="cannot be reached"):
                lake.check_access()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_is_unreachable(variable, closed_port):
    """Behind a proxy, the message names the proxy's variable and NO_PROXY, and not the password in it."""
    scheme = variable.partition("_")[0].lower()
    proxy = {variable: f"http://user:proxypassword@127.0.0.1:{closed_port}"}
    lake = open_lake("s3://some-bucket/x", KEYS, proxy, {"AWS_ENDPOINT_URL": f"{scheme}://s3.example.invalid"})
    error = translated_error(lake, "boto3", "proxypassword")
    assert type(error) is ServerUnreachableError
    message = str(error)
    assert f"{scheme}://s3.example.invalid cannot be reached through the proxy" in message
    assert f"Change {variable}," in message and "NO_PROXY" in message


def test_a_server_on_this_machine_is_reached_without_the_proxy(gateway, prefix, closed_port):
    """The proxy variables do not apply to the loopback, whatever NO_PROXY says."""
    proxy = dict.fromkeys(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"], f"http://127.0.0.1:{closed_port}")
    use_with_every_client(open_lake(prefix, gateway.environment(), proxy, {"NO_PROXY": "corp.example"}))


def test_a_certificate_that_is_not_trusted(s3_server, prefix):
    """A certificate of an unknown authority raises CertificateError, which names AWS_CA_BUNDLE."""
    with Gateway.start(s3_server, tls=True) as gateway:
        variables = gateway.environment(gateway.issue())
        del variables["AWS_CA_BUNDLE"]
        error = translated_error(open_lake(prefix, variables), "boto3")
        assert type(error) is CertificateError
        assert f"the certificate of {gateway.endpoint} is not trusted" in str(error) and "AWS_CA_BUNDLE" in str(error)


# No credentials


def test_no_credentials_at_all(gateway, prefix):
    """Without credentials, MissingCredentialsError names AWS_PROFILE and `.env`; LAKEHOUSE_URI only if it is set."""
    error = translated_error(open_lake(prefix, {"AWS_ENDPOINT_URL": gateway.endpoint}), "delta-rs")
    assert type(error) is MissingCredentialsError
    message = str(error)
    assert "no AWS credentials were found" in message and "AWS_PROFILE" in message and ".env" in message
    assert "LAKEHOUSE_URI" not in message


def test_no_credentials_with_lakehouse_uri(gateway, prefix):
    """Where LAKEHOUSE_URI is set, the message also says that unsetting it leads to the embedded server."""
    lake = open_lake(None, {"AWS_ENDPOINT_URL": gateway.endpoint, "LAKEHOUSE_URI": prefix})
    assert "To use the embedded server instead, remove LAKEHOUSE_URI from the environment and .env." in str(
        translated_error(lake, "delta-rs")
    )


def test_half_a_pair_of_keys(gateway, prefix):
    """One key without the other raises MissingCredentialsError, which says which one is missing."""
    lake = open_lake(prefix, {"AWS_ENDPOINT_URL": gateway.endpoint, "AWS_ACCESS_KEY_ID": "AKIAHALF"})
    error = translated_error(lake, "delta-rs", "AKIAHALF")
    assert type(error) is MissingCredentialsError
    assert "one of the two AWS keys is missing" in str(error) and "missing: AWS_SECRET_ACCESS_KEY" in str(error)


def test_a_profile_that_does_not_exist(gateway, prefix):
    """An unknown profile raises AwsConfigurationError, which names it and AWS_PROFILE."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()), {"AWS_PROFILE": "no-such-profile"})
    error = translated_error(lake, "boto3")
    assert type(error) is AwsConfigurationError
    assert "AWS_PROFILE names a profile that is not in" in str(error) and "no-such-profile" in str(error)


def test_a_configuration_that_is_damaged(gateway, prefix, tmp_path):
    """A damaged configuration file raises AwsConfigurationError, which names the file but quotes no secret in it."""
    (tmp_path / "config").write_text("[profile x\naws_secret_access_key = hiddenhere\n[[")
    lake = open_lake(prefix, gateway.environment(gateway.issue()), {"AWS_CONFIG_FILE": str(tmp_path / "config")})
    error = translated_error(lake, "boto3", "hiddenhere")
    assert type(error) is AwsConfigurationError
    assert str(tmp_path / "config") in str(error) and "AWS_CONFIG_FILE" in str(error)


def test_a_role_that_provides_nothing(gateway, prefix):
    """A container's address that fails raises MissingCredentialsError, which names its variable."""
    gateway.role(broken=True)
    error = translated_error(open_lake(prefix, gateway.environment()), "boto3")
    assert type(error) is MissingCredentialsError
    assert "getting AWS credentials failed" in str(error) and "AWS_CONTAINER_CREDENTIALS_FULL_URI" in str(error)


def test_a_role_at_an_address_that_is_not_allowed(gateway, prefix):
    """boto3 refuses some addresses of roles by a plain ValueError, which is recognized too."""
    elsewhere = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://credentials.example/role"}
    error = translated_error(open_lake(prefix, gateway.environment(), elsewhere), "boto3")
    assert type(error) is MissingCredentialsError
    assert "getting AWS credentials failed" in str(error) and "AWS_CONTAINER_CREDENTIALS_FULL_URI" in str(error)


def test_a_role_that_may_not_be_assumed(gateway, prefix):
    """An error of STS is one of getting credentials, not one of the S3 server."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    sts = boto3.client("sts", endpoint_url=gateway.endpoint, region_name="eu-central-1")
    gateway.answer("/", 403, "AccessDenied")
    with pytest.raises(MissingCredentialsError, match="getting AWS credentials failed"), translate_errors("open", lake):
        sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="reader")


# Faults, and what is not there


@pytest.mark.parametrize("client", [name for name in CLIENTS if "HEAD" not in name])
def test_an_answer_that_is_cut_off(s3_server, prefix, client):
    """Every client notices an answer of which only the first bytes arrive, a listing too."""
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    with faults.proxy(s3_server.endpoint, rate=0.0, seed=1) as proxy:
        lake = open_lake(prefix, keys, {"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_REGION": s3_server.region})
        write(lake, "t")
        query(lake, "SELECT 1")
        lake.region  # noqa: B018  is asked for once
        proxy.rate, proxy.kinds = 1.0, ("cut off",)
        assert type(translated_error(lake, client)) is IncompleteAnswerError


def test_a_key_that_is_too_long(lake):
    """A name that is too long for S3 is recognized."""
    lake = lake.sibling(f"{lake.root}/{'x' * 1100}")
    for put in (
        lambda: lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("t"), Body=b""),
        lambda: write(lake, "t"),
    ):
        with pytest.raises(KeyTooLongError, match="1,024 bytes"), translate_errors("write", lake):
            put()


@pytest.mark.parametrize(("status", "code"), [(507, "XMinioStorageFull"), (403, "QuotaExceeded"), (507, None)])
def test_a_server_whose_disk_is_full(gateway, prefix, status, code):
    """Servers that say that they cannot store more are quoted as that."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer(f"/{lake.bucket}", status, code, method="PUT")
    with (
        pytest.raises(StorageFullError, match="its disk is full, or a quota is used up"),
        translate_errors("write", lake),
    ):
        lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("t"), Body=b"")


def test_the_embedded_servers_full_disk(lake, monkeypatch):
    """If the embedded server fails and its disk is full, that is the reason."""
    monkeypatch.setattr(server, "_MIN_FREE_BYTES", 1 << 60)
    error = ClientError({"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "PutObject")
    sentence = r"the disk with .*/s3, where the embedded S3 server keeps its data, is full"
    with pytest.raises(StorageFullError, match=sentence), translate_errors("write", lake):
        raise error


def test_a_page_that_is_not_s3s_404(gateway, prefix):
    """A web server that knows nothing of the path is not an S3 server without the object."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer(
        f"/{lake.bucket}", 404, body="<!DOCTYPE html><html>404</html>", headers={"Content-Type": "text/html"}
    )
    assert type(translated_error(lake, "boto3")) is NotAnS3ServerError


@pytest.mark.parametrize("client", ["boto3", "delta-rs", "DuckDB"])
def test_an_object_that_is_gone(lake, client):
    """Where an object must exist, its absence is an error that says what may have happened; elsewhere it is not."""
    write(lake, "t")
    for entry in lake.objects(lake.key("t", "part-")):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])
        key = entry["Key"]
    use = {
        "boto3": lambda: lake.s3.get_object(Bucket=lake.bucket, Key=key),
        "delta-rs": lambda: lake.delta("t").to_pyarrow_table(),
        "DuckDB": lambda: scan(lake, "t"),
    }[client]
    with pytest.raises(GoneError, match="vacuum"), translate_errors("read t", lake, objects_must_exist=True):
        use()
    if client != "DuckDB":  # it does not say whether the server is an S3 server, so the server was asked
        with pytest.raises((ClientError, OSError)), translate_errors("read t", lake):
            use()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({f"{1:020}.json": None}, "a commit file is missing from its log"),
        ({f"{0:020}.json": None}, "the first commit files are missing from its log"),
        ({f"{1:020}.json": b"garbage"}, "a commit file in its log is damaged"),
        ({f"{2:020}.json": b'{"add":{"pa'}, "a commit file in its log is damaged"),
        ({"_last_checkpoint": b'{"version":77,"size":3}'}, "the checkpoint that `_last_checkpoint` names is missing"),
    ],
)
@pytest.mark.parametrize("client", ["delta-rs", "DuckDB"])
def test_a_damaged_log(lake, client, change, what):
    """A damaged log names the table, what is wrong, and the command that builds the table again."""
    for _ in range(3):
        write(lake, "silver", "orders")
    for name, body in change.items():
        place = {"Bucket": lake.bucket, "Key": lake.key("silver", "orders", "_delta_log", name)}
        lake.s3.delete_object(**place) if body is None else lake.s3.put_object(**place, Body=body)
    use = lake.delta if client == "delta-rs" else partial(scan, lake)
    with pytest.raises(DamagedTableError) as caught, translate_errors(f"read {lake.uri('silver', 'orders')}", lake):
        use("silver", "orders")
    assert caught.value.table == "silver.orders"
    assert f"silver.orders is damaged: {what}" in str(caught.value)
    assert "--rebuild silver.orders`" in str(caught.value) and "\n" not in str(caught.value)


# Errors that are not recognized


def test_an_error_of_another_kind_is_raised_unchanged(gateway, prefix):
    """Words such as AccessDenied in an error that is not an S3 client's have no effect."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    misleading = (
        "(403) Forbidden ExpiredToken AccessDenied: error sending request, timed out, proxy, Connection refused"
    )
    for error in (ValueError(misleading), OSError(misleading), duckdb.ConversionException(misleading)):
        with pytest.raises(type(error)) as info, translate_errors("try", lake):
            raise error
        assert info.value is error and str(error) == misleading


def test_names_that_contain_error_words_have_no_effect(gateway, prefix):
    """A missing table or object is not an S3 failure, however misleading its name."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    name = "ExpiredToken-AccessDenied-403-proxy-logs-timed-out-connect-SSL-certificate"
    for use in (
        lambda: DeltaTable(lake.uri(name), storage_options=lake.storage_options),
        lambda: scan(lake, name),
        lambda: lake.s3.get_object(Bucket=lake.bucket, Key=lake.key(name)),
        lambda: read_parquet(lake, name),
    ):
        with pytest.raises(Exception) as original:  # noqa: PT011  each client has its own
            use()
        with pytest.raises(type(original.value)) as info, translate_errors("open", lake):
            raise original.value
        assert info.value is original.value
    assert lake.delta(name) is None
    with pytest.raises(TableNotFoundError), translate_errors("open", lake):
        DeltaTable(lake.uri(name), storage_options=lake.storage_options)


# The table of problems


def storage_error_classes() -> set[type[StorageError]]:
    """All classes of storage errors that are not only a base of others."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, StorageError)]
    return {one for one in classes if not any(other is not one and issubclass(other, one) for other in classes)}


def test_each_class_of_storage_errors_has_a_text():
    """No class is there that nothing raises, and no text that no symptom leads to."""
    problems = {name: value for name, value in vars(s3_errors).items() if isinstance(value, s3_errors._Problem)}
    assert {problem.error for problem in problems.values()} == storage_error_classes()
    uses = [node.id for node in ast.walk(ast.parse(inspect.getsource(s3_errors))) if isinstance(node, ast.Name)]
    assert [name for name in problems if uses.count(name) < 2] == []


def test_expired_credentials_are_among_the_credentials_errors():
    """Callers may catch all problems with credentials by one class."""
    assert issubclass(ExpiredCredentialsError, errors.CredentialsError)
