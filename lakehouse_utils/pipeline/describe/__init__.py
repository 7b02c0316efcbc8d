"""Drafts a description of tables from real files: `ingestion_processor.py --describe FILE...`.

`samples.py` finds out how a file is split into fields and reads some of its rows as text. `columns.py` guesses what the
texts of each column are. `draft.py` writes both as a section of `sources.toml`, with a comment at each guess.
"""

from lakehouse_utils.pipeline.describe.draft import draft

__all__ = ["draft"]
