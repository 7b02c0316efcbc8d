"""The configuration of the Spark cluster: its secrets, Spark's options, and the environment of its processes."""

import base64
import os
import secrets
import sys
from pathlib import Path

from lakehouse_utils.lake import Lake
from lakehouse_utils.processes import HOST, Ports, StateFolder
from lakehouse_utils.spark.software import Software

WORKERS = 2
WORKER_MEMORY = "1g"
LOGGING_PATH = Path(__file__).with_name("log4j2.properties")

_SMALL_HEAP = "-XX:+UseSerialGC"
_FAST_START = "-XX:TieredStopAtLevel=1"  # for code that runs only once, optimization costs more than it saves


def cluster_secrets(folder: StateFolder) -> dict[str, str]:
    """The secrets of the cluster in `folder`, created on first use.

    `cluster` authenticates the processes to each other, `token` sessions, and `pages` requests to the web pages.
    """
    values: dict[str, str] = folder.read_json("secrets.json")
    if not values:
        values = {"cluster": secrets.token_hex(32), "token": secrets.token_hex(32)}
        values["pages"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        folder.write_json("secrets.json", values)
    return values


def spark_options(folder: StateFolder, software: Software, lake: Lake, *, is_embedded: bool) -> dict[str, str]:
    """Spark's options except its ports. They contain secrets, so write them to a private file, not to a command line.

    With `is_embedded` they include the keys of the lake; otherwise Spark uses the AWS credential chain.
    """
    keys = cluster_secrets(folder)
    options = {
        # A secret is required from other processes, from sessions, and for the pages of the master and the workers.
        "spark.authenticate": "true",
        "spark.authenticate.secret": keys["cluster"],
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",  # blocks that are written to disk hold the lake's keys, too
        "spark.connect.authenticate.token": keys["token"],
        "spark.ui.filters": "org.apache.spark.ui.JWSFilter",
        "spark.org.apache.spark.ui.JWSFilter.param.secretKey": keys["pages"],
        "spark.ui.enabled": "false",  # it shows queries with their values
        "spark.master.rest.enabled": "false",
        "spark.port.maxRetries": "0",  # otherwise Spark silently takes the next port
        # Two executors, one on each worker, both running before the first job.
        "spark.executor.cores": "1",
        "spark.executor.memory": WORKER_MEMORY,
        "spark.cores.max": str(WORKERS),
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"{_SMALL_HEAP} {_FAST_START}",  # it plans queries and computes little
        "spark.executor.extraJavaOptions": _SMALL_HEAP,
        "spark.driver.extraClassPath": f"{software.jars_path}/*",
        "spark.executor.extraClassPath": f"{software.jars_path}/*",
        "spark.worker.cleanup.enabled": "true",
        "spark.sql.warehouse.dir": str(folder.path / "warehouse"),
        # The data is small: more partitions would cost more than they save.
        "spark.sql.shuffle.partitions": "4",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # Spark's default is INT96
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        **{f"spark.delta.logStore.{scheme}.impl": "lakehouse.ConditionalLogStore" for scheme in ("s3", "s3a")},
    }
    s3 = _s3_options(folder, lake, is_embedded=is_embedded)
    return options | {f"spark.hadoop.{name}": value for name, value in s3.items()}


def _s3_options(folder: StateFolder, lake: Lake, *, is_embedded: bool) -> dict[str, str]:
    options = {
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        "fs.s3a.create.conditional.enabled": "true",  # ConditionalLogStore needs it
        "fs.s3a.buffer.dir": str(folder.path / "local"),
        # The default reads ahead with the SDK's other client, which is built for an older Netty than Spark's.
        "fs.s3a.input.stream.type": "classic",
        "fs.s3a.endpoint.region": lake.region,
    }
    if lake.server_name != "AWS S3":
        options |= {
            "fs.s3a.endpoint": lake.endpoint,
            "fs.s3a.path.style.access": "true",
            "fs.s3a.connection.ssl.enabled": str(lake.endpoint.startswith("https:")).lower(),
        }
    if is_embedded:
        keys = lake.credentials()
        options |= {
            "fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
            "fs.s3a.access.key": keys.access_key,
            "fs.s3a.secret.key": keys.secret_key,
        }
    else:  # the whole AWS chain; S3A's own chain does not support profiles
        provider = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        options["fs.s3a.aws.credentials.provider"] = provider
    return options


def address_options(ports: Ports) -> dict[str, str]:
    """The options that make the driver and the Connect server listen on the loopback."""
    return {
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.connect.grpc.binding.address": HOST,
        "spark.connect.grpc.binding.port": str(ports["connect"]),
    }


def environment(folder: StateFolder, software: Software, state_dir: Path) -> dict[str, str]:
    """The environment of the cluster's processes.

    It is the caller's, including the lake's settings and credentials, because the workers run functions in it.
    """
    removed = ("SPARK_", "PYSPARK_", "PYTHON", "HADOOP_", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    return inherited | {
        "LAKEHOUSE_STATE_DIR": str(state_dir),
        "PYSPARK_PYTHON": sys.executable,  # the client's Python and packages
        "SPARK_HOME": str(software.spark_path),
        "SPARK_CONF_DIR": str(folder.path / "conf"),
        "SPARK_LOCAL_IP": HOST,
        "SPARK_LOCAL_DIRS": str(folder.path / "local"),
        "SPARK_WORKER_DIR": str(folder.path / "work"),
        "SPARK_DAEMON_MEMORY": "512m",
        "SPARK_DAEMON_JAVA_OPTS": f"{_SMALL_HEAP} {_FAST_START}",
    }
