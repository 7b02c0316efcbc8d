"""`python -m lakehouse_utils.lake`: SQL that opens a lake in DuckDB's command line, whatever else is in the lake."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from support.s3_clients import write

from lakehouse_utils.lake.__main__ import main, statements


def test_tables_that_cannot_be_read_get_a_comment(lake, tmp_path, s3_server):
    """One damaged table, or one whose name DuckDB knows already, does not hide the others."""
    for names in (("silver", "orders"), ("silver", "Orders"), ("temp", "t"), ("odd", 'a "b" c')):
        write(lake, *names)
    log = lake.key("foreign", "broken", "_delta_log", f"{0:020}.json")
    lake.s3.put_object(Bucket=lake.bucket, Key=log, Body=b"{not json")
    sql = list(statements(lake))
    comments = [line for line in sql if line.startswith("--")]
    assert len(comments) == 3 and all("\n" not in line for line in comments)
    file = tmp_path / "lake.sql"
    file.write_text("\n".join(sql), encoding="utf-8")
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    duckdb = Path(sys.executable).parent / "duckdb"
    query = 'SELECT count(*) > 0 FROM odd."a ""b"" c"'
    command = [duckdb, "-init", file, "-noheader", "-list", "-c", query]
    done = subprocess.run(command, env=os.environ | keys | {"AWS_SESSION_TOKEN": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "true"


def test_wrong_address_is_one_sentence():
    """An invalid address is an error without a traceback."""
    result = CliRunner().invoke(main, ["--lake", "http://x"])
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
