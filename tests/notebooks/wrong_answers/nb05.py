"""Wrong answers to the exercises of notebook 05."""

_DAILY = 'daily = new_table("daily", partition_by=["day"])\n'
_PAGES = 'pages = new_table("pages")\n'
_ARCHIVE = """archive = new_table("archive")
archive.delete("seconds > 200")
archive.delete("seconds > 100")
crashed = lake.key("exercise", "archive", "part-of-a-crash.parquet")
lake.s3.put_object(Bucket=lake.bucket, Key=crashed, Body=bytes(300_000))
"""

WRONG_ANSWERS = [
    ("05.1", _DAILY + "answer = daily", "nothing was compacted yet"),
    ("05.1", _DAILY + "daily.optimize.compact(target_size=1000)\nanswer = daily", "too small for two files"),
    ("05.1", _DAILY + "answer = daily.optimize.compact()", "it is of type dict"),
    (
        "05.1",
        _DAILY
        + """daily.optimize.compact()
daily.update(new_values={"page_id": 1}, predicate="page_id = 2")
answer = daily""",
        "also has a commit UPDATE",
    ),
    ("05.1", _DAILY + "daily.optimize.compact(target_size=int(350_000 * SCALE))\nanswer = daily", "smaller than a day"),
    (
        "05.1",
        _DAILY + 'daily.optimize.compact(partition_filters=[("day", "=", "2026-01-06")])\nanswer = daily',
        "Compact all partitions",
    ),
    (
        "05.1",
        _DAILY + 'write_deltalake(daily, daily.to_pyarrow_table(), mode="overwrite")\nanswer = daily',
        "the rows were rewritten",
    ),
    ("05.2", _PAGES + "answer = pages", "as new_table wrote it"),
    ("05.2", _PAGES + 'pages.optimize.z_order(["page_id"])\nanswer = pages', "Pass target_size"),
    (
        "05.2",
        _PAGES + 'pages.optimize.z_order(["session"], target_size=int(250_000 * SCALE))\nanswer = pages',
        "another column than page_id",
    ),
    (
        "05.2",
        _PAGES + 'pages.optimize.z_order(["page_id", "viewed_at"], target_size=int(250_000 * SCALE))\nanswer = pages',
        "take more bits",
    ),
    (
        "05.2",
        _PAGES + 'pages.optimize.z_order(["page_id", "customer_id"], target_size=int(250_000 * SCALE))\nanswer = pages',
        "also has a column that this query does not need",
    ),
    ("05.2", "answer = table", "a different table"),
    (
        "05.3",
        _ARCHIVE
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, full=True, dry_run=False)\n"
        + "answer = archive",
        "Version 5 has lost files",
    ),
    (
        "05.3",
        _ARCHIVE
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, keep_versions=[5], dry_run=False)\n"
        + "answer = archive",
        "A lite vacuum uses the log",
    ),
    (
        "05.3",
        _ARCHIVE
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, full=True, keep_versions=[5])\n"
        + "answer = archive",
        "Was it a dry run",
    ),
    (
        "05.3",
        _ARCHIVE
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, full=True, keep_versions=[5, 6],\n"
        "               dry_run=False)\nanswer = archive",
        "a version that the task does not ask for",
    ),
    ("05.3", _ARCHIVE + "archive.vacuum(full=True, dry_run=False)\nanswer = archive", "is the retention too"),
    (
        "05.3",
        _ARCHIVE
        + "archive.restore(5)\n"
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, full=True, dry_run=False)\n"
        + "answer = archive",
        "don't restore version 5",
    ),
    (
        "05.3",
        _ARCHIVE
        + "archive.vacuum(retention_hours=0, enforce_retention_duration=False, full=True, keep_versions=[5],\n"
        + "               dry_run=False)\n"
        + 'archive.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})\n'
        + "archive.create_checkpoint()\narchive.cleanup_metadata()\nanswer = archive",
        "the log was cleaned up too",
    ),
]
