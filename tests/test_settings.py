"""Settings: the environment before `.env` before the defaults, and what is off is named, never a secret."""

import os
import re

import boto3
import pytest

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.settings import CHECKOUT, Settings

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def load(tmp_path):
    """Settings with this text as `.env`."""

    def load(text: str = "") -> Settings:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
        return settings.load(tmp_path / ".env")

    return load


def complaint(load, text: str = "") -> str:
    with pytest.raises(LakehouseError) as info:
        load(text)
    return str(info.value)


# Whose word counts


def test_nothing_set_means_the_embedded_server_and_the_checkouts_own_folders(load):
    config = load()
    assert (config.lakehouse_uri, config.endpoint_url, config.region) == (None, None, None)
    assert config.landing == str(CHECKOUT / "data" / "landing")
    assert config.state_dir == CHECKOUT / ".lakehouse"


def test_env_file_goes_before_the_default_and_the_environment_before_both(load, monkeypatch):
    text = "LAKEHOUSE_URI=s3://from-file\nAWS_REGION=eu-west-1"
    assert load(text).lakehouse_uri == "s3://from-file"
    monkeypatch.setenv("LAKEHOUSE_URI", "s3://from-environment")
    assert (load(text).lakehouse_uri, load(text).region) == ("s3://from-environment", "eu-west-1")


