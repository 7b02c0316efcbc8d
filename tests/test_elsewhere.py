"""Each row of docs/elsewhere.md is tried: what it says fails does fail, and what it says to write instead works."""

import re

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.table import TableMerger
from support.markdown import tables

from lakehouse_utils.course import request_log
from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

PAGE = (CHECKOUT / "docs" / "elsewhere.md").read_text("utf-8")
ROWS = [row for table in tables(PAGE) for row in table.rows]
ERRORS: dict[str, type[Exception]] = {each.__name__: each for each in (AttributeError, TypeError, DeltaError)}
CALLS = [row for row in ROWS if row[1].split(":")[0] in ERRORS]
OPTIONS = [row for row in ROWS if row not in CALLS]
MERGE = 'table.merge(rows, "target.id = source.id", {})'


@pytest.fixture
def names(lake: Lake) -> dict[str, object]:
    """What the calls of the page use: a table with two rows, other rows, and a merge of them."""
    uri, options = lake.uri("elsewhere"), lake.storage_options
    rows = pa.table({"id": [1, 2]})
    write_deltalake(uri, rows, storage_options=options)
    table = DeltaTable(uri, storage_options=options)
    merger = table.merge(rows, "target.id = source.id", source_alias="source", target_alias="target")

    def write(address: str, data: pa.Table, **arguments: object) -> None:
        write_deltalake(address, data, mode="append", storage_options=options, **arguments)  # type: ignore[call-overload]

    return {"table": table, "rows": rows, "merger": merger, "uri": uri, "pyarrow": pa, "write_deltalake": write}


def run(code: str, names: dict[str, object]) -> None:
    """Evaluate a call, and execute it if it is a merge."""
    result = eval(code, names)
    if isinstance(result, TableMerger):
        result.when_matched_update_all().execute()


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row[0])
def test_old_call_fails_and_new_call_works(row: list[str], names: dict[str, object]) -> None:
    """The call in the first column raises the error of the second, and the code of the third column works."""
    old, error, new = row
    with pytest.raises(ERRORS[error.split(":")[0]]):
        run(old.strip("`"), names)
    if "large_dtypes" in old:
        run(MERGE.format('source_alias="source", target_alias="target"'), names)
    elif new.startswith("pass "):
        run(MERGE.format(", ".join(re.findall(r"`([^`]+)`", new))), names)
    else:
        run(re.findall(r"`([^`]+)`", new)[0], names)


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row[0])
def test_old_option_does_not_change_the_commit(row: list[str], lake: Lake) -> None:
    """With the option, a commit is still one PUT if absent, and nothing is copied or deleted."""
    name, _, value = row[0].strip("`").partition("=")
    with request_log.record(lake) as log:
        redirected = {"AWS_ENDPOINT_URL": log.endpoint, "AWS_ENDPOINT_URL_S3": log.endpoint}
        options = {**lake.storage_options, **redirected, name: value.strip('"')}
        write_deltalake(lake.uri("elsewhere"), pa.table({"id": [1]}), storage_options=options)
    assert set(log.requests["request"]) <= {"LIST", "GET", "PUT"}
    commits = log.requests[log.requests["object"].str.endswith(".json") & (log.requests["request"] == "PUT")]
    assert commits["condition"].tolist() == ["if absent"]
