"""Raw files to bronze, silver and gold: what `ingestion_processor.py` runs.

Start reading in `run.py`, which plans the steps; `steps.py` runs them. `sources.py` loads the descriptions of the
source tables, `landing.py` finds the raw files, `parsing/` reads them, and `bronze.py` writes their rows to append-only
Delta tables. `notation.py` reads texts as values, `rules.py` contains the rules on values, `silver.py` writes current
state and history, and `gold.py` writes the star schema. `merge.py` and `commits.py` write to Delta tables; the
`engines/` compute the rows. The SQL is in `sql/`. `describe/` drafts a description from real files.
"""
