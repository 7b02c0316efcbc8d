"""One lake on any S3, with any credentials of the AWS chain; and one clear sentence for whatever goes wrong there.

No client is replaced: boto3, delta-rs and DuckDB talk to a real S3, most of them through `s3_gateway`, which treats
credentials as AWS does.
"""

import contextlib
import os
import socket
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from support.s3_gateway import Gateway

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import ExpiredCredentialsError, LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import explain, translate_errors

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
REGION = "eu-central-1"


def open_lake(uri: str | None, *several: dict[str, str], env_file: Path = Path(os.devnull, "none")) -> Lake:
    """A lake as a user with these variables gets it; they stay set to the end of the test."""
    for variables in several:
        os.environ.update(variables)
    return Lake.open(uri, settings.load(env_file))


def write(lake: Lake, *names: str, rows: pa.Table = ROWS, mode: str = "append") -> None:
    write_deltalake(lake.uri(*names), rows, mode=mode, storage_options=lake.storage_options)


_connections: list[duckdb.DuckDBPyConnection] = []  # one, for loading its extensions takes half a second


def ask(lake: Lake, sql: str) -> list[tuple]:
    """What DuckDB answers with the lake's credentials of now."""
    if not _connections:
        _connections.append(lake.duckdb())
    lake.authorize(_connections[0])
    return _connections[0].sql(sql).fetchall()


def scan(lake: Lake, *names: str) -> list[tuple]:
    return ask(lake, f"FROM delta_scan('{lake.uri(*names)}') ORDER BY ALL")


def read_parquet(lake: Lake, *names: str) -> list[tuple]:
    return ask(lake, f"FROM read_parquet('{lake.uri(*names, '*.parquet')}')")


def round_trip(lake: Lake) -> None:
    """All that the course does to a lake: list, write, merge, read, with each of the three clients."""
    lake.check()
    write(lake, "t")
    source = pa.table({"id": [3, 4], "name": ["C", "D"]})
    merger = lake.delta("t").merge(source, "target.id = source.id", source_alias="source", target_alias="target")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()
    assert scan(lake, "t") == [(1, "a"), (2, "b"), (3, "C"), (4, "D")]
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw.csv"), Body=b"x")
    assert lake.s3.get_object(Bucket=lake.bucket, Key=lake.key("raw.csv"))["Body"].read() == b"x"


# The clients, each as the pipeline or a notebook uses it


CLIENTS = {
    "boto3": lambda lake: lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key("")),
    "boto3 HEAD": lambda lake: lake.s3.head_object(Bucket=lake.bucket, Key=lake.key("raw.csv")),
    "delta-rs": lambda lake: lake.delta("t"),
    "delta-rs writing": lambda lake: write(lake, "t"),
    "DuckDB on Delta": lambda lake: scan(lake, "t"),
    "DuckDB on Parquet": lambda lake: read_parquet(lake, "t"),
}


def complaint(lake: Lake, client: str, *secrets: str) -> str:
    """The one sentence for what befalls `client`; nowhere in what is shown of it does a secret stand."""
    with pytest.raises(LakehouseError) as info, translate_errors("read t", lake):
        CLIENTS[client](lake)
    message = str(info.value)
    assert "\n" not in message and len(message) < 500, message
    shown = "".join(traceback.format_exception(info.value)) + repr(info.value) + repr(lake)
    cause = info.value
    while cause is not None:
        shown += f"{cause} {cause!r} {cause.args!r}"
        cause = cause.__cause__ or cause.__context__
    for secret in filter(None, secrets):
        assert secret not in shown, client
    return message


# Addresses


def test_a_lake_knows_its_places(prefix, s3_server):
    lake = open_lake(f"{prefix}//nested/", {"LAKEHOUSE_URI": s3_server.uri, "AWS_ENDPOINT_URL": s3_server.endpoint})
    folder = prefix.removeprefix("s3://lakehouse/")
    assert lake.uri() == f"{prefix}/nested"
    assert lake.uri("silver", "orders") == f"{prefix}/nested/silver/orders"
    assert lake.key("silver", "orders") == f"{folder}/nested/silver/orders"
    assert lake.sibling("s3://other/raw").key("x") == "raw/x"
    assert Lake.open("s3://other", settings.load(Path(os.devnull, "none"))).key("x") == "x"


