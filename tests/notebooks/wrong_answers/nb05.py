"""Wrong answers to the exercises of notebook 05."""

_SIZE = "target_size=int(70_000 * SCALE)"
_LAYOUTS = f"""by_page, by_both = new_table("by_page"), new_table("by_both")
by_page.optimize.z_order(["page_id"], {_SIZE})
by_both.optimize.z_order(["customer_id", "page_id"], {_SIZE})
page, customer = (measure(by_page.table_uri)[column]["bytes"] for column in ("page_id", "customer_id"))
"""
ARCHIVE = """archive = new_table("archive")
other = DeltaTable(archive.table_uri, storage_options=options)
archive.optimize.compact()
other.optimize.compact()
other.delete("seconds > 200")
crashed = archive.table_uri.split("/", 3)[3] + "part-of-a-crash.parquet"
lake.s3.put_object(Bucket=lake.bucket, Key=crashed, Body=bytes(300_000))
archive = DeltaTable(archive.table_uri, storage_options=options)
"""
_REPAIR = """archive.restore(6)
archive.delete("seconds > 200")
"""
_VACUUM = "archive.vacuum(**at_once, full=True, keep_versions=[5], dry_run=False)\n"

WRONG_ANSWERS = [
    ("05.1", "answer = (7, 2, 5, [0, 1, 2, 6, 7])", "A vacuum that deletes files writes to the log"),
    ("05.1", "answer = (8, 2, 5, [0, 1, 2, 6, 7])", "writes two commits"),
    ("05.1", "answer = (10, 2, 5, [0, 1, 2, 6, 7])", "The second compaction finds nothing to do"),
    ("05.1", "answer = (11, 2, 5, [0, 1, 2, 6, 7])", "Without dry_run=False"),
    ("05.1", "answer = (6, 2, 5, [0, 1, 2, 6, 7])", "Which of the other calls make a commit?"),
    ("05.1", "answer = (9, 1, 5, [0, 1, 2, 6, 7])", "The append after the compactions adds a file"),
    ("05.1", "answer = (9, 8, 5, [0, 1, 2, 6, 7])", "replaces six files by one"),
    ("05.1", "answer = (9, 2, 5, [2, 6, 7])", "Version 0 can still be read: version 2 needs all its files"),
    ("05.1", "answer = (9, 2, 5, [0, 1, 2])", "Version 6 can still be read: all its files are live"),
    ("05.1", "answer = (9, 2, 5, list(range(8)))", "Version 3 cannot be read any more"),
    ("05.1", "answer = (9, 2, 5, [0, 1, 2, 6, 7, 8, 9])", "Version 8 was not asked for"),
    ("05.1", "answer = (9, 2, 2, [0, 1, 2, 6, 7])", "keep_versions=[2] keeps files"),
    ("05.1", "answer = (9, 2, 8, [0, 1, 2, 6, 7])", "The last vacuum deletes"),
    ("05.1", "answer = (9, 2, 3, [0, 1, 2, 6, 7])", "three appends"),
    ("05.1", "answer = (9, 2, 6, [0, 1, 2, 6, 7])", "Count the live files"),
    ("05.1", "answer = (9, 2, 5, 5)", "a list of versions"),
    ("05.1", "answer = (9, 2, 5, None)", "a list of versions"),
    ("05.1", "answer = (9, 2, [0, 1, 2, 6, 7])", "It should have four"),
    (
        "05.2",
        _LAYOUTS + "answer = (by_both, (9000 * page + 1000 * customer) / 1e9)",
        "Measure a table sorted by page_id",
    ),
    (
        "05.2",
        f"""by_customer = new_table("by_customer")
by_customer.optimize.z_order(["customer_id"], {_SIZE})
answer = (by_customer, 1.1)""",
        "Measure page_id, not customer_id",
    ),
    ("05.2", 'by_page = new_table("by_page")\nanswer = (by_page, 1.1)', "as new_table wrote it"),
    (
        "05.2",
        'by_page = new_table("by_page")\nby_page.optimize.z_order(["page_id"])\nanswer = (by_page, 1.1)',
        "has only 1 file, so there is little to skip. Pass target_size=int(70_000 * SCALE)",
    ),
    (
        "05.2",
        """by_page = new_table("by_page")
by_page.optimize.z_order(["page_id"], target_size=TARGET)
answer = (by_page, 1.1)""",
        "has only 3 files, so there is little to skip. Pass target_size=int(70_000 * SCALE)",
    ),
    ("05.2", _LAYOUTS + "answer = (by_page, 9000 * page + 1000 * customer)", "That is in bytes"),
    ("05.2", _LAYOUTS + "answer = (by_page, (9000 * page + 1000 * customer) / 1e6)", "That is in MB"),
    ("05.2", _LAYOUTS + "answer = (by_page, (9000 * page + 1000 * customer) / 2**30)", "That is in GiB"),
    ("05.2", _LAYOUTS + "answer = (by_page, round((9000 * page + 1000 * customer) / 1e9))", "rounded too much"),
    ("05.2", _LAYOUTS + "answer = (by_page, (1000 * page + 9000 * customer) / 1e9)", "swapped: 9,000 ask for a page"),
    ("05.2", _LAYOUTS + "answer = (by_page, 5000 * (page + customer) / 1e9)", "Weigh the queries"),
    ("05.2", _LAYOUTS + "answer = (by_page, 9000 * page / 1e9)", "The queries for a customer are missing"),
    ("05.2", _LAYOUTS + "answer = (by_page, (page + customer) / 1e9)", "one query of each kind"),
    (
        "05.2",
        _LAYOUTS
        + """reads = measure(by_page.table_uri)
answer = (by_page, 9000 * reads["page_id"]["requests"] + 1000 * reads["customer_id"]["requests"])""",
        "the number of requests",
    ),
    (
        "05.2",
        _LAYOUTS
        + """reads = measure(by_both.table_uri)
answer = (by_page, (9000 * reads["page_id"]["bytes"] + 1000 * reads["customer_id"]["bytes"]) / 1e9)""",
        "Was it measured on the other table",
    ),
    ("05.2", _LAYOUTS + 'answer = ("by_page", 1.1)', "of type str"),
    ("05.2", _LAYOUTS + "answer = (1.1, by_page)", "in the wrong order"),
    ("05.2", "answer = (table, 1.1)", "a different table"),
    ("05.3", ARCHIVE + "answer = archive", "Each row is still there twice"),
    ("05.3", ARCHIVE + _VACUUM + "answer = archive", "Each row is still there twice"),
    ("05.3", ARCHIVE + "archive.restore(7)\n" + _VACUUM + "answer = archive", "Each row is still there twice"),
    ("05.3", ARCHIVE + "archive.restore(5)\n" + _VACUUM + "answer = archive", "so repeat it"),
    (
        "05.3",
        ARCHIVE
        + """kept = db.sql(f"SELECT DISTINCT * FROM delta_scan('{archive.table_uri}') WHERE seconds <= 200")
write_deltalake(archive, kept.to_arrow_table(), mode="overwrite")
"""
        + _VACUUM
        + "answer = archive",
        "The rows without seconds are lost",
    ),
    (
        "05.3",
        ARCHIVE + 'archive.restore(6)\narchive.delete("seconds > 100")\n' + _VACUUM + "answer = archive",
        "that the delete keeps, each once",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + "archive.vacuum(**at_once, full=True, dry_run=False)\nanswer = archive",
        "Version 5 has lost files",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + _VACUUM.replace("[5]", "[6]") + "answer = archive",
        "Is 5 in keep_versions?",
    ),
    (
        "05.3",
        ARCHIVE + 'archive.restore(6)\narchive.delete("seconds >= 200")\n' + _VACUUM + "answer = archive",
        "Is 200 > 200 true?",
    ),
    (
        "05.3",
        ARCHIVE
        + """kept = archive.to_pyarrow_table(columns=["viewed_at", "seconds"])
write_deltalake(archive, kept, mode="overwrite", schema_mode="overwrite")
"""
        + _VACUUM
        + "answer = archive",
        "has lost the column",
    ),
    (
        "05.3",
        ARCHIVE
        + _REPAIR
        + """noted = db.sql(f"SELECT *, 'checked' AS note FROM delta_scan('{archive.table_uri}')").to_arrow_table()
write_deltalake(archive, noted, mode="overwrite", schema_mode="overwrite")
"""
        + _VACUUM
        + "answer = archive",
        "has no column note",
    ),
    (
        "05.3",
        ARCHIVE
        + _REPAIR
        + 'archive.update({"seconds": "0"}, predicate="seconds IS NULL")\n'
        + _VACUUM
        + "answer = archive",
        "but not their values",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + "archive.vacuum(**at_once, keep_versions=[5], dry_run=False)\nanswer = archive",
        "A lite vacuum uses the log",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + "archive.vacuum(**at_once, full=True, keep_versions=[5])\nanswer = archive",
        "Was it a dry run",
    ),
    (
        "05.3",
        ARCHIVE + "archive.restore(6)\n" + _VACUUM + 'archive.delete("seconds > 200")\nanswer = archive',
        "did a commit come after the vacuum",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + "archive.vacuum(full=True, keep_versions=[5], dry_run=False)\nanswer = archive",
        "is the retention too",
    ),
    (
        "05.3",
        ARCHIVE + _REPAIR + _VACUUM.replace("[5]", "[5, 6]") + "answer = archive",
        "a version that was not asked for",
    ),
    (
        "05.3",
        ARCHIVE
        + _REPAIR
        + _VACUUM
        + """archive.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
archive.create_checkpoint()
archive.cleanup_metadata()
answer = archive""",
        "the log was cleaned up too",
    ),
    ("05.3", "answer = two_jobs", "a different table"),
    ("05.3", 'answer = new_table("other")', "The answer should be archive"),
]
