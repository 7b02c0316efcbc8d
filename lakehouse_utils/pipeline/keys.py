"""The key of each table of silver and gold: what `--check` checks, and what `--maintain` sorts by."""

from collections.abc import Mapping

from lakehouse_utils.pipeline import gold, silver
from lakehouse_utils.pipeline.sources import Source


def key_columns(sources: Mapping[str, Source]) -> dict[str, list[str]]:
    """The key of every table that is built from these sources, and of every gold table, by `<layer>.<table>`."""
    keys = {
        f"silver.{name}": silver.key_columns(source, name)
        for source in sources.values()
        for name in silver.tables(source)
    }
    return keys | {f"gold.{name}": gold.GoldTable.load(name).key for name in gold.TABLES}
