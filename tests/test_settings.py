"""Settings: the environment before `.env` before the defaults; an invalid value is named, a secret never shown."""

import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from lakehouse_utils import settings
from lakehouse_utils.errors import SettingError
from lakehouse_utils.settings import CHECKOUT, Settings

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def load(tmp_path):
    """Load the settings with this text as `.env`."""

    def load(text: str = "") -> Settings:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
        return settings.load(tmp_path / ".env")

    return load


@pytest.fixture
def apply(load):
    """Load the settings with this text as `.env`, and apply them to this process."""

    def apply(text: str = "") -> Settings:
        config = load(text)
        settings.apply_to_process(config)
        return config

    return apply


def error_of(load, text: str = "") -> SettingError:
    with pytest.raises(SettingError) as info:
        load(text)
    return info.value


# Precedence


def test_nothing_set_means_the_embedded_server_and_folders_in_the_checkout(load):
    """Without settings, the lake is on the embedded server, and raw files and state are in the checkout."""
    config = load()
    assert (config.lakehouse_uri, config.endpoint_url, config.region) == (None, None, None)
    assert config.landing == str(CHECKOUT / "data" / "landing")
    assert config.state_dir == CHECKOUT / ".lakehouse"
    assert config == Settings()


def test_the_environment_takes_precedence_over_env_file(load, monkeypatch):
    """A variable in the environment hides the same one in `.env`, which takes precedence over the default."""
    text = "LAKEHOUSE_URI=s3://from-file\nAWS_REGION=eu-west-1"
    assert load(text).lakehouse_uri == "s3://from-file"
    monkeypatch.setenv("LAKEHOUSE_URI", "s3://from-environment")
    assert (load(text).lakehouse_uri, load(text).region) == ("s3://from-environment", "eu-west-1")


