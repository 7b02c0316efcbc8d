"""The Spark cluster: real work on two workers, on the tables of delta-rs, closed to strangers, gone when stopped."""

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
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake
from support.s3_proxy import proxy_to

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.spark import cluster as spark_cluster
from lakehouse_utils.spark.__main__ import main

storagelevel = pytest.importorskip("pyspark.storagelevel", reason="the extra spark isn't installed: make test does")


def rows(lake: Lake, table: str) -> list[tuple]:
    found = DeltaTable(table, storage_options=lake.storage_options).to_pyarrow_table().to_pylist()
    return sorted(tuple(row.values()) for row in found)


# One table, two engines


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_spark_and_delta_rs_change_each_others_tables(lake, spark, scheme):
    table = lake.uri("orders")
    there = table.replace("s3:", f"{scheme}:")
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    written = pa.table({"id": pa.array([1, 2], pa.int64()), "city": ["Lisbon", "Porto"], "at": [at, at]})
    write_deltalake(table, written, storage_options=lake.storage_options)
    spark.sql(f"""
        MERGE INTO delta.`{there}` AS t
        USING (SELECT * FROM VALUES (2L, 'Braga', TIMESTAMP '2026-03-02 00:00:00') AS v(id, city, at)
               UNION ALL SELECT 3L, 'Faro', TIMESTAMP '2026-03-02 00:00:00') AS s
        ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *
    """)
    later = datetime(2026, 3, 2, tzinfo=UTC)
    assert rows(lake, table) == [(1, "Lisbon", at), (2, "Braga", later), (3, "Faro", later)]

    DeltaTable(table, storage_options=lake.storage_options).update(predicate="id = 1", new_values={"city": "Beja"})
    assert spark.sql(f"SELECT city FROM delta.`{there}` WHERE id = 1").collect()[0].city == "Beja"
    history = spark.sql(f"DESCRIBE HISTORY delta.`{there}`").collect()
    assert [commit.operation for commit in history] == ["UPDATE", "MERGE", "WRITE"]


def test_a_table_that_spark_makes_is_one_for_old_readers_too(lake, spark):
    table = lake.uri("made")
    spark.sql(f"CREATE TABLE delta.`{table}` (id BIGINT, at TIMESTAMP) USING delta")
    spark.sql(f"INSERT INTO delta.`{table}` VALUES (1, TIMESTAMP '2026-03-01 00:00:00')")
    protocol = DeltaTable(table, storage_options=lake.storage_options).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    lake.duckdb().sql(f"FROM delta_scan('{table}')").fetchall()
    assert rows(lake, table) == [(1, datetime(2026, 3, 1, tzinfo=UTC))]


