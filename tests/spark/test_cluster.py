"""The Spark cluster: real work on two workers, on tables that delta-rs also writes, and no access without secrets."""

import http.client
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from support.s3_proxy import proxy_to

from lakehouse_utils import processes
from lakehouse_utils.lake import Lake
from lakehouse_utils.spark.cluster import running_processes, with_token

storagelevel = pytest.importorskip("pyspark.storagelevel", reason="the extra spark is not installed: make test does it")
pytestmark = pytest.mark.slow


def rows(lake: Lake, table: str) -> list[tuple]:
    table_rows = DeltaTable(table, storage_options=lake.storage_options).to_pyarrow_table().to_pylist()
    return sorted(tuple(row.values()) for row in table_rows)


# One table, two engines


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_spark_and_delta_rs_change_each_others_tables(lake, spark, scheme):
    """Spark merges into a table that delta-rs wrote, delta-rs updates it, and Spark sees all three commits."""
    table = lake.uri("orders")
    spark_table = table.replace("s3:", f"{scheme}:")
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    written = pa.table({"id": pa.array([1, 2], pa.int64()), "city": ["Lisbon", "Porto"], "at": [at, at]})
    write_deltalake(table, written, storage_options=lake.storage_options)
    spark.sql(f"""
        MERGE INTO delta.`{spark_table}` AS t
        USING (SELECT * FROM VALUES (2L, 'Braga', TIMESTAMP '2026-03-02 00:00:00') AS v(id, city, at)
               UNION ALL SELECT 3L, 'Faro', TIMESTAMP '2026-03-02 00:00:00') AS s
        ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *
    """)
    later = datetime(2026, 3, 2, tzinfo=UTC)
    assert rows(lake, table) == [(1, "Lisbon", at), (2, "Braga", later), (3, "Faro", later)]

    DeltaTable(table, storage_options=lake.storage_options).update(predicate="id = 1", new_values={"city": "Beja"})
    assert spark.sql(f"SELECT city FROM delta.`{spark_table}` WHERE id = 1").collect()[0].city == "Beja"
    history = spark.sql(f"DESCRIBE HISTORY delta.`{spark_table}`").collect()
    assert [commit.operation for commit in history] == ["UPDATE", "MERGE", "WRITE"]


def test_table_created_by_spark_is_readable_by_old_readers(lake, spark):
    """A table that Spark creates has reader version 1 and writer version 2, and DuckDB reads it."""
    table = lake.uri("created")
    spark.sql(f"CREATE TABLE delta.`{table}` (id BIGINT, at TIMESTAMP) USING delta")
    spark.sql(f"INSERT INTO delta.`{table}` VALUES (1, TIMESTAMP '2026-03-01 00:00:00')")
    protocol = DeltaTable(table, storage_options=lake.storage_options).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    lake.duckdb().sql(f"FROM delta_scan('{table}')").fetchall()
    assert rows(lake, table) == [(1, datetime(2026, 3, 1, tzinfo=UTC))]


