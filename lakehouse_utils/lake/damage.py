"""Recognizes that a table is damaged, by the messages of delta-rs, DuckDB and pyarrow, which offer nothing else."""

import re

_PHRASES = {
    re.compile(r"Expected contiguous commit files|MissingVersion|missing version", re.IGNORECASE): (
        "a commit file is missing from its log"
    ),
    re.compile(r"No table metadata or protocol found"): "the first commit files are missing from its log",
    re.compile(r"Invalid Checkpoint"): "the checkpoint that `_last_checkpoint` names is missing from its log",
    re.compile(
        r"Json error: |Invalid JSON in log record|Failed to parse.{0,40}log"
    ): "a commit file in its log is damaged",
    re.compile(r"(Kernel error: Arrow error|DeltaKernel ParquetError)"): "a checkpoint in its log is damaged",
    re.compile(r"magic bytes (at end of|not found)|Couldn't deserialize thrift|Invalid Parquet file: corrupt"): (
        "one of its data files is damaged"
    ),
}
_TABLE = re.compile(r"(?<![\w-])(bronze|silver|gold|quarantine)[./]([^/\s'\".:]+)")


def describe_damage(error: BaseException) -> str | None:
    """What is damaged about a table, as the end of a sentence; None if the error is of another kind."""
    message = str(error)
    return next((damage for phrase, damage in _PHRASES.items() if phrase.search(message)), None)


def damaged_table(*texts: str) -> tuple[str, str] | None:
    """The layer and the name of the first of the pipeline's tables that is mentioned; None if there is none."""
    match = next(filter(None, map(_TABLE.search, texts)), None)
    return (match[1], match[2]) if match else None