def test_an_empty_variable_counts_as_none(load, monkeypatch):
    """As docker-compose and CI systems pass on what they don't have."""
    for name in ("LAKEHOUSE_URI", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    config = load()
    assert (config.lakehouse_uri, config.endpoint_url, config.region) == (None, "http://localhost:9000", None)
    assert boto3.Session().profile_name == "default"


def test_an_emptied_variable_also_empties_what_env_file_says(load, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_URI", "")
    assert load("LAKEHOUSE_URI=s3://from-file").lakehouse_uri is None


def test_a_changed_env_file_is_read_again(load):
    assert load("LAKEHOUSE_URI=s3://one\nAWS_PROFILE=one").lakehouse_uri == "s3://one"
    assert load("LAKEHOUSE_URI=s3://two").lakehouse_uri == "s3://two"
    assert "AWS_PROFILE" not in os.environ
    assert load().lakehouse_uri is None


def test_endpoint_for_s3_goes_before_the_general_one_and_region_before_default_region(load):
    text = "AWS_ENDPOINT_URL=http://general:1\nAWS_ENDPOINT_URL_S3=http://s3:1\nAWS_DEFAULT_REGION=a\nAWS_REGION=b"
    assert (load(text).endpoint_url, load(text).region) == ("http://s3:1", "b")


def test_folders_may_begin_with_a_tilde_and_relative_ones_count_from_the_checkout(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = load("LAKEHOUSE_LANDING=raw\nLAKEHOUSE_STATE_DIR=~/state")
    assert config.landing == str(CHECKOUT / "raw")
    assert config.state_dir == tmp_path.home() / "state"


# Credentials in .env


def test_boto3_finds_the_keys_of_env_file(load):
    load(f"AWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_SESSION_TOKEN=token")
    found = boto3.Session().get_credentials()
    assert (found.access_key, found.secret_key, found.token) == ("AKIAFILE", SECRET, "token")


def test_boto3_finds_the_profile_of_env_file(load, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    (tmp_path / "credentials").write_text(f"[work]\naws_access_key_id=AKIAWORK\naws_secret_access_key={SECRET}\n")
    load(f"AWS_PROFILE=work\nAWS_SHARED_CREDENTIALS_FILE={tmp_path / 'credentials'}")
    assert boto3.Session().get_credentials().access_key == "AKIAWORK"


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_ACCESS_KEY_ID"])
def test_an_identity_in_the_environment_isnt_mixed_with_one_in_env_file(load, monkeypatch, name):
    """Keys of .env would go before a profile, and its session token would spoil other keys."""
    monkeypatch.setenv(name, "mine")
    load(f"AWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_SESSION_TOKEN=token\nAWS_REGION=eu-west-1")
    assert {key for key in os.environ if key in settings._IDENTITY} == {name}
    assert os.environ["AWS_REGION"] == "eu-west-1"


# What is off is named


@pytest.mark.parametrize(
    "value",
    ["s3a://bucket/x", "s3://", "s3:///x", "http://bucket/x", "bucket/x", "/x", "s3://b u", "s3://b/x?y", "s3:/bucket"],
)
def test_a_wrong_lake_address_is_named_with_its_variable(load, value):
    message = complaint(load, f"LAKEHOUSE_URI='{value}'")
    assert f"LAKEHOUSE_URI='{value}'" in message and "must look like s3://bucket" in message


@pytest.mark.parametrize("odd", ["a%20b", "a*", "a[1]", "{a,b}", "a\\b", "../a", "a/./b"])
def test_an_address_that_libraries_read_in_different_ways_is_refused(load, odd):
    assert "may not hold" in complaint(load, f"LAKEHOUSE_URI='s3://bucket/x/{odd}'")


@pytest.mark.parametrize("value", ["localhost:9000", "s3://host", "http://", "http://host:port", "http://h?x=1"])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_wrong_endpoint_is_named_with_the_variable_that_holds_it(load, name, value):
    assert complaint(load, f"{name}={value}").startswith(f"{name}='{value}' ")


@pytest.mark.parametrize("name", ["LAKEHOUSE_LANDING", "LAKEHOUSE_STATE_DIR"])
def test_a_wrong_folder_is_named_with_its_variable(load, name):
    assert complaint(load, f"{name}=s3a://bucket/x").startswith(f"{name}='s3a://bucket/x' ")


def test_keys_in_an_address_are_refused_and_not_repeated(load):
    for name, value in {
        "LAKEHOUSE_URI": f"s3://AKIA1:{SECRET}@bucket/x",
        "AWS_ENDPOINT_URL": f"https://AKIA1:{SECRET}@host",
    }.items():
        message = complaint(load, f"{name}={value}")
        assert name in message and SECRET not in message and "AKIA1" not in message
        os.environ.pop(name)


def test_an_env_file_that_cant_be_read_is_named_without_its_content(tmp_path):
    (tmp_path / ".env").write_text(f"AWS_SECRET_ACCESS_KEY={SECRET}", encoding="utf-16")  # as PowerShell's > does
    with pytest.raises(LakehouseError, match="not UTF-8") as info:
        settings.load(tmp_path / ".env")
    assert str(tmp_path / ".env") in str(info.value)
    assert info.value.__cause__ is None and info.value.__suppress_context__


def test_a_byte_order_mark_doesnt_hide_the_first_line(tmp_path):
    (tmp_path / ".env").write_text("LAKEHOUSE_URI=s3://bucket", encoding="utf-8-sig")
    assert settings.load(tmp_path / ".env").lakehouse_uri == "s3://bucket"


def test_a_broken_line_in_env_file_isnt_printed(load, capfd, caplog):
    load(f"= {SECRET}\nAWS SECRET {SECRET}\nLAKEHOUSE_URI=s3://bucket")
    assert SECRET not in "".join(capfd.readouterr()) + caplog.text


def test_superfluous_slashes_dont_make_two_places_of_one(load):
    assert load("LAKEHOUSE_URI=s3://bucket//a//b/").lakehouse_uri == "s3://bucket/a/b"


# Proxies


@pytest.fixture
def proxies(monkeypatch) -> pytest.MonkeyPatch:
    """An environment without proxy variables: in either spelling, and whichever of them the code sets meanwhile."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, "")  # makes sure that it is restored
            monkeypatch.delenv(spelling)
    return monkeypatch


def test_the_loopback_is_exempt_whichever_spelling_the_others_are_in(proxies):
    proxies.setenv("NO_PROXY", "corp.example, 10.0.0.1")
    settings.bypass_proxy_for("127.0.0.1")
    settings.bypass_proxy_for("127.0.0.1")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "corp.example,10.0.0.1,127.0.0.1"


def test_the_variable_that_leads_through_a_proxy_is_known(proxies):
    proxies.setenv("HTTPS_PROXY", "http://proxy:3128")
    proxies.setenv("NO_PROXY", "minio.example")
    assert settings.proxy_variable("https://s3.eu-west-1.amazonaws.com") == "HTTPS_PROXY"
    assert settings.proxy_variable("http://s3.example") is None
    assert settings.proxy_variable("https://minio.example:9000") is None


# .env.example


def test_env_example_lists_every_setting_with_its_default_and_nothing_else(load):
    text = (CHECKOUT / ".env.example").read_text("utf-8")
    shown = dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    read_by_boto3 = settings._IDENTITY - {"AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN"}
    read_by_boto3 |= {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    assert shown.keys() == {name for names in settings.variables() for name in names} | read_by_boto3
    uncommented = re.sub(r"^# (?=[A-Z0-9_]+=)", "", text, flags=re.MULTILINE)
    assert load(uncommented) == load("")
    for field in Settings.model_fields.values():
        assert field.description in text
