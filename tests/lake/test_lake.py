"""A lake's addresses, what it gives to each client, and the embedded server behind it."""

import contextlib
import os
from pathlib import Path

import duckdb
import pytest
from support.s3_clients import NO_ENV_FILE, ROWS, open_lake, scan, use_with_every_client, write

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import SettingError
from lakehouse_utils.lake import Lake, TableRef, credentials
from lakehouse_utils.lake.lake import extension_file


def test_addresses_are_below_the_root_without_superfluous_slashes(prefix, s3_server):
    """`uri` and `key` join names below the lake's root; a sibling does the same below its own."""
    lake = open_lake(f"{prefix}//nested/", {"LAKEHOUSE_URI": s3_server.uri, "AWS_ENDPOINT_URL": s3_server.endpoint})
    folder = prefix.removeprefix("s3://lakehouse/")
    assert lake.uri() == f"{prefix}/nested"
    assert lake.uri("silver", "orders") == f"{prefix}/nested/silver/orders"
    assert lake.key("silver", "orders") == f"{folder}/nested/silver/orders"
    assert lake.sibling("s3://other/raw").key("x") == "raw/x"
    assert Lake.open("s3://other", settings.load(NO_ENV_FILE)).key("x") == "x"


@pytest.mark.parametrize("uri", ["s3a://bucket", "s3://", "http://bucket/x", "s3://AKIA:SECRET@bucket"])
def test_an_invalid_address_is_named_without_the_keys_in_it(uri):
    """An address that is not s3://bucket/prefix raises a SettingError that shows it, but no keys."""
    with pytest.raises(SettingError, match="must look like s3://bucket") as info:
        Lake.open(uri)
    assert info.value.setting == "--lake"
    assert "SECRET" not in str(info.value) and "AKIA" not in str(info.value)


def test_a_table_reference_opens_the_table_or_gives_none(lake):
    """A TableRef knows its address and label; `open` gives None before the first commit, later any version."""
    ref = lake.table("silver", "orders")
    assert ref == TableRef(lake, ("silver", "orders"))
    assert (ref.uri, ref.label) == (lake.uri("silver", "orders"), "silver.orders")
    assert ref.key("_delta_log", "") == lake.key("silver", "orders", "_delta_log", "")
    assert ref.open() is None and lake.delta("silver", "orders") is None
    write(lake, "silver", "orders")
    write(lake, "silver", "orders")
    assert ref.open().version() == lake.delta("silver", "orders").version() == 1
    assert ref.open(version=0).count() == lake.delta("silver", "orders", version=0).count() == ROWS.num_rows


def test_tables_are_listed(lake):
    """`tables` finds what is at <layer>/<table> and has a log; folders that start with `_` are not searched."""
    for names in (("silver", "b"), ("silver", "a"), ("gold", "x"), ("_pipeline", "hidden"), ("landing", "day", "deep")):
        write(lake, *names)
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("bronze", "files only", "part-0.parquet"), Body=b"")
    assert [ref.label for ref in lake.tables()] == ["gold.x", "silver.a", "silver.b"]
    assert lake.sibling(lake.uri("missing")).tables() == []


def test_aws_itself_gets_the_address_that_boto3_chose(monkeypatch):
    """On AWS, delta-rs and DuckDB get the regional endpoint of boto3, whatever AWS_ENDPOINT says."""
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")  # delta-rs alone reads it
    lake = open_lake("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"})
    lake._account._regions["bucket"] = "cn-north-1"  # there is no AWS here to ask
    assert (lake.server_name, lake.is_aws, lake.is_embedded) == ("AWS S3", True, False)
    assert lake.endpoint == "https://s3.cn-north-1.amazonaws.com.cn"
    assert lake.is_aws
    assert lake.storage_options["AWS_ENDPOINT_URL"] == lake.endpoint
    with contextlib.closing(lake.duckdb()) as db:
        (secret,) = db.sql("SELECT secret_string FROM duckdb_secrets()").fetchone()
    assert "endpoint=s3.cn-north-1.amazonaws.com.cn" in secret and "use_ssl=true" in secret


def test_a_server_with_amazonaws_in_its_path_is_not_aws():
    """Only the host name of the endpoint says whether the server is AWS."""
    lake = open_lake("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1/s3.amazonaws.com"})
    assert not lake.is_aws


def test_one_duckdb_connection_can_read_two_lakes(gateway, prefix, s3_server, s3_state_dir):
    """`authorize` adds the secret of another lake to a connection, once however often it is called."""
    embedded = open_lake(None, {"LAKEHOUSE_STATE_DIR": str(s3_state_dir)})
    other = open_lake("s3://second-bucket/x", gateway.environment(gateway.issue()))
    with contextlib.closing(embedded.duckdb()) as db:
        other.authorize(db)
        other.authorize(db)
        assert len(db.sql("FROM duckdb_secrets()").fetchall()) == 2


