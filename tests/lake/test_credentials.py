"""One lake on any S3 server, with whatever credentials the AWS chain finds, for all three clients.

No client is replaced: boto3, delta-rs and DuckDB talk to a real S3 server, most of them through `s3_gateway`, which
treats credentials as AWS does.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.s3_clients import CLIENTS, open_lake, scan, translated_error, use_with_every_client, write
from support.s3_gateway import Gateway, Keys

from lakehouse_utils.errors import ExpiredCredentialsError
from lakehouse_utils.lake.s3_errors import translate_errors

REGION = "eu-central-1"


# Where credentials come from


def test_credentials_of_a_container_role(gateway, prefix):
    """Without keys, the role of the container provides temporary ones."""
    use_with_every_client(open_lake(prefix, gateway.environment()))
    assert {entry["key"][:4] for entry in gateway.requests()} == {"ASIA"}


@pytest.mark.parametrize("token", [True, False], ids=["temporary", "permanent"])
def test_credentials_in_the_environment(gateway, prefix, token):
    """Keys in the environment are used for every request, with and without a session token."""
    keys = gateway.issue(token=token)
    use_with_every_client(open_lake(prefix, gateway.environment(keys)))
    assert {entry["key"] for entry in gateway.requests()} == {keys.access_key}


def test_credentials_of_a_profile(gateway, prefix, tmp_path):
    """A profile may name the endpoint and the region as well as the keys."""
    keys = gateway.issue()
    config = tmp_path / "config"
    config.write_text(
        f"[profile work]\nendpoint_url = {gateway.endpoint}\nregion = {REGION}\n"
        f"aws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n"
        f"aws_session_token = {keys.token}\n"
    )
    variables = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "work", "LAKEHOUSE_URI": prefix}
    lake = open_lake(None, variables)
    use_with_every_client(lake)
    assert lake.endpoint == lake.server_name == gateway.endpoint


def test_credentials_in_env_file(gateway, prefix, tmp_path):
    """Keys in `.env` reach all three clients."""
    variables = {"LAKEHOUSE_URI": prefix} | gateway.environment(gateway.issue())
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in variables.items()))
    use_with_every_client(open_lake(None, env_file=tmp_path / ".env"))


def test_a_server_with_a_private_authority(s3_server, prefix, monkeypatch):
    """With AWS_CA_BUNDLE, all three clients trust a certificate of that authority."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with Gateway.start(s3_server, tls=True) as gateway:
        lake = open_lake(prefix, gateway.environment(gateway.issue()))
        assert lake.endpoint.startswith("https://")
        use_with_every_client(lake)


@pytest.mark.parametrize("region", [{}, {"AWS_REGION": "us-west-2"}], ids=["none set", "a wrong one set"])
def test_the_region_is_that_of_the_bucket(gateway, prefix, region):
    """The bucket's own region is used, whether AWS_REGION is missing or wrong."""
    variables = gateway.environment(gateway.issue())
    del variables["AWS_REGION"]
    lake = open_lake(prefix, variables, region)
    use_with_every_client(lake)
    assert lake.region == REGION


# Credentials that expire during a run


def test_credentials_of_a_role_are_renewed_after_they_expired(gateway, prefix):
    """Each client reports expired credentials, and works again after `renew_credentials`, siblings included."""
    lake = open_lake(prefix, gateway.environment())
    landing = lake.sibling(f"{prefix}/landing")
    use_with_every_client(lake)
    for client in CLIENTS:
        gateway.expire()
        with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
            CLIENTS[client](lake)
        assert lake.renew_credentials()
        CLIENTS[client](lake)
        landing.check_access()


def test_credentials_may_expire_between_any_two_requests(gateway, prefix):
    """A write that is refused halfway and repeated with new credentials stores its rows once."""
    lake = open_lake(prefix, gateway.environment())
    write(lake, "t")

    def write_until_expired() -> None:
        write(lake, "t", mode="overwrite")
        gateway.expire()
        lake.check_access()

    for requests in (1, 3, 6):
        gateway.expire(after=requests)
        with pytest.raises(ExpiredCredentialsError), translate_errors("write", lake):
            write_until_expired()
        assert lake.renew_credentials()
        write(lake, "t", mode="overwrite")
        assert len(scan(lake, "t")) == 3


def test_a_connection_that_is_open_gets_new_credentials(gateway, prefix):
    """`authorize` gives renewed credentials to a DuckDB connection that holds expired ones."""
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


def test_credentials_of_a_role_are_refreshed_before_they_expire(gateway, prefix):
    """boto3 asks the role again from 15 minutes before the end, and the lake uses what it gets."""
    gateway.role(lifetime=300)
    lake = open_lake(prefix, gateway.environment())
    first = lake.credentials()
    gateway.expire()
    lake.check_access()
    assert lake.credentials() != first


def test_a_table_opened_before_a_refresh_is_worth_another_attempt(gateway, prefix):
    """`renew_credentials` is True for a role even where boto3 has refreshed already: the table holds older keys."""
    gateway.role(lifetime=300)
    lake = open_lake(prefix, gateway.environment())
    write(lake, "t")
    table = lake.delta("t")
    gateway.expire()
    lake.check_access()
    with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
        table.update_incremental()
    assert lake.renew_credentials()


def test_a_refusal_without_a_reason_counts_as_expired_where_current_credentials_work(gateway, prefix):
    """An answer to HEAD, which DuckDB sends before it reads a file, never says why; the diagnosis finds out."""
    gateway.role(lifetime=300)
    lake = open_lake(prefix, gateway.environment())
    use_with_every_client(lake)
    with contextlib.closing(lake.duckdb()) as db:
        gateway.expire()
        with pytest.raises(ExpiredCredentialsError), translate_errors("read", lake):
            db.sql(f"FROM read_csv('{lake.uri('raw.csv')}')").fetchall()


def test_fixed_keys_that_expired_are_not_renewed(gateway, prefix):
    """Expired keys in the environment raise an error that names AWS_SESSION_TOKEN; another attempt makes no sense."""
    keys = gateway.issue()
    lake = open_lake(prefix, gateway.environment(keys))
    gateway.expire(keys)
    error = translated_error(lake, "boto3", *keys)
    assert type(error) is ExpiredCredentialsError and "AWS_SESSION_TOKEN" in str(error)
    assert not lake.renew_credentials()


def test_a_profile_that_was_rewritten_is_read_again(gateway, prefix, tmp_path):
    """`renew_credentials` reads a credentials file again, as tools for single sign-on rewrite it during a long run."""

    def write_profile(keys: Keys) -> None:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        lines = [f"{name} = {value}" for name, value in zip(names, keys, strict=True)]
        (tmp_path / "credentials").write_text("\n".join(["[default]", *lines]))

    write_profile(gateway.issue())
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_ENDPOINT_URL": gateway.endpoint}
    lake = open_lake(prefix, variables)
    lake.check_access()
    gateway.expire()
    write_profile(gateway.issue())
    assert lake.renew_credentials()
    lake.check_access()


def test_threads_share_a_lake_while_its_credentials_are_renewed(gateway, prefix):
    """Concurrent use and renewal of one lake and its sibling raise no error."""
    lake = open_lake(prefix, gateway.environment())
    siblings = [lake, lake.sibling(f"{prefix}/landing")]

    def use(number: int) -> None:
        if number % 8 == 0:
            lake.renew_credentials()
        siblings[number % 2].check_access()
        lake.storage_options  # noqa: B018

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(24)))