def test_an_empty_variable_counts_as_not_set(apply, monkeypatch):
    """docker-compose and CI systems pass on empty variables; boto3 must not see them either."""
    for name in ("LAKEHOUSE_URI", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    config = apply()
    assert (config.lakehouse_uri, config.endpoint_url, config.region) == (None, "http://localhost:9000", None)
    assert boto3.Session().profile_name == "default"


def test_an_empty_variable_hides_the_one_in_env_file(load, monkeypatch):
    """An empty variable in the environment switches off what `.env` says."""
    monkeypatch.setenv("LAKEHOUSE_URI", "")
    assert load("LAKEHOUSE_URI=s3://from-file").lakehouse_uri is None


def test_a_changed_env_file_is_read_again(apply):
    """Applied settings do not count as the environment of the next load: `.env` may change, and lose variables."""
    assert apply("LAKEHOUSE_URI=s3://one\nAWS_PROFILE=one").lakehouse_uri == "s3://one"
    assert os.environ["AWS_PROFILE"] == "one"
    assert apply("LAKEHOUSE_URI=s3://two").lakehouse_uri == "s3://two"
    assert "AWS_PROFILE" not in os.environ
    assert apply().lakehouse_uri is None
    assert "LAKEHOUSE_URI" not in os.environ


def test_the_s3_endpoint_and_aws_region_take_precedence_over_the_general_variables(load):
    """AWS_ENDPOINT_URL_S3 hides AWS_ENDPOINT_URL, and AWS_REGION hides AWS_DEFAULT_REGION."""
    text = "AWS_ENDPOINT_URL=http://general:1\nAWS_ENDPOINT_URL_S3=http://s3:1\nAWS_DEFAULT_REGION=a\nAWS_REGION=b"
    assert (load(text).endpoint_url, load(text).region) == ("http://s3:1", "b")


def test_a_folder_may_begin_with_a_tilde_or_be_relative(load, monkeypatch, tmp_path):
    """`~` is the home folder; a relative folder is below the checkout, not below the current folder."""
    monkeypatch.chdir(tmp_path)
    config = load("LAKEHOUSE_LANDING=raw\nLAKEHOUSE_STATE_DIR=~/state")
    assert config.landing == str(CHECKOUT / "raw")
    assert config.state_dir == tmp_path.home() / "state"


def test_superfluous_slashes_are_removed(load):
    """Two spellings of one address are the same lake."""
    assert load("LAKEHOUSE_URI=s3://bucket//a//b/").lakehouse_uri == "s3://bucket/a/b"


# Side effects


def test_load_leaves_the_environment_as_it_is(load, monkeypatch):
    """Only `apply_to_process` changes the environment."""
    monkeypatch.setenv("AWS_PROFILE", "")
    before = dict(os.environ)
    config = load(f"LAKEHOUSE_URI=s3://bucket\nAWS_SECRET_ACCESS_KEY={SECRET}\nOTHER=x")
    assert dict(os.environ) == before
    assert config.env_file_variables == {
        "LAKEHOUSE_URI": "s3://bucket",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "OTHER": "x",
    }


def test_the_settings_are_shown_without_the_variables_of_env_file(load):
    """`.env` holds keys, so neither `repr` nor `str` of the settings show its variables."""
    assert SECRET not in repr(load(f"AWS_SECRET_ACCESS_KEY={SECRET}"))


def test_threads_may_read_and_apply_settings_at_the_same_time(apply):
    """Each task of a Spark worker opens a lake, and the tasks are threads of one process."""
    barrier, interval = threading.Barrier(8), sys.getswitchinterval()

    def apply_with_others(_: int) -> None:
        barrier.wait()
        apply()

    sys.setswitchinterval(1e-6)  # threads change places as often as they can
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(100):
                for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
                    os.environ[name] = ""
                list(threads.map(apply_with_others, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert "AWS_SESSION_TOKEN" not in os.environ


@pytest.mark.parametrize("trust", [True, False])
def test_the_ca_bundle_becomes_ssl_cert_file_if_asked(load, monkeypatch, tmp_path, trust):
    """delta-rs reads SSL_CERT_FILE only; it is set for a lake that needs it, and if AWS_CA_BUNDLE is a file."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    settings.apply_to_process(load(f"AWS_CA_BUNDLE={tmp_path / 'missing.pem'}"), trust_ca_bundle=trust)
    assert "SSL_CERT_FILE" not in os.environ
    (tmp_path / "bundle.pem").write_text("")
    settings.apply_to_process(load(f"AWS_CA_BUNDLE={tmp_path / 'bundle.pem'}"), trust_ca_bundle=trust)
    assert os.environ.get("SSL_CERT_FILE") == (str(tmp_path / "bundle.pem") if trust else None)


def test_an_ssl_cert_file_that_is_set_stays(load, monkeypatch, tmp_path):
    """The user's own SSL_CERT_FILE is not replaced."""
    (tmp_path / "bundle.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", "mine.pem")
    settings.apply_to_process(load(f"AWS_CA_BUNDLE={tmp_path / 'bundle.pem'}"), trust_ca_bundle=True)
    assert os.environ["SSL_CERT_FILE"] == "mine.pem"


# Credentials in .env


def test_boto3_finds_the_keys_in_env_file(apply):
    """Once the settings are applied, boto3 uses the keys in `.env`."""
    apply(f"AWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_SESSION_TOKEN=token")
    credentials = boto3.Session().get_credentials()
    assert (credentials.access_key, credentials.secret_key, credentials.token) == ("AKIAFILE", SECRET, "token")


def test_boto3_finds_the_profile_in_env_file(apply, tmp_path, monkeypatch):
    """Once the settings are applied, boto3 uses the profile and the files that `.env` names."""
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    (tmp_path / "credentials").write_text(f"[work]\naws_access_key_id=AKIAWORK\naws_secret_access_key={SECRET}\n")
    apply(f"AWS_PROFILE=work\nAWS_SHARED_CREDENTIALS_FILE={tmp_path / 'credentials'}")
    assert boto3.Session().get_credentials().access_key == "AKIAWORK"


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_ACCESS_KEY_ID"])
def test_an_identity_in_the_environment_is_not_mixed_with_one_in_env_file(apply, monkeypatch, name):
    """Keys in `.env` would hide a profile in the environment, and their session token would break other keys."""
    monkeypatch.setenv(name, "mine")
    apply(f"AWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_SESSION_TOKEN=token\nAWS_REGION=eu-west-1")
    assert {key for key in os.environ if key in settings._IDENTITY} == {name}
    assert os.environ["AWS_REGION"] == "eu-west-1"


# Invalid values


@pytest.mark.parametrize(
    "value",
    ["s3a://bucket/x", "s3://", "s3:///x", "http://bucket/x", "bucket/x", "/x", "s3://b u", "s3://b/x?y", "s3:/bucket"],
)
def test_an_invalid_lake_address_is_named_with_its_variable(load, value):
    """The message quotes LAKEHOUSE_URI and its value, and says what an address looks like."""
    error = error_of(load, f"LAKEHOUSE_URI='{value}'")
    assert error.setting == "LAKEHOUSE_URI"
    assert str(error).startswith(f"LAKEHOUSE_URI='{value}' is invalid: it must look like s3://bucket")


@pytest.mark.parametrize("character", ["a%20b", "a*", "a[1]", "{a,b}", "a\\b", "../a", "a/./b"])
def test_an_address_that_libraries_interpret_differently_is_refused(load, character):
    """Escapes, patterns and parent folders in an address raise an error."""
    assert "must not contain" in str(error_of(load, f"LAKEHOUSE_URI='s3://bucket/x/{character}'"))


@pytest.mark.parametrize("value", ["localhost:9000", "s3://host", "http://", "http://host:port", "http://h?x=1"])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_invalid_endpoint_is_named_with_its_variable(load, name, value):
    """The message quotes the one of the two variables that is set."""
    error = error_of(load, f"{name}={value}")
    assert error.setting == name and str(error).startswith(f"{name}='{value}' is invalid: it must ")


@pytest.mark.parametrize("name", ["LAKEHOUSE_LANDING", "LAKEHOUSE_STATE_DIR"])
def test_an_invalid_folder_is_named_with_its_variable(load, name):
    """The message quotes the variable and its value."""
    error = error_of(load, f"{name}=s3a://bucket/x")
    assert error.setting == name and str(error).startswith(f"{name}='s3a://bucket/x' is invalid: it must ")


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [("400MB", 400_000_000), ("1.5 GiB", 3 << 29), ("2gb", 2_000_000_000), ("100MB", 100_000_000), ("1TB", 10**12)],
)
def test_a_memory_limit_has_a_unit(load, value, size_bytes):
    """Decimal and binary units are understood, in upper and lower case."""
    assert load(f"LAKEHOUSE_MEMORY_LIMIT={value}").memory_limit == size_bytes


@pytest.mark.parametrize("value", ["400", "much", "-1GB", "99MB", "0.05GB", "50%", "1e9GB", "4 00MB"])
def test_an_invalid_memory_limit_is_refused(load, value):
    """The message quotes the value and says what a valid one looks like."""
    error = error_of(load, f"LAKEHOUSE_MEMORY_LIMIT='{value}'")
    assert error.setting == "LAKEHOUSE_MEMORY_LIMIT"
    assert str(error).startswith(f"LAKEHOUSE_MEMORY_LIMIT='{value}' is invalid: it must be ")


def test_the_message_says_where_the_invalid_value_is(load, monkeypatch, tmp_path):
    """What to change is the variable in the environment, or the line in `.env`."""
    assert str(error_of(load, "LAKEHOUSE_URI=x")).endswith(f"Change it in {tmp_path / '.env'}.")
    monkeypatch.setenv("LAKEHOUSE_URI", "x")
    assert str(error_of(load, "LAKEHOUSE_URI=s3://bucket")).endswith("Change it in the environment.")


def test_keys_in_an_address_are_refused_and_not_repeated(load):
    """An address with credentials in it raises an error that does not show them."""
    for name, value in {
        "LAKEHOUSE_URI": f"s3://AKIA1:{SECRET}@bucket/x",
        "AWS_ENDPOINT_URL": f"https://AKIA1:{SECRET}@host",
    }.items():
        error = error_of(load, f"{name}={value}")
        assert error.setting == name and name in str(error)
        assert SECRET not in str(error) and "AKIA1" not in str(error)
        assert error.__cause__ is None and error.__context__ is None


def test_an_env_file_in_another_encoding_is_named_without_its_content(tmp_path):
    """A `.env` that PowerShell's > wrote (UTF-16) raises an error that does not quote it."""
    (tmp_path / ".env").write_text(f"AWS_SECRET_ACCESS_KEY={SECRET}", encoding="utf-16")
    with pytest.raises(SettingError, match="not UTF-8") as info:
        settings.load(tmp_path / ".env")
    assert str(tmp_path / ".env") in str(info.value)
    assert info.value.__cause__ is None and info.value.__suppress_context__


def test_a_byte_order_mark_does_not_hide_the_first_line(tmp_path):
    """A `.env` that begins with a byte order mark is read completely."""
    (tmp_path / ".env").write_text("LAKEHOUSE_URI=s3://bucket", encoding="utf-8-sig")
    assert settings.load(tmp_path / ".env").lakehouse_uri == "s3://bucket"


def test_an_invalid_line_in_env_file_is_not_printed(load, capfd, caplog):
    """Warnings about `.env` do not quote its lines."""
    load(f"= {SECRET}\nAWS SECRET {SECRET}\nLAKEHOUSE_URI=s3://bucket")
    assert SECRET not in "".join(capfd.readouterr()) + caplog.text


# Proxies


@pytest.fixture
def proxies(monkeypatch) -> pytest.MonkeyPatch:
    """An environment without proxy variables in either spelling; what the code sets is undone after the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, "")  # makes sure that it is restored
            monkeypatch.delenv(spelling)
    return monkeypatch


def test_the_loopback_is_exempt_from_proxies_in_both_spellings(proxies, apply):
    """NO_PROXY and no_proxy get the loopback addresses once, behind what they held."""
    proxies.setenv("NO_PROXY", "corp.example, 10.0.0.1")
    apply()
    apply()
    expected = "corp.example,10.0.0.1,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == expected


def test_a_no_proxy_for_all_hosts_stays(proxies, apply):
    """A * exempts all hosts, but only while it stands alone."""
    proxies.setenv("no_proxy", "*")
    apply()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "*"


def test_the_proxy_variable_of_an_address_is_found(proxies):
    """`proxy_variable` names the variable that applies to an address, and None where NO_PROXY exempts it."""
    proxies.setenv("HTTPS_PROXY", "http://proxy:3128")
    proxies.setenv("NO_PROXY", "minio.example")
    assert settings.proxy_variable("https://s3.eu-west-1.amazonaws.com") == "HTTPS_PROXY"
    assert settings.proxy_variable("http://s3.example") is None
    assert settings.proxy_variable("https://minio.example:9000") is None
    proxies.setenv("ALL_PROXY", "http://proxy:3128")
    assert settings.proxy_variable("http://s3.example") == "ALL_PROXY"


# .env.example


def test_env_example_lists_every_setting_with_its_default_and_nothing_else(load):
    """`.env.example` is complete, its descriptions are those of the code, and uncommented it changes nothing."""
    text = (CHECKOUT / ".env.example").read_text("utf-8")
    shown = dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    read_by_boto3 = settings._IDENTITY - {"AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN"}
    read_by_boto3 |= {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    variables = {name for variable in settings.VARIABLES.values() for name in variable.names}
    assert shown.keys() == variables | read_by_boto3
    uncommented = re.sub(r"^# (?=[A-Z0-9_]+=)", "", text, flags=re.MULTILINE)
    assert load(uncommented) == load("")
    for variable in settings.VARIABLES.values():
        assert variable.description in text


def test_every_setting_has_a_variable():
    """No field of Settings can only be set from code, except the variables of `.env` themselves."""
    assert settings.VARIABLES.keys() == Settings.__dataclass_fields__.keys() - {"env_file_variables"}


def test_env_file_with_a_nul_character(tmp_path):
    """A NUL character, which no environment can hold, is an invalid line of the file."""
    (tmp_path / ".env").write_bytes(b"AWS_REGION=eu\0west\n")
    with pytest.raises(
        SettingError, match=r"\.env is invalid: the line of AWS_REGION contains a NUL character"
    ) as caught:
        settings.load(tmp_path / ".env")
    assert caught.value.setting == "AWS_REGION"
