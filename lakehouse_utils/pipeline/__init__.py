"""Raw files to bronze, silver and gold: what `ingestion_processor.py` runs.

In the order of reading: `run.py` runs the steps. `sources.py` has the description of the source tables, `landing.py`
finds the raw files, `parsing/` reads them, and `bronze.py` writes their rows to append-only Delta tables. `rules.py`
has the rules on values, `silver.py` writes typed rows, current state and history, and `gold.py` writes the star schema.
`merge.py` and `commits.py` write to Delta tables; `engines/` has what computes the rows. The SQL is in `sql/`.
"""