def test_commit_of_another_writer_is_not_overwritten(lake, spark):
    """A commit that delta-rs makes after Spark has read the log, and before Spark commits, is kept."""
    table = lake.uri("contested")
    first = pa.table({"who": ["delta-rs"]})

    def commit_first(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/contested/_delta_log/00000000000000000001.json") and not intercepted:
            intercepted.append(path)
            write_deltalake(table, first, mode="append", storage_options=lake.storage_options)

    intercepted: list[str] = []
    spark.sql(f"CREATE TABLE delta.`{table}` (who STRING) USING delta")
    with proxy_to(lake.endpoint, commit_first) as endpoint:
        spark.conf.set("fs.s3a.impl.disable.cache", "true")
        spark.conf.set("fs.s3a.endpoint", endpoint)
        spark.sql(f"INSERT INTO delta.`{table.replace('s3:', 's3a:')}` VALUES ('Spark')")
    assert intercepted
    assert rows(lake, table) == [("Spark",), ("delta-rs",)]
    assert DeltaTable(table, storage_options=lake.storage_options).version() == 2


# Two workers


def test_functions_run_on_both_executors_and_open_the_lake(lake, spark, tmp_path):
    """A Python function runs on both executors, with the client's Python, and opens the lake there."""
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw.csv"), Body=b"")
    root = lake.root
    meeting = str(tmp_path)

    def look(batches):
        import os
        import sys
        from pathlib import Path

        from lakehouse_utils.lake import Lake
        from lakehouse_utils.processes import wait_until

        row_count = sum(batch.num_rows for batch in batches)
        lake = Lake.open(root)
        keys = [item["Key"] for item in lake.objects(lake.key(""))]
        executor = Path.cwd().parent.name
        Path(meeting, executor).touch()
        # One executor cannot do all the work: it waits for the other.
        wait_until(lambda: len(list(Path(meeting).iterdir())) == 2, timeout_s=120)
        yield pa.RecordBatch.from_pylist(
            [{"executor": executor, "pid": os.getpid(), "rows": row_count, "keys": keys, "python": sys.executable}]
        )

    schema = "executor string, pid long, rows long, keys array<string>, python string"
    results = spark.range(0, 40, 1, 4).mapInArrow(look, schema).collect()
    assert {row.executor for row in results} == {"0", "1"}
    assert len({row.pid for row in results}) >= 2
    assert sum(row.rows for row in results) == 40
    assert all(row["keys"] == [lake.key("raw.csv")] for row in results)
    assert {Path(row.python).parent for row in results} == {Path(sys.executable).parent}


# Protection


def test_session_without_the_token_is_refused(cluster):
    """A session with no token or with a wrong one is refused."""
    from pyspark.errors import PySparkException

    for token in ("", "/;token=wrong"):
        with session(cluster.remote + token) as spark, pytest.raises(PySparkException, match=r"(?i)unauth|token"):
            spark.sql("SELECT 1").collect()


def test_cluster_listens_on_the_loopback_only_and_its_pages_are_closed(cluster, s3_state_dir):
    """All processes listen on 127.0.0.1 only, and no port shows a page without a secret."""
    running = running_processes(s3_state_dir)
    assert len(running) >= 4 + cluster.workers  # the daemons and the executors
    addresses = {address for process in running for address in processes.listening_addresses(process.pid)}
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    for port in {port for _, port in addresses}:
        for page in ("/", "/json/", "/logPage/?appId=app&executorId=0&logType=stdout", "/v1/submissions/status/x"):
            assert http_status(port, page) != 200, f"{port} {page}"


def test_secrets_are_in_private_files_only(lake, spark, cluster, s3_state_dir):
    """The secrets, the lake's keys and cached values are in no command line, log or output, and in no open file."""
    folder = s3_state_dir / "spark"
    hidden = {*json.loads((folder / "secrets.json").read_text()).values(), lake.credentials().secret_key}
    # What executors keep is written to disk when memory is short: also the lake's keys, which come with each table.
    cached = secrets.token_hex(32)
    spark.sql(f"SELECT '{cached}' AS value").persist(storagelevel.StorageLevel.DISK_ONLY).count()
    assert list((folder / "local").rglob("rdd_*"))
    hidden.add(cached)
    for process in running_processes(s3_state_dir):
        with suppress(psutil.NoSuchProcess):  # other tests' work goes on meanwhile, and its files come and go
            assert not any(secret in " ".join(process.cmdline()) for secret in hidden)
    for path in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):
            if "software" not in path.parts and any(secret in path.read_text("latin-1") for secret in hidden):
                assert path.stat().st_mode & 0o077 == 0, path
                assert path.name in ("secrets.json", "spark-defaults.conf"), path
    assert cluster.token not in repr(cluster) + cluster.remote
    shown = {row.value for row in spark.sql("SET").collect()}
    assert not hidden & shown


def test_token_is_added_to_the_address_of_this_cluster_only(cluster, s3_state_dir):
    """`with_token` adds the token to the cluster's own address, and returns any other address as it is."""
    address = with_token(cluster.remote, s3_state_dir)
    assert address == f"{cluster.remote}/;token={cluster.token}"
    assert with_token(cluster.remote.replace("localhost", "127.0.0.1"), s3_state_dir) == address
    port = urlsplit(cluster.remote).port
    for other in (f"sc://spark.example.org:{port}", "sc://localhost:15002", f"sc://localhost:{port + 1}/;use_ssl=true"):
        assert with_token(other, s3_state_dir) == other


def http_status(port: int, page: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", page)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def session(remote: str) -> Iterator:
    from pyspark.sql.connect.session import SparkSession

    spark = SparkSession.builder.remote(remote).create()
    try:
        yield spark
    finally:
        spark.stop()
