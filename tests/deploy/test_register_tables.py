"""deploy/register_tables.py: which tables it registers with Athena, and why it leaves others out."""

import importlib.util
from types import ModuleType

import pandas as pd
import pytest
from deltalake import write_deltalake
from deltalake.table import ProtocolVersions

from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT


@pytest.fixture
def register() -> ModuleType:
    spec = importlib.util.spec_from_file_location("register_tables", CHECKOUT / "deploy" / "register_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def protocol(reader: int, *features: str) -> ProtocolVersions:
    return ProtocolVersions(reader, 7, [], list(features) or None)


def test_table_of_reader_version_1_is_registered(register):
    """Athena's DDL supports reader version 1."""
    assert register.reason_to_leave_out(protocol(1)) == ""


@pytest.mark.parametrize(
    "needs", [protocol(2), protocol(3, "timestampNtz"), protocol(3, "columnMapping", "deletionVectors")]
)
def test_table_that_only_select_supports_is_for_glue(needs, register):
    """SELECT supports these tables and DDL does not, so the reason says how to create them."""
    reason = register.reason_to_leave_out(needs)
    assert f"reader version {needs.min_reader_version}" in reason and "AWS Glue" in reason


@pytest.mark.parametrize("feature", ["v2Checkpoint", "typeWidening", "vacuumProtocolCheck"])
def test_table_with_a_feature_that_athena_does_not_list(feature, register):
    """The reason names the feature that Athena cannot read, and no other feature."""
    reason = register.reason_to_leave_out(protocol(3, "timestampNtz", feature))
    assert feature in reason and "timestampNtz" not in reason and "Glue" not in reason


def test_only_silver_and_gold_tables_are_registered(register, lake: Lake, monkeypatch, capsys):
    """The statements are printed, a table that is left out is named with its reason, and the exit code is 1."""
    aware = pd.DataFrame({"at": pd.to_datetime(["2026-01-03 09:00:00"], utc=True)})
    naive = aware.assign(at=aware["at"].dt.tz_localize(None))
    for names, rows in {("bronze", "a"): aware, ("silver", "b"): aware, ("gold", "c"): naive}.items():
        write_deltalake(lake.uri(*names), rows, storage_options=lake.storage_options)
    monkeypatch.setattr(Lake, "open", lambda: lake)
    assert register.main([]) == 1
    printed = capsys.readouterr()
    (statement,) = printed.out.splitlines()
    assert "lakehouse.silver_b" in statement and f"'{lake.uri('silver', 'b')}/'" in statement
    (left_out,) = printed.err.splitlines()
    assert left_out.startswith("-- left out: gold.c: Athena reads reader version 3")