@pytest.mark.parametrize("uri", ["s3a://bucket", "s3://", "http://bucket/x", "s3://AKIA:SECRET@bucket"])
def test_an_address_that_is_none_is_named_but_for_keys_in_it(uri):
    with pytest.raises(LakehouseError, match="must look like s3://bucket") as info:
        Lake.open(uri)
    assert "SECRET" not in str(info.value) and "AKIA" not in str(info.value)


# Credentials: whatever the AWS chain gives, for all three clients


def test_with_the_role_of_a_container(gateway, prefix):
    round_trip(open_lake(prefix, gateway.environment()))
    assert {entry["key"][:4] for entry in gateway.requests()} == {"ASIA"}


@pytest.mark.parametrize("token", [True, False], ids=["temporary", "permanent"])
def test_with_keys_in_the_environment(gateway, prefix, token):
    keys = gateway.issue(token=token)
    round_trip(open_lake(prefix, gateway.environment(keys)))
    assert {entry["key"] for entry in gateway.requests()} == {keys.access_key}


def test_with_a_profile(gateway, prefix, tmp_path):
    """One that names the endpoint and the region too, as AWS's own configuration can."""
    keys = gateway.issue()
    config = tmp_path / "config"
    config.write_text(
        f"[profile work]\nendpoint_url = {gateway.endpoint}\nregion = {REGION}\n"
        f"aws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n"
        f"aws_session_token = {keys.token}\n"
    )
    variables = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "work", "LAKEHOUSE_URI": prefix}
    lake = open_lake(None, variables)
    round_trip(lake)
    assert lake.endpoint == lake.server_name == gateway.endpoint


def test_with_env_file(gateway, prefix, tmp_path):
    variables = {"LAKEHOUSE_URI": prefix} | gateway.environment(gateway.issue())
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in variables.items()))
    round_trip(open_lake(None, env_file=tmp_path / ".env"))


def test_under_a_certificate_of_ones_own(s3_server, prefix, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with Gateway.start(s3_server, tls=True) as gateway:
        lake = open_lake(prefix, gateway.environment(gateway.issue()))
        assert lake.endpoint.startswith("https://")
        round_trip(lake)


@pytest.mark.parametrize("region", [{}, {"AWS_REGION": "us-west-2"}], ids=["none set", "a wrong one set"])
def test_in_the_buckets_region_whatever_is_set(gateway, prefix, region):
    variables = gateway.environment(gateway.issue())
    del variables["AWS_REGION"]
    lake = open_lake(prefix, variables, region)
    round_trip(lake)
    assert lake.region == REGION


def test_on_aws_itself_all_clients_get_the_address_that_boto3_found(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")  # delta-rs's own, which it would follow
    lake = open_lake("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"})
    lake._account._regions["bucket"] = "cn-north-1"  # there is no AWS here to ask
    assert lake.server_name == "AWS S3"
    assert lake.endpoint == "https://s3.cn-north-1.amazonaws.com.cn"
    assert lake.storage_options["AWS_ENDPOINT_URL"] == lake.endpoint
    with contextlib.closing(lake.duckdb()) as db:
        (secret,) = db.sql("SELECT secret_string FROM duckdb_secrets()").fetchone()
    assert "endpoint=s3.cn-north-1.amazonaws.com.cn" in secret and "use_ssl=true" in secret


def test_two_lakes_open_one_duckdb_connection(gateway, prefix, s3_server, s3_state_dir):
    embedded = open_lake(None, {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)})
    other = open_lake("s3://second-bucket/x", gateway.environment(gateway.issue()))
    with contextlib.closing(embedded.duckdb()) as db:
        other.authorize(db)
        other.authorize(db)
        assert len(db.sql("FROM duckdb_secrets()").fetchall()) == 2


# Credentials that end while a run goes on