def test_a_commit_between_sparks_look_and_its_own_is_not_overwritten(lake, spark):
    table = lake.uri("contested")
    first = pa.table({"who": ["delta-rs"]})

    def commit_first(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/contested/_delta_log/00000000000000000001.json") and not met:
            met.append(path)
            write_deltalake(table, first, mode="append", storage_options=lake.storage_options)

    met: list[str] = []
    spark.sql(f"CREATE TABLE delta.`{table}` (who STRING) USING delta")
    with proxy_to(lake.endpoint, commit_first) as endpoint:
        spark.conf.set("fs.s3a.impl.disable.cache", "true")
        spark.conf.set("fs.s3a.endpoint", endpoint)
        spark.sql(f"INSERT INTO delta.`{table.replace('s3:', 's3a:')}` VALUES ('Spark')")
    assert met
    assert rows(lake, table) == [("Spark",), ("delta-rs",)]
    assert DeltaTable(table, storage_options=lake.storage_options).version() == 2


# Two workers


def test_functions_run_on_both_executors_and_find_the_lake_there(lake, spark):
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw.csv"), Body=b"")
    root = lake.root

    def look(batches):
        import os
        import sys
        import time

        from lakehouse_utils.lake import Lake

        rows = sum(batch.num_rows for batch in batches)
        found = Lake.open(root)
        keys = [item["Key"] for item in found.objects(found.key(""))]
        time.sleep(1)  # so that one executor can't do it all
        executor = os.path.basename(os.path.dirname(os.getcwd()))
        yield pa.RecordBatch.from_pylist(
            [{"executor": executor, "pid": os.getpid(), "rows": rows, "keys": keys, "python": sys.executable}]
        )

    schema = "executor string, pid long, rows long, keys array<string>, python string"
    found = spark.range(0, 40, 1, 4).mapInArrow(look, schema).collect()
    assert {row.executor for row in found} == {"0", "1"} and len({row.pid for row in found}) >= 2
    assert sum(row.rows for row in found) == 40
    assert all(row["keys"] == [lake.key("raw.csv")] for row in found)
    assert {os.path.dirname(row.python) for row in found} == {os.path.dirname(sys.executable)}


# Closed to strangers


def test_only_the_token_opens_it(cluster):
    from pyspark.errors import PySparkException

    for token in ("", "/;token=wrong"):
        with session(cluster.remote + token) as spark, pytest.raises(PySparkException, match="(?i)unauth|token"):
            spark.sql("SELECT 1").collect()


def test_it_listens_on_the_loopback_only_and_its_pages_are_closed(cluster, s3_state_dir):
    everything = spark_cluster._running(s3_state_dir / "spark")
    assert len(everything) >= 4 + cluster.workers  # the daemons and the executors
    places = {place for process in everything for place in spark_cluster._heard(process.pid)}
    assert {host for host, _ in places} == {"127.0.0.1"}
    for port in {port for _, port in places}:
        for page in ("/", "/json/", "/logPage/?appId=app&executorId=0&logType=stdout", "/v1/submissions/status/x"):
            assert http_status(port, page) != 200, f"{port} {page}"


def test_secrets_are_in_private_files_only(lake, spark, cluster, s3_state_dir):
    home = s3_state_dir / "spark"
    known = {*json.loads((home / "secrets.json").read_text()).values(), lake.credentials().secret_key}
    # What executors hold goes to the disk when memory is short: the lake's keys, too, which they get with each table.
    held = secrets.token_hex(32)
    spark.sql(f"SELECT '{held}' AS value").persist(storagelevel.StorageLevel.DISK_ONLY).count()
    assert list((home / "local").rglob("rdd_*"))
    known.add(held)
    for process in spark_cluster._running(home):
        with suppress(psutil.NoSuchProcess):  # other tests' work goes on meanwhile, and its files come and go
            assert not any(secret in " ".join(process.cmdline()) for secret in known)
    for path in (Path(folder, name) for folder, _, names in os.walk(home) for name in names):
        with suppress(FileNotFoundError):
            if "software" not in path.parts and any(secret in path.read_text("latin-1") for secret in known):
                assert path.stat().st_mode & 0o077 == 0 and path.name in ("secrets.json", "spark-defaults.conf"), path
    assert cluster.token not in repr(cluster) + cluster.remote
    shown = {row.value for row in spark.sql("SET").collect()}
    assert not known & shown


def test_only_the_address_of_this_cluster_gets_the_token(cluster, s3_state_dir):
    with_token = spark_cluster.authorized(cluster.remote, s3_state_dir)
    assert with_token == f"{cluster.remote}/;token={cluster.token}"
    assert spark_cluster.authorized(cluster.remote.replace("localhost", "127.0.0.1"), s3_state_dir) == with_token
    port = urlsplit(cluster.remote).port
    for other in (f"sc://spark.example.org:{port}", "sc://localhost:15002", f"sc://localhost:{port + 1}/;use_ssl=true"):
        assert spark_cluster.authorized(other, s3_state_dir) == other


# Its life


def test_it_starts_once_and_leaves_nothing_behind(s3_server, prefix, spark_software, tmp_path, monkeypatch):
    state, home = tmp_path / "state", tmp_path / "state" / "spark"
    home.mkdir(parents=True)
    (home / "software").symlink_to(spark_software)
    # A lake elsewhere, as it were: an address, and keys in the environment.
    for name, value in {
        "LAKEHOUSE_STATE_DIR": state,
        "LAKEHOUSE_URI": prefix,
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }.items():
        monkeypatch.setenv(name, str(value))

    def say(word: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [word])
        return result.exit_code, result.stdout

    assert say("status") == (1, "The Spark cluster is not running.\n")
    assert say("stop") == (0, "The Spark cluster was not running.\n")
    try:
        code, output = say("start")
        cluster = spark_cluster.status(state)
        assert code == 0 and output.startswith(f"Apache Spark {spark_cluster.SPARK} runs: {cluster.remote}, a master")
        assert f"--spark-remote {cluster.remote}\n" in output and cluster.token not in output
        assert say("start")[1].startswith(f"Apache Spark {spark_cluster.SPARK} is already running: {cluster.remote}")
        assert say("status")[0] == 0 and spark_cluster.status(state) == cluster
        with session(spark_cluster.authorized(cluster.remote, state)) as spark:
            spark.sql(f"CREATE TABLE delta.`{prefix}/elsewhere` USING delta AS SELECT 7L AS id")
        assert rows(Lake.open(), f"{prefix}/elsewhere") == [(7,)]
        running = spark_cluster._running(home)
        psutil.Process(cluster.pids[0]).kill()  # the master; what is left is no cluster, and yet ends
        psutil.wait_procs([psutil.Process(cluster.pids[0])], timeout=10)
        assert spark_cluster.status(state) is None
    finally:
        assert say("stop") == (0, "The Spark cluster has stopped.\n")
    assert spark_cluster._running(home) == []
    _, alive = psutil.wait_procs(running, timeout=5)
    assert not alive
    assert not (home / "cluster.json").exists()


def test_what_lacks_is_named_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(LakehouseError, match="needs Java 17 or newer, and there is no working java: install one"):
        spark_cluster._software(tmp_path, print)
    say_version(tools / "java", "11.0.2")
    with pytest.raises(LakehouseError, match="and java is Java 11: install one"):
        spark_cluster._software(tmp_path, print)
    say_version(tools / "java", "21")
    with pytest.raises(LakehouseError, match=r"needs Maven \(mvn\) .* install it"):
        spark_cluster._software(tmp_path, print)


def test_a_download_that_fails_is_told_and_leaves_no_half(tmp_path, monkeypatch):
    say_version(tmp_path / "java", "17.0.1")
    (tmp_path / "mvn").write_text("#!/bin/sh\necho '[ERROR] No route to host'\nexit 1\n")
    (tmp_path / "mvn").chmod(0o700)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    software = tmp_path / "software"
    (software / f"spark-{spark_cluster.SPARK}").mkdir(parents=True)
    heard: list[str] = []
    with pytest.raises(LakehouseError, match="Maven could not fetch the jars(?s:.*)No route to host"):
        spark_cluster._software(software, heard.append)
    assert len(heard) == 1 and "Maven" in heard[0]
    assert {path.name for path in software.iterdir()} == {"lock", f"spark-{spark_cluster.SPARK}"}


def say_version(java: Path, version: str) -> None:
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o700)


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
