"""The derived parts of data/README.md: the data dictionary, the batches, and the quirks."""

import tempfile
from pathlib import Path

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.sample_data.batches import BATCHES, DAYS, Summary, generate, write_full_load
from lakehouse_utils.sample_data.writer import BROKEN_LINE, BROKEN_VALUE


def updated_readme(text: str) -> str:
    """The `text` of data/README.md with its derived parts updated.

    Each part is between two comments that mark it. Raises LakehouseError if a mark is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        summary = generate(Path(folder))
    parts = {"dictionary": dictionary(), "batches": batches(summary), "quirks": quirks(summary)}
    for name, part in parts.items():
        begin, end = f"<!-- {name}: derived -->", f"<!-- end of {name} -->"
        before, begin_found, rest = text.partition(begin)
        _, end_found, after = rest.partition(end)
        if not (begin_found and end_found):
            raise LakehouseError(f"The marks {begin} and {end} are missing. Put them back around the {name}.")
        text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    return text


def dictionary(path: Path = sources.SHOP) -> str:
    """The tables that the file at `path` describes, as Markdown."""
    return "\n\n".join(map(section, sources.load(path).values()))


def section(source: Source) -> str:
    """One source table, as Markdown: its key, and the type, rules and meaning of each column."""
    facts = [
        "Key: " + ", ".join(f"`{column}`" for column in source.key),
        f"newest by: `{source.order_by}`" if source.order_by else "newest by: the batch",
        "history: every version is kept" if source.history else "history: none",
    ]
    lines = [f"### {source.name}", "", source.description + " " + "; ".join(facts) + ".", ""]
    lines += ["| column | type | rules | meaning |", "|---|---|---|---|"]
    for name, column in source.columns.items():
        lines.append(f"| `{name}` | {column.type} | {_rules(name, source)} | {column.description} |")
    return "\n".join(lines)


def _rules(name: str, source: Source) -> str:
    column = source.columns[name]
    rules = ["key"] if name in source.key else ["required"] if column.required else []
    if column.min is not None:
        rules.append(f"at least {column.min}")
    if column.max is not None:
        rules.append(f"at most {column.max}")
    if column.allowed is not None:
        rules.append("one of " + ", ".join(map(str, column.allowed)))
    if column.pattern is not None:
        rules.append(f"matches `{column.pattern}`")
    if column.max_length is not None:
        rules.append(f"at most {column.max_length} characters")
    if column.references is not None:
        rules.append(f"refers to `{column.references}`")
    return ", ".join(rules)


def batches(summary: Summary) -> str:
    """What happens on which day, and in which files, as Markdown."""
    lines = ["| batch | what happens | files (rows) |", "|---|---|---|"]
    for batch, write in zip(BATCHES, (write_full_load, *DAYS), strict=True):
        files = [
            f"{name.partition('/')[2]} ({rows:,})"
            for name, rows in summary.files.items()
            if name.startswith(batch + "/")
        ]
        lines.append(f"| {batch} | {write.__doc__} | {', '.join(files)} |")
    return "\n".join(lines)


def quirks(summary: Summary) -> str:
    """Each quirk and where it is, as Markdown."""
    lines = ["| file | line | quirk | details | quarantined |", "|---|---|---|---|---|"]
    for quirk in summary.quirks:
        quarantined = {BROKEN_LINE: "yes: the line", BROKEN_VALUE: "yes: a value", None: ""}[quirk.broken]
        lines.append(f"| {quirk.file} | {quirk.line or ''} | {quirk.kind} | {quirk.detail} | {quarantined} |")
    return "\n".join(lines)