def test_a_role_whose_credentials_have_expired_is_asked_again(gateway, prefix):
    lake = open_lake(prefix, gateway.environment())
    landing = lake.sibling(f"{prefix}/landing")
    round_trip(lake)
    for client in CLIENTS:
        gateway.expire()
        with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
            CLIENTS[client](lake)
        assert lake.renew_credentials()
        CLIENTS[client](lake)
        landing.check()


def test_credentials_may_expire_between_any_two_requests(gateway, prefix):
    """A write is refused in its middle; begun again with new credentials, its rows are there once."""
    lake = open_lake(prefix, gateway.environment())
    write(lake, "t")
    for requests in (1, 3, 6):
        gateway.expire(after=requests)
        with pytest.raises(ExpiredCredentialsError), translate_errors("write", lake):
            write(lake, "t", mode="overwrite")
            gateway.expire()
            lake.check()
        assert lake.renew_credentials()
        write(lake, "t", mode="overwrite")
        assert len(scan(lake, "t")) == 3


def test_a_connection_that_was_open_before_is_authorized_anew(gateway, prefix):
    lake = open_lake(prefix, gateway.environment())
    write(lake, "t")
    with contextlib.closing(lake.duckdb()) as db:
        count = f"SELECT count(*) FROM delta_scan('{lake.uri('t')}')"
        assert db.sql(count).fetchone() == (3,)
        gateway.expire()
        with pytest.raises(ExpiredCredentialsError), translate_errors("count", lake):
            db.sql(count).fetchone()
        lake.renew_credentials()
        lake.authorize(db)
        assert db.sql(count).fetchone() == (3,)


def test_a_roles_credentials_are_renewed_before_they_end(gateway, prefix):
    gateway.role(lifetime=300)  # boto3 asks again from 15 minutes before the end
    lake = open_lake(prefix, gateway.environment())
    first = lake.credentials()
    gateway.expire()
    lake.check()
    assert lake.credentials() != first


def test_what_was_opened_before_boto3_renewed_a_role_is_worth_another_try(gateway, prefix):
    """The chain gives nothing newer than what boto3 has by now; and yet the table held what ended."""
    gateway.role(lifetime=300)
    lake = open_lake(prefix, gateway.environment())
    write(lake, "t")
    table = lake.delta("t")
    gateway.expire()
    lake.check()
    with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
        table.update_incremental()
    assert lake.renew_credentials()


def test_a_refusal_without_a_reason_is_one_of_older_credentials_where_those_of_now_do(gateway, prefix):
    """An answer to HEAD, which DuckDB sends before it reads a file, never says why."""
    gateway.role(lifetime=300)
    lake = open_lake(prefix, gateway.environment())
    round_trip(lake)
    with contextlib.closing(lake.duckdb()) as db:
        gateway.expire()
        with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
            db.sql(f"FROM read_csv('{lake.uri('raw.csv')}')").fetchall()


def test_fixed_keys_that_have_expired_are_not_tried_again(gateway, prefix):
    keys = gateway.issue()
    lake = open_lake(prefix, gateway.environment(keys))
    gateway.expire(keys)
    assert "AWS_SESSION_TOKEN" in complaint(lake, "boto3", *keys)
    assert not lake.renew_credentials()


def test_a_profile_that_was_rewritten_is_read_again(gateway, prefix, tmp_path):
    """As tools for single sign-on do while a long run goes on."""

    def put(keys):
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        lines = [f"{name} = {value}" for name, value in zip(names, keys, strict=True)]
        (tmp_path / "credentials").write_text("\n".join(["[default]", *lines]))

    put(gateway.issue())
    place = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_ENDPOINT_URL": gateway.endpoint}
    lake = open_lake(prefix, place)
    lake.check()
    gateway.expire()
    put(gateway.issue())
    assert lake.renew_credentials()
    lake.check()


def test_threads_share_a_lake_while_it_is_renewed(gateway, prefix):
    lake = open_lake(prefix, gateway.environment())
    siblings = [lake, lake.sibling(f"{prefix}/landing")]

    def use(number: int) -> None:
        if number % 8 == 0:
            lake.renew_credentials()
        siblings[number % 2].check()
        lake.storage_options  # noqa: B018

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(24)))


