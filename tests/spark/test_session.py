"""Sessions of Spark's Connect client: which addresses are valid, and what is shown of them."""

import pytest

from lakehouse_utils.errors import EngineError, SettingError
from lakehouse_utils.spark.session import check_address, open_session, redact_address


@pytest.mark.parametrize(
    "remote", ["sc://host", "sc://host:15002", "sc://host:15002/", "sc://host:15002/;token=x", "sc://user:key@host:1"]
)
def test_valid_address_is_accepted(remote):
    """A host with or without a port and parameters is a valid address."""
    check_address(remote)


@pytest.mark.parametrize(
    "remote",
    ["host:15002", "http://host:15002", "local[2]", "sc://", "sc://h:", "sc://h:99999", "sc://h:a", "sc://h/x"],
)
def test_invalid_address_names_the_option(remote):
    """Any other address is refused with the name of the option and the form it must have."""
    with pytest.raises(
        SettingError, match=r"^--spark-remote=.+ is invalid\. It must look like sc://host:port\.$"
    ) as error:
        check_address(remote)
    assert error.value.setting == "--spark-remote"


def test_redacted_address_has_no_password_and_no_token():
    """Neither what is before the host nor the parameters are shown."""
    assert redact_address("sc://user:secret@host:15002/;token=secret") == "sc://host:15002"
    with pytest.raises(SettingError) as error:
        check_address("sc://user:secret@host:99999/;token=secret")
    assert "secret" not in str(error.value)


def test_address_without_a_server_is_reported(lake):
    """Where no server answers, the message says so after a few seconds and names the option to check."""
    pytest.importorskip("pyspark", reason="the extra spark is not installed: make test does it")
    with pytest.raises(
        EngineError, match=r"^No Spark Connect server answers at sc://127.0.0.1:1 \(.+\)\. Check --spark-"
    ):
        open_session("sc://127.0.0.1:1")
