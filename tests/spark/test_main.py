"""The Spark cluster on the command line, from the first start to the last process."""

import psutil
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from lakehouse_utils.lake import Lake
from lakehouse_utils.spark import cluster as spark_cluster
from lakehouse_utils.spark import software
from lakehouse_utils.spark.__main__ import main


@pytest.fixture
def run():
    """Runs a command and returns its exit code and output."""

    def run_command(command: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [command])
        return result.exit_code, result.stdout

    return run_command


def test_commands_without_a_cluster(run, tmp_path, monkeypatch):
    """`status` and `stop` report that nothing runs; only `status` fails."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    assert run("status") == (1, "The Spark cluster is not running.\n")
    assert run("stop") == (0, "The Spark cluster was not running.\n")


@pytest.mark.slow
def test_cluster_starts_once_and_leaves_nothing_behind(run, s3_server, prefix, spark_software, tmp_path, monkeypatch):
    """A cluster for a lake at an address starts, works, is found again, and stops even after its master was killed."""
    pytest.importorskip("pyspark", reason="the extra spark is not installed: make test does it")
    from pyspark.sql.connect.session import SparkSession

    state_dir = tmp_path / "state"
    folder = state_dir / "spark"
    folder.mkdir(parents=True)
    (folder / "software").symlink_to(spark_software)
    # As for a lake elsewhere: an address, and keys in the environment.
    for name, value in {
        "LAKEHOUSE_STATE_DIR": state_dir,
        "LAKEHOUSE_URI": prefix,
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }.items():
        monkeypatch.setenv(name, str(value))

    try:
        code, output = run("start")
        cluster = spark_cluster.status(state_dir)
        apache_spark = f"Apache Spark {software.SPARK_VERSION}"
        assert code == 0
        assert output.startswith(f"{apache_spark} has started: {cluster.remote}, a master and 2 workers")
        assert f"--spark-remote {cluster.remote}\n" in output
        assert cluster.token not in output
        assert run("start")[1].startswith(f"{apache_spark} is already running: {cluster.remote}")
        assert run("status")[0] == 0
        assert spark_cluster.status(state_dir) == cluster
        spark = SparkSession.builder.remote(spark_cluster.with_token(cluster.remote, state_dir)).create()
        spark.sql(f"CREATE TABLE delta.`{prefix}/elsewhere` USING delta AS SELECT 7L AS id")
        spark.stop()
        table = DeltaTable(f"{prefix}/elsewhere", storage_options=Lake.open().storage_options)
        assert table.to_pyarrow_table()["id"].to_pylist() == [7]
        running = spark_cluster.running_processes(state_dir)
        master = psutil.Process(cluster.pids[0])
        master.kill()  # the other processes are no cluster any more, but are stopped all the same
        psutil.wait_procs([master], timeout=10)
        assert spark_cluster.status(state_dir) is None
    finally:
        assert run("stop") == (0, "The Spark cluster has stopped.\n")
    assert spark_cluster.running_processes(state_dir) == []
    _, alive = psutil.wait_procs(running, timeout=5)
    assert not alive
    assert not (folder / "cluster.json").exists()
