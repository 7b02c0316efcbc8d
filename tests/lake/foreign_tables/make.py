"""Make the tables in this folder: small ones that Apache Spark writes with its own features of Delta.

They were made with Apache Spark 4.2.0 and Delta 4.4.0 on Java 17. To make them again, in a separate environment:

    pip install delta-spark==4.4.0
    mvn dependency:copy-dependencies -DincludeGroupIds=io.delta -DoutputDirectory=jars
    python make.py jars [a table's name ...]

(`mvn` in a folder with a pom.xml that depends on io.delta:delta-spark_4.2_2.13:4.4.0.)

`expected.json` has the rows that Spark itself reads from each table. Every other reader is compared with them.
"""

# ruff: noqa: E501 - one line per statement is easier to read here

import json
import shutil
import struct
import sys
from base64 import b85encode
from pathlib import Path

HERE = Path(__file__).parent

MAPPED = "'delta.columnMapping.mode' = 'name'"
VECTORS = "'delta.enableDeletionVectors' = true"
ROWS = "(1, 'a', 10), (2, 'b', 20), (3, 'c', 30), (4, 'd', 40)"
MORE = "(5, 'e', 50), (6, 'f', 60), (7, 'g', 70), (8, 'h', 80)"


def create(columns: str = "id INT, name STRING, amount INT", by: str = "", **properties: object) -> str:
    settings = ", ".join(f"'delta.{name.replace('_', '.')}' = '{value}'" for name, value in properties.items())
    return f"CREATE TABLE {{t}} ({columns}) USING delta {by}" + (f" TBLPROPERTIES ({settings})" if settings else "")


def inserts(*batches: str) -> list[str]:
    return [f"INSERT INTO {{t}} VALUES {batch}" for batch in batches]


def create_mapped(
    columns: str = "id INT, name STRING, amount INT", by: str = "", mode: str = "name", **more: object
) -> str:
    return create(columns, by, columnMapping_mode=mode, **more)


def create_with_vectors(columns: str = "id INT, name STRING, amount INT", by: str = "", **more: object) -> str:
    return create(columns, by, enableDeletionVectors="true", **more)


UPGRADE = f"ALTER TABLE {{t}} SET TBLPROPERTIES ({MAPPED})"
MERGE = """MERGE INTO {t} AS t USING (SELECT * FROM VALUES (2, 'B', 21), (9, 'i', 90) AS v (id, name, amount)) AS s ON t.id = s.id
    WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"""
BY_PARTITION = "name STRING, id INT, region STRING, amount INT"
IN_REGIONS = (
    "('a', 1, 'north', 10), ('b', 2, 'south', 20), ('e', 5, 'north', 50)", "('c', 3, 'north', 30), ('d', 4, NULL, 40)",
)  # fmt: skip

