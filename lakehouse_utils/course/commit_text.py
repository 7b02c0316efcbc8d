"""Commits of a Delta log in words, as the views show them."""

import json
from typing import Any, cast

from lakehouse_utils.lake.delta_log import Action, Commit

_METRICS_OF = {  # what was done to rows -> its names in operationMetrics, as delta-rs and Spark write them
    "inserted": ("num_target_rows_inserted", "numTargetRowsInserted"),
    "updated": ("num_target_rows_updated", "num_updated_rows", "numTargetRowsUpdated", "numUpdatedRows"),
    "deleted": ("num_target_rows_deleted", "num_deleted_rows", "numTargetRowsDeleted", "numDeletedRows"),
    "copied": ("num_target_rows_copied", "num_copied_rows", "numTargetRowsCopied", "numCopiedRows"),
}


def summarize(commit: Commit) -> str:
    """What a commit did, in one line: "+1 −1 files; rows: 2 inserted, 1 updated, 989 copied"."""
    parts = [_files(commit), _rows(commit), _change_data(commit), _schema(commit), _vacuumed(commit)]
    return "; ".join(part for part in parts if part)


def describe(action: Action, part_numbers: dict[str, int]) -> str:
    """The details of one action.

    `part_numbers` are the numbers that data files have been given so far, by path; a file without one gets the next.
    """
    match action:
        case Action("commitInfo", info):
            return f"{info.get('operation', '')} by {info.get('engineInfo', 'an engine that does not give its name')}"
        case Action("protocol", protocol):
            features = [*protocol.get("readerFeatures", []), *protocol.get("writerFeatures", [])]
            versions = f"reader {protocol['minReaderVersion']}, writer {protocol['minWriterVersion']}"
            return ", ".join([versions, *dict.fromkeys(features)])
        case Action("metaData", metadata):
            return _describe_metadata(metadata)
        case Action("add" | "remove" | "cdc", file):
            number = part_numbers.setdefault(file["path"], len(part_numbers) + 1)
            return f"part {number}: {_describe_file(file)}"
        case Action("txn", transaction):
            return f"{transaction['appId']} is at {transaction['version']}"
    return json.dumps(action.fields, ensure_ascii=False)


def kilobytes(size_bytes: int) -> int:
    """Whole kB (1,000 bytes), at least 1: the last bytes of a file differ from run to run."""
    return max(1, round(size_bytes / 1000))


def _files(commit: Commit) -> str:
    added, removed = len(commit.of_kind("add")), len(commit.of_kind("remove"))
    signed = [f"+{added}"] * bool(added) + [f"−{removed}"] * bool(removed)
    return f"{' '.join(signed)} file{'s' * (added + removed > 1)}" if signed else ""


def _rows(commit: Commit) -> str:
    metrics = commit.info.get("operationMetrics") or {}
    counts = {
        done: int(next((metrics[name] for name in names if name in metrics), 0) or 0)
        for done, names in _METRICS_OF.items()
    }
    if any(counts.values()):
        return f"rows: {', '.join(f'{count:,} {done}' for done, count in counts.items() if count)}"
    if commit.of_kind("add") and commit.operation != "OPTIMIZE":
        written = sum(_statistics(add).get("numRecords", 0) for add in commit.of_kind("add"))
        return f"rows: {written:,} written"
    return ""


def _change_data(commit: Commit) -> str:
    files = len(commit.of_kind("cdc"))
    return f"change data: {_counted(files, 'file')}" if files else ""


def _schema(commit: Commit) -> str:
    for metadata in commit.of_kind("metaData"):
        return f"schema of {_counted(len(_schema_fields(metadata)), 'column')}"
    return ""


def _vacuumed(commit: Commit) -> str:
    if not commit.operation.startswith("VACUUM"):
        return ""
    metrics = commit.info.get("operationMetrics") or {}
    count = metrics.get("numDeletedFiles", metrics.get("numFilesToDelete"))
    return "" if count is None else _counted(int(count), "unused object")


def _describe_metadata(metadata: dict[str, Any]) -> str:
    columns = ", ".join(f"{field['name']} {_type_name(field)}" for field in _schema_fields(metadata))
    partitions = metadata.get("partitionColumns")
    settings = ", ".join(f"{name} = {value}" for name, value in sorted(metadata.get("configuration", {}).items()))
    partitioned = f"partitioned by {', '.join(partitions)}" if partitions else ""
    return "; ".join(part for part in (columns, partitioned, settings) if part)


def _describe_file(file: dict[str, Any]) -> str:
    details = [f"{name}={value}" for name, value in (file.get("partitionValues") or {}).items()]
    if (rows := _statistics(file).get("numRecords")) is not None:
        details.append(f"{rows:,} rows")
    if vector := file.get("deletionVector"):
        details.append(f"{vector['cardinality']:,} of them deleted")
    if "size" in file:
        details.append(f"{kilobytes(file['size']):,} kB")
    if not file.get("dataChange", True):
        details.append("no data changed")
    return ", ".join(details)


def _statistics(file: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(file.get("stats") or "{}"))


def _schema_fields(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", json.loads(metadata["schemaString"])["fields"])


def _type_name(field: dict[str, Any]) -> str:
    data_type = field["type"]
    return cast("str", data_type if isinstance(data_type, str) else data_type.get("type", ""))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