def test_duckdb_refuses_unsigned_extensions(s3_server, prefix, s3_state_dir, tmp_path):
    """Only the extensions of the wheels are loaded without a check of their signatures."""
    file = extension_file("httpfs")
    if file is None:
        pytest.skip("there is no wheel of the extension for this platform")
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1  # the signature is at the end
    (tmp_path / "changed.duckdb_extension").write_bytes(changed)
    lake = Lake.open(prefix, settings.Settings(state_dir=s3_state_dir))
    with contextlib.closing(lake.duckdb()) as db, pytest.raises(duckdb.IOException, match="signature"):
        db.load_extension(str(tmp_path / "changed.duckdb_extension"))


def test_duckdb_draws_no_progress_bar(s3_server, prefix, s3_state_dir):
    """The progress bar is off, so that printed output does not contain it."""
    lake = Lake.open(prefix, settings.Settings(state_dir=s3_state_dir))
    assert lake.duckdb().sql("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)


# The embedded server, whatever AWS's variables say


def test_the_embedded_server_ignores_settings_for_aws(s3_server, s3_state_dir, tmp_path):
    """Variables and files for AWS do not change how a lake on the embedded server is opened."""
    (tmp_path / "config").write_text("[profile x\n[[")
    irrelevant = {
        "AWS_SESSION_TOKEN": "junk",
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_SECRET_ACCESS_KEY": "othersecret",
        "AWS_PROFILE": "no-such-profile",
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
    lake = open_lake(None, irrelevant)
    use_with_every_client(lake.sibling(f"{lake.root}/test-irrelevant-{os.getpid()}"))
    assert (lake.server_name, lake.endpoint, lake.region) == ("the embedded S3 server", s3_server.endpoint, "us-east-1")
    assert lake.is_embedded and not lake.is_aws
    assert not lake.renew_credentials()


def test_the_embedded_server_is_started_again_when_it_is_gone(tmp_path, monkeypatch):
    """A lake finds the server again after it was stopped, also on other ports."""
    monkeypatch.setattr(credentials, "_CHECK_INTERVAL_S", 0)
    state_dir = tmp_path / "state"
    lake = open_lake(None, {"LAKEHOUSE_STATE_DIR": str(state_dir)})
    try:
        write(lake, "t")
        embedded_s3.stop(state_dir)
        (state_dir / "s3" / "ports.json").unlink()  # so that it comes back on other ports
        assert scan(lake, "t") == [(1, "a"), (2, "b"), (3, "c")]
        lake.check_access()
    finally:
        embedded_s3.stop(state_dir)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no permissions of this kind")
def test_a_lake_elsewhere_needs_no_state_folder(gateway, prefix, tmp_path):
    """With LAKEHOUSE_URI set, a lake opens and works where the state folder cannot be made."""
    (tmp_path / "a-file").write_text("")  # also root cannot make a folder below a file
    state_dir = {"LAKEHOUSE_STATE_DIR": str(tmp_path / "a-file" / "state")}
    use_with_every_client(open_lake(None, gateway.environment(gateway.issue()), {"LAKEHOUSE_URI": prefix}, state_dir))


# Secrets


def test_what_a_notebook_shows_contains_no_secret(gateway, prefix, s3_server, capfd, caplog):
    """Neither `repr`, nor output, nor logs, nor DuckDB's list of secrets show a secret key or token."""
    keys = gateway.issue()
    lake = open_lake(prefix, gateway.environment(keys))
    caplog.set_level("INFO")
    use_with_every_client(lake)
    with contextlib.closing(lake.duckdb()) as db:
        shown = f"{lake!r} {lake.storage_options!r} {lake.storage_options} {lake.credentials()!r} {lake.session!r}"
        assert keys.access_key not in shown
        shown += str(db.sql("FROM duckdb_secrets()").fetchall()) + repr(s3_server) + caplog.text
    shown += "".join(capfd.readouterr())
    for secret in (keys.secret_key, keys.token, s3_server.secret_key):
        assert secret not in shown
    assert lake.storage_options["AWS_SECRET_ACCESS_KEY"] == keys.secret_key


def test_settings_from_env_file_are_shown_without_their_keys(gateway, prefix, tmp_path):
    """Settings that were read from `.env` do not show the credentials in it."""
    keys = gateway.issue()
    variables = {"LAKEHOUSE_URI": prefix} | gateway.environment(keys)
    env_file = Path(tmp_path, ".env")
    env_file.write_text("\n".join(f"{name}={value}" for name, value in variables.items()))
    config = settings.load(env_file)
    assert config.env_file_variables["AWS_SECRET_ACCESS_KEY"] == keys.secret_key
    assert not any(secret in f"{config} {config!r}" for secret in keys)