TABLES: dict[str, list[str]] = {
    "plain": [create(), *inserts(ROWS, MORE)],
    "partition_values": [
        create("id INT, p STRING, d DATE, amount INT", "PARTITIONED BY (p, d)"),
        *inserts("(1, 'a/b c', DATE '2026-01-01', 10), (2, 'ö%20=', DATE '2026-01-02', 20), (3, NULL, NULL, 30)"),
    ],
    # deletion vectors
    "vectors_none_yet": [create_with_vectors(), *inserts(ROWS)],
    "vectors_delete": [create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id IN (2, 3)"],
    "vectors_delete_twice": [create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id = 2", "DELETE FROM {t} WHERE id = 4"],
    "vectors_update": [create_with_vectors(), *inserts(ROWS, MORE), "UPDATE {t} SET amount = 21 WHERE id IN (2, 5)"],
    "vectors_merge": [create_with_vectors(), *inserts(ROWS, MORE), MERGE],
    "vectors_whole_file": [create_with_vectors(), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id <= 4 OR id = 8"],
    "vectors_whole_file_in_steps": [
        create_with_vectors(), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id <= 3", "DELETE FROM {t} WHERE name = 'd'",
    ],
    "vectors_partition": [
        create_with_vectors(BY_PARTITION, "PARTITIONED BY (region)"), *inserts(*IN_REGIONS), "DELETE FROM {t} WHERE id IN (1, 4)",
    ],
    "vectors_checkpoint": [
        create_with_vectors(checkpointInterval=4), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id = 2", *inserts("(9, 'i', 90)"),
    ],
    "vectors_purged": [
        create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id = 2",
        "ALTER TABLE {t} SET TBLPROPERTIES ('delta.enableDeletionVectors' = false)", "REORG TABLE {t} APPLY (PURGE)",
    ],
    "vectors_restored": [create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id = 2", "RESTORE TABLE {t} TO VERSION AS OF 1"],
    "vectors_inline": [create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id IN (2, 3)"],  # see `move_vector_into_log`
    "vectors_change_feed": [
        create_with_vectors(enableChangeDataFeed="true"), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id = 2",
        "UPDATE {t} SET amount = 31 WHERE id = 3",
    ],
    # column mapping
    "mapped_name": [create_mapped(), *inserts(ROWS)],
    "mapped_id": [create_mapped(mode="id"), *inserts(ROWS)],
    "mapped_upgraded": [create(), *inserts(ROWS), UPGRADE],
    "mapped_renamed": [create(), *inserts(ROWS), UPGRADE, "ALTER TABLE {t} RENAME COLUMN amount TO price", *inserts(MORE)],
    "mapped_swapped": [
        create("id INT, first STRING, last STRING"), *inserts("(1, 'Ada', 'Lovelace')"), UPGRADE,
        *[f"ALTER TABLE {{t}} RENAME COLUMN {pair}" for pair in ("first TO x", "last TO first", "x TO last")],
    ],
    "mapped_dropped": [create(), *inserts(ROWS), UPGRADE, "ALTER TABLE {t} DROP COLUMN name"],
    "mapped_dropped_and_added": [
        create(), *inserts(ROWS), UPGRADE, "ALTER TABLE {t} DROP COLUMN amount", "ALTER TABLE {t} ADD COLUMN amount INT",
        *inserts("(5, 'e', 50)"),
    ],
    "mapped_partition_first": [
        create_mapped("region STRING, id INT, name STRING", "PARTITIONED BY (region)"),
        *inserts("('north', 1, 'a'), ('south', 2, 'b')", "('north', 3, 'c'), (NULL, 4, 'd')"),
    ],
    "mapped_partition_middle": [create_mapped(BY_PARTITION, "PARTITIONED BY (region)"), *inserts(*IN_REGIONS)],
    "mapped_partition_last": [
        create_mapped("id INT, name STRING, region STRING", "PARTITIONED BY (region)"),
        *inserts("(1, 'a', 'north'), (2, 'b', 'south')", "(3, 'c', 'north')"),
    ],
    "mapped_partition_id": [create_mapped(BY_PARTITION, "PARTITIONED BY (region)", mode="id"), *inserts(*IN_REGIONS)],
    "mapped_partition_renamed": [
        create(BY_PARTITION, "PARTITIONED BY (region)"), *inserts(*IN_REGIONS), UPGRADE,
        "ALTER TABLE {t} RENAME COLUMN region TO area", *inserts("('e', 5, 'west', 50)"),
    ],
    "mapped_partition_upgraded": [create(BY_PARTITION, "PARTITIONED BY (region)"), *inserts(*IN_REGIONS), UPGRADE],
    "mapped_partitions": [
        create_mapped("id INT, day DATE, name STRING, region STRING", "PARTITIONED BY (region, day)"),
        *inserts("(1, DATE '2026-01-01', 'a', 'north'), (2, DATE '2026-01-02', 'b', 'south')"),
    ],
    "mapped_partitions_in_front": [
        create_mapped("p STRING, q STRING, id INT", "PARTITIONED BY (p, q)"), *inserts("('p', 'q', 1), (NULL, 'q', 2)"),
    ],
    "mapped_partitions_in_another_order": [
        create_mapped("p STRING, q STRING, id INT", "PARTITIONED BY (q, p)"), *inserts("('p', 'q', 1), (NULL, 'q', 2)"),
    ],
    "mapped_partition_moved": [
        create_mapped("region STRING, id INT, name STRING", "PARTITIONED BY (region)"), *inserts("('north', 1, 'a'), ('south', 2, 'b')"),
        "ALTER TABLE {t} ADD COLUMN note STRING FIRST", *inserts("('new', 'north', 3, 'c')"),
    ],
    "mapped_partition_upgraded_and_swapped": [
        create("id INT, a STRING, b STRING", "PARTITIONED BY (b)"), *inserts("(1, 'A', 'B')"), UPGRADE,
        *[f"ALTER TABLE {{t}} RENAME COLUMN {pair}" for pair in ("a TO x", "b TO a", "x TO b")],
    ],
    "mapped_special_names": [
        create_mapped("`the id` INT, `größe, in cm` INT, `a.b` STRING, `{x}=(y)` STRING".replace("{", "{{").replace("}", "}}")),
        *inserts("(1, 180, 'p', 'q'), (2, 170, 'r', 's')"),
    ],
    "mapped_nested": [
        create_mapped("id INT, person STRUCT<name: STRING, age: INT>, tags ARRAY<STRUCT<k: STRING>>, m MAP<STRING, INT>"),
        *inserts("(1, struct('Ada', 36), array(struct('x')), map('a', 1))"),
        "ALTER TABLE {t} RENAME COLUMN person.age TO years",
        *inserts("(2, struct('Bob', 40), array(struct('y'), struct('z')), map('b', 2))"),
    ],
    "mapped_partition_taken_off": [
        create_mapped(BY_PARTITION, "PARTITIONED BY (region)"), *inserts(*IN_REGIONS),
        "ALTER TABLE {t} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'none')",
    ],
    "vectors_taken_off": [  # which also adds the feature `checkpointProtection`
        create_with_vectors(), *inserts(ROWS), "DELETE FROM {t} WHERE id = 2",
        "ALTER TABLE {t} SET TBLPROPERTIES ('delta.enableDeletionVectors' = false)",
        "ALTER TABLE {t} DROP FEATURE deletionVectors",
    ],
    "mapped_vectors_partition": [
        create_mapped(BY_PARTITION, "PARTITIONED BY (region)", enableDeletionVectors="true"), *inserts(*IN_REGIONS),
        "DELETE FROM {t} WHERE id IN (1, 4)",
    ],
    "mapped_vectors": [create_mapped(enableDeletionVectors="true"), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id IN (1, 6)"],
    # the log
    "clustered": [create(by="CLUSTER BY (id)"), *inserts(ROWS, MORE)],
    "clustered_optimized": [create(by="CLUSTER BY (id, name)"), *inserts(ROWS, MORE), "OPTIMIZE {t}"],
    "checkpoint_v1": [create(checkpointInterval=2), *inserts(ROWS, MORE, "(9, 'i', 90)")],
    "checkpoint_v2": [create(checkpointPolicy="v2", checkpointInterval=2), *inserts(ROWS, MORE, "(9, 'i', 90)")],
    "checkpoint_v2_vectors": [
        create_with_vectors(checkpointPolicy="v2", checkpointInterval=2), *inserts(ROWS, MORE), "DELETE FROM {t} WHERE id = 2",
        "DELETE FROM {t} WHERE id = 5",
    ],
    "checkpoint_v2_mapped": [
        create_mapped(BY_PARTITION, "PARTITIONED BY (region)", checkpointPolicy="v2", checkpointInterval=2), *inserts(*IN_REGIONS),
    ],
    "in_commit_timestamps": [create(enableInCommitTimestamps="true"), *inserts(ROWS)],
    "vacuum_protocol_check": [create(feature_vacuumProtocolCheck="supported"), *inserts(ROWS)],
    # types
    "widened": [
        create("id INT, b TINYINT, i INT, f FLOAT, d DECIMAL(5, 2)", enableTypeWidening="true"),
        *inserts("(1, 1, 1, 1.5, 1.25)"),
        "ALTER TABLE {t} ALTER COLUMN b TYPE INT", "ALTER TABLE {t} ALTER COLUMN i TYPE BIGINT",
        "ALTER TABLE {t} ALTER COLUMN f TYPE DOUBLE", "ALTER TABLE {t} ALTER COLUMN d TYPE DECIMAL(12, 2)",
        *inserts("(2, 1000, 5000000000, 2.5, 1234567.25)"),
    ],
    "widened_to_double": [
        create("id INT, x INT", enableTypeWidening="true"), *inserts("(1, 7)"),
        "ALTER TABLE {t} ALTER COLUMN x TYPE DOUBLE", *inserts("(2, 7.5)"),
    ],
    "widened_to_decimal": [
        create("id INT, x INT, y DECIMAL(5, 2)", enableTypeWidening="true"), *inserts("(1, 7, 1.25)"),
        "ALTER TABLE {t} ALTER COLUMN x TYPE DECIMAL(12, 2)", "ALTER TABLE {t} ALTER COLUMN y TYPE DECIMAL(12, 4)",
        *inserts("(2, 7.5, 1.0625)"),
    ],
    "widened_to_timestamp": [
        create("id INT, x DATE", enableTypeWidening="true", feature_timestampNtz="supported"), *inserts("(1, DATE '2026-01-01')"),
        "ALTER TABLE {t} ALTER COLUMN x TYPE TIMESTAMP_NTZ", *inserts("(2, TIMESTAMP_NTZ '2026-01-02 03:04:05')"),
    ],
    "widened_partition": [
        create("id INT, x INT", "PARTITIONED BY (x)", enableTypeWidening="true"), *inserts("(1, 7)"),
        "ALTER TABLE {t} ALTER COLUMN x TYPE BIGINT", *inserts("(2, 5000000000)"),
    ],
    "timestamp_ntz": [create("id INT, at TIMESTAMP_NTZ"), *inserts("(1, TIMESTAMP_NTZ '2026-01-01 00:00:00'), (2, NULL)")],
    "timestamp": [create("id INT, at TIMESTAMP"), *inserts("(1, TIMESTAMP '2026-01-01 00:00:00Z'), (2, NULL)")],
    "variant": [create("id INT, v VARIANT"), """INSERT INTO {t} SELECT id, parse_json(v) FROM VALUES
        (1, '{{"a": 1}}'), (2, '[1, "x"]'), (3, NULL) AS s (id, v)"""],
    "variant_shredded": [
        create("id INT, v VARIANT", enableVariantShredding="true"), """INSERT INTO {t} SELECT id, parse_json(v) FROM VALUES
        (1, '{{"a": 1}}'), (2, '{{"a": 2}}'), (3, NULL) AS s (id, v)""",
    ],
    "char_varchar": [create("id INT, c CHAR(5), v VARCHAR(5)"), *inserts("(1, 'ab', 'ab')")],
    # rows
    "row_tracking": [create(enableRowTracking="true"), *inserts(ROWS, MORE), "UPDATE {t} SET amount = 11 WHERE id = 1", "OPTIMIZE {t}"],
    "generated": [
        create("id INT, amount INT, twice INT GENERATED ALWAYS AS (amount * 2)"),
        "INSERT INTO {t} (id, amount) VALUES (1, 10), (2, 20)",
    ],
    "identity": [
        create("id BIGINT GENERATED ALWAYS AS IDENTITY, name STRING"), "INSERT INTO {t} (name) VALUES ('a'), ('b')",
    ],
    "defaults": [
        create("id INT, name STRING DEFAULT 'nobody'", feature_allowColumnDefaults="supported"),
        "INSERT INTO {t} (id) VALUES (1)", *inserts("(2, 'b')"),
    ],
    "not_null_and_check": [
        create("id INT NOT NULL, amount INT"), "ALTER TABLE {t} ADD CONSTRAINT positive CHECK (amount > 0)", *inserts("(1, 10)"),
    ],
    "append_only": [create(appendOnly="true"), *inserts(ROWS)],
    "change_feed": [
        create(enableChangeDataFeed="true"), *inserts(ROWS), "UPDATE {t} SET amount = 21 WHERE id = 2", "DELETE FROM {t} WHERE id = 3",
    ],
    "iceberg_compat": [create_mapped(enableIcebergCompatV2="true"), *inserts(ROWS, MORE)],
    "materialized_partitions": [
        create(BY_PARTITION, "PARTITIONED BY (region)", feature_materializePartitionColumns="supported",
             enableMaterializePartitionColumnsFeature="true"), *inserts(*IN_REGIONS),
    ],
}  # fmt: skip


def main(jars: str, *names: str) -> None:
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.extraClassPath", f"{jars}/*")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.databricks.delta.snapshotPartitions", "1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.databricks.delta.properties.defaults.enableDeletionVectors", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    expected_path = HERE / "expected.json"
    expected = json.loads(expected_path.read_text()) if expected_path.exists() else {}
    for name in names or TABLES:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        for statement in TABLES[name]:
            spark.sql(statement.format(t=f"delta.`{folder}`")).collect()
        table = spark.read.format("delta").load(str(folder))
        columns = [f"CAST(`{c}` AS STRING) AS `{c}`" if kind == "variant" else f"`{c}`" for c, kind in table.dtypes]
        rows = [row.asDict(recursive=True) for row in table.selectExpr(*columns).collect()]
        expected[name] = sorted(rows, key=str)
        for unneeded in [*folder.rglob("*.crc"), *folder.rglob("_SUCCESS")]:
            unneeded.unlink()
        if name == "vectors_inline":
            move_vector_into_log(folder)
        print(name, expected[name])
    spark.stop()
    text = json.dumps(
        {name: expected[name] for name in TABLES if name in expected}, indent=1, ensure_ascii=False, default=str
    )
    expected_path.write_text(text + "\n")


def move_vector_into_log(folder: Path) -> None:
    """Move a deletion vector into the log itself, which the protocol allows and Spark does not do by itself."""
    commit = max((folder / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in commit.read_text().splitlines()]
    vector = next(line["add"]["deletionVector"] for line in lines if "add" in line)
    (file,) = folder.glob("deletion_vector_*.bin")
    data = file.read_bytes()
    (size,) = struct.unpack_from(">i", data, vector["offset"])
    bitmap = data[vector["offset"] + 4 : vector["offset"] + 4 + size]
    for line in lines:
        if "add" in line:
            line["add"]["deletionVector"] = {
                "storageType": "i", "pathOrInlineDv": z85(bitmap), "sizeInBytes": size, "cardinality": vector["cardinality"],
            }  # fmt: skip
    commit.write_text("\n".join(map(json.dumps, lines)) + "\n")
    file.unlink()


def z85(data: bytes) -> str:
    """Encode as ZeroMQ's base 85 (https://rfc.zeromq.org/spec/32/), which is Python's with another alphabet."""
    python = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    zeromq = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    padded = data + bytes(-len(data) % 4)
    return b85encode(padded).decode().translate(str.maketrans(python, zeromq))


if __name__ == "__main__":
    main(*sys.argv[1:])
