"""Raw files to bronze, silver and gold: what `ingestion_processor.py` runs.

Read in this order: `sources.py` (what the files mean), `landing.py` (where they are), `formats.py` (what stands in
them), `bronze.py` (rows to append-only Delta tables), `silver.py` (typed, current state and history), `gold.py` (the
star schema), `run.py` (all of it, in order). `delta.py` holds what the layers share. The SQL is in `sql/`.
"""