# Refusals, as AWS words them


REFUSALS = {
    "unknown access key": ({"access_key": "ASIANOSUCHKEY"}, ["doesn't know this access key", "AWS_ACCESS_KEY_ID"]),
    "wrong secret": ({"secret_key": "wrong" * 8}, ["refuses the secret key", "AWS_SECRET_ACCESS_KEY"]),
    "wrong token": ({"token": "junktoken"}, ["refuses the session token", "AWS_SESSION_TOKEN"]),
    "no token": ({"token": ""}, ["doesn't know this access key", "AWS_SESSION_TOKEN is there"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_wrong_keys(gateway, prefix, case):
    change, words = REFUSALS[case]
    keys = gateway.issue()._replace(**change)
    lake = open_lake(prefix, gateway.environment(keys))
    for client in CLIENTS:
        message = complaint(lake, client, *keys)
        assert all(word in message for word in [*words, gateway.endpoint]), (client, message)


def test_a_missing_bucket(gateway):
    lake = open_lake("s3://no-such-bucket/x", gateway.environment(gateway.issue()))
    for client in CLIENTS.keys() - {"boto3 HEAD"}:
        message = complaint(lake, client)
        assert (
            f"The bucket 'no-such-bucket' doesn't exist on {gateway.endpoint}" in message and "LAKEHOUSE_URI" in message
        )


def test_a_forbidden_prefix(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer(f"/lakehouse/{lake.prefix}", 403, "AccessDenied")
    for client in CLIENTS:
        message = complaint(lake, client)
        assert f"refuses these credentials for {prefix}" in message and "s3:PutObject" in message, (client, message)


def test_a_policy_for_the_prefix_alone_is_enough(gateway, prefix):
    """Which is the usual one: s3:ListBucket where s3:prefix begins with the lake's own."""
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer("/lakehouse", 403, "AccessDenied")
    gateway.allow(f"/lakehouse/{lake.prefix}/")
    round_trip(lake)


def test_an_endpoint_in_another_region_than_the_bucket(gateway):
    gateway.answer("/elsewhere", 301, "PermanentRedirect", headers={"x-amz-bucket-region": "ap-south-1"})
    lake = open_lake("s3://elsewhere/x", gateway.environment(gateway.issue()))
    for client in CLIENTS.keys() - {"boto3 HEAD"}:
        message = complaint(lake, client)
        assert "'elsewhere' is in another region" in message and "AWS_REGION" in message, (client, message)


def test_a_server_that_is_overloaded(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    lake.check()
    gateway.answer("/lakehouse", 503, "SlowDown")
    for client in ("boto3", "DuckDB on Parquet"):
        assert "trouble of its own" in complaint(lake, client)


def test_a_clock_that_is_off(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer("/lakehouse", 403, "RequestTimeTooSkewed")
    for client in ("delta-rs", "DuckDB on Delta", "DuckDB on Parquet"):
        assert "set this machine's clock" in complaint(lake, client)


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_server_that_is_no_s3(gateway, prefix, status):
    gateway.answer("/", status, body="<!DOCTYPE html><html><head><title>Welcome</title></head></html>")
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    with pytest.raises(LakehouseError, match="S3.*check AWS_ENDPOINT_URL") as info:
        lake.check()
    assert gateway.endpoint in str(info.value)
    if status != 200:  # to the others, such a page is an empty listing
        for client in CLIENTS.keys() - {"boto3 HEAD"}:
            assert "doesn't answer as an S3 does: check AWS_ENDPOINT_URL" in complaint(lake, client), client


# No way there


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


KEYS = {"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": "nobodyssecret"}


def test_a_server_that_goes_away(s3_server, prefix):
    with Gateway.start(s3_server) as gateway:
        keys = gateway.issue()
        lake = open_lake(prefix, gateway.environment(keys))
        write(lake, "t")
    for client in ("boto3", "delta-rs", "DuckDB on Delta", "DuckDB on Parquet"):
        message = complaint(lake, client, *keys)
        assert f"{gateway.endpoint} can't be reached" in message and "AWS_ENDPOINT_URL" in message, (client, message)


@pytest.mark.parametrize("address", ["http://no.such.host.invalid:9000", "https://no.such.host.invalid", None])
def test_no_network(address):
    started = time.monotonic()
    lake = open_lake("s3://some-bucket/x", KEYS, {"AWS_ENDPOINT_URL": address} if address else {})
    with pytest.raises(LakehouseError, match="can't be reached: check the network and AWS_ENDPOINT_URL") as info:
        lake.check()
    assert (address or "AWS S3") in str(info.value)
    assert time.monotonic() - started < 30


def test_a_server_that_swallows_connections(monkeypatch):
    """A firewall that drops packets: nothing is refused, nothing answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for taken in (first, second):  # the queue is full: the next one waits
                taken.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    taken.connect(address)
            started = time.monotonic()
            lake = open_lake("s3://some-bucket/x", KEYS, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{address[1]}"})
            with pytest.raises(LakehouseError, match="can't be reached"):
                lake.check()
            assert time.monotonic() - started < 30


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_leads_nowhere(variable, closed_port):
    scheme = variable.partition("_")[0].lower()
    proxy = {variable: f"http://user:proxypassword@127.0.0.1:{closed_port}"}
    lake = open_lake("s3://some-bucket/x", KEYS, proxy, {"AWS_ENDPOINT_URL": f"{scheme}://s3.example.invalid"})
    message = complaint(lake, "boto3", "proxypassword")
    assert f"{scheme}://s3.example.invalid can't be reached through the proxy" in message
    assert variable in message and "NO_PROXY" in message


def test_no_proxy_stands_before_a_server_on_this_machine(gateway, prefix, closed_port):
    proxy = dict.fromkeys(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"], f"http://127.0.0.1:{closed_port}")
    round_trip(open_lake(prefix, gateway.environment(), proxy, {"NO_PROXY": "corp.example"}))


def test_a_certificate_that_isnt_trusted(s3_server, prefix):
    with Gateway.start(s3_server, tls=True) as gateway:
        variables = gateway.environment(gateway.issue())
        del variables["AWS_CA_BUNDLE"]
        message = complaint(open_lake(prefix, variables), "boto3")
        assert "certificate that isn't trusted" in message and "AWS_CA_BUNDLE" in message


# Credentials that can't be had


def test_no_credentials_at_all(gateway, prefix):
    message = complaint(open_lake(prefix, {"AWS_ENDPOINT_URL": gateway.endpoint}), "delta-rs")
    assert "No AWS credentials were found" in message and "AWS_PROFILE" in message and ".env" in message


def test_half_a_pair_of_keys(gateway, prefix):
    lake = open_lake(prefix, {"AWS_ENDPOINT_URL": gateway.endpoint, "AWS_ACCESS_KEY_ID": "AKIAHALF"})
    message = complaint(lake, "delta-rs", "AKIAHALF")
    assert "one half is missing" in message and "missing: AWS_SECRET_ACCESS_KEY" in message


def test_a_profile_that_is_none(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()), {"AWS_PROFILE": "nobody"})
    message = complaint(lake, "boto3")
    assert "AWS_PROFILE names a profile that isn't" in message and "nobody" in message


def test_a_configuration_that_is_damaged(gateway, prefix, tmp_path):
    (tmp_path / "config").write_text("[profile x\naws_secret_access_key = hiddenhere\n[[")
    lake = open_lake(prefix, gateway.environment(gateway.issue()), {"AWS_CONFIG_FILE": str(tmp_path / "config")})
    message = complaint(lake, "boto3", "hiddenhere")
    assert str(tmp_path / "config") in message and "AWS_CONFIG_FILE" in message


def test_a_role_that_gives_nothing(gateway, prefix):
    gateway.role(broken=True)
    message = complaint(open_lake(prefix, gateway.environment()), "boto3")
    assert "credentials could not be had" in message and "AWS_CONTAINER_CREDENTIALS_FULL_URI" in message


def test_a_role_at_an_address_that_isnt_allowed(gateway, prefix):
    elsewhere = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://credentials.example/role"}
    message = complaint(open_lake(prefix, gateway.environment(), elsewhere), "boto3")
    assert "credentials could not be had" in message and "AWS_CONTAINER_CREDENTIALS_FULL_URI" in message


# The embedded server, whatever AWS's variables say


def test_the_embedded_server_is_deaf_to_settings_for_aws(s3_server, s3_state_dir, tmp_path):
    (tmp_path / "config").write_text("[profile x\n[[")
    noise = {
        "AWS_SESSION_TOKEN": "junk",
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_SECRET_ACCESS_KEY": "othersecret",
        "AWS_PROFILE": "nobody",
        "AWS_REGION": "nowhere-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_CA_BUNDLE": str(tmp_path / "no-bundle.pem"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "LAKEHOUSE_STATE_DIR": str(s3_state_dir),
    }
    lake = open_lake(None, noise)
    place = lake.sibling(f"{lake.root}/test-noise-{os.getpid()}")
    round_trip(place)
    assert (lake.server_name, lake.endpoint, lake.region) == ("the embedded S3 server", s3_server.endpoint, "us-east-1")
    assert not lake.renew_credentials()


def test_the_embedded_server_is_started_again_when_it_is_gone(tmp_path):
    state_dir = tmp_path / "state"
    lake = open_lake(None, {"LAKEHOUSE_STATE_DIR": str(state_dir)})
    try:
        write(lake, "t")
        embedded_s3.stop(state_dir)
        (state_dir / "s3" / "ports.json").unlink()  # so that it comes back on other ones
        time.sleep(1.1)
        assert scan(lake, "t") == [(1, "a"), (2, "b"), (3, "c")]
        lake.check()
    finally:
        embedded_s3.stop(state_dir)


# What is not ours to explain


def test_what_nobody_foresaw_passes_through_untouched(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    misleading = (
        "(403) Forbidden ExpiredToken AccessDenied: error sending request, timed out, proxy, Connection refused"
    )
    for error in (ValueError(misleading), OSError(misleading), duckdb.ConversionException(misleading)):
        with pytest.raises(type(error)) as info, translate_errors("try", lake):
            raise error
        assert info.value is error and str(error) == misleading


def test_names_that_sound_like_trouble_are_no_trouble(gateway, prefix):
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    name = "ExpiredToken-AccessDenied-403-proxy-logs-timed-out-connect-SSL-certificate"
    for ask in (
        lambda: DeltaTable(lake.uri(name), storage_options=lake.storage_options),
        lambda: scan(lake, name),
        lambda: lake.s3.get_object(Bucket=lake.bucket, Key=lake.key(name)),
        lambda: read_parquet(lake, name),
    ):
        with pytest.raises(Exception) as info:
            ask()
        assert explain(info.value, lake) is None, info.value
    assert lake.delta(name) is None
    with pytest.raises(TableNotFoundError), translate_errors("open", lake):
        DeltaTable(lake.uri(name), storage_options=lake.storage_options)


# Secrets


def test_nothing_that_a_notebook_shows_holds_a_secret(gateway, prefix, s3_server, capfd, caplog):
    keys = gateway.issue()
    lake = open_lake(prefix, gateway.environment(keys))
    caplog.set_level("INFO")
    round_trip(lake)
    with contextlib.closing(lake.duckdb()) as db:
        shown = f"{lake!r} {lake.storage_options!r} {lake.storage_options} {lake.credentials()!r} {lake.session!r}"
        assert keys.access_key not in shown
        shown += str(db.sql("FROM duckdb_secrets()").fetchall()) + repr(s3_server) + caplog.text
    shown += "".join(capfd.readouterr())
    for secret in (keys.secret_key, keys.token, s3_server.secret_key):
        assert secret not in shown
    assert lake.storage_options["AWS_SECRET_ACCESS_KEY"] == keys.secret_key


def test_duckdb_draws_no_progress_into_what_is_printed(s3_server, prefix, s3_state_dir):
    lake = Lake.open(prefix, settings.Settings(state_dir=s3_state_dir))
    assert lake.duckdb().sql("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)
