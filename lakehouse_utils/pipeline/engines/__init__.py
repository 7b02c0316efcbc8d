"""The engines of the pipeline: DuckDB and delta-rs on one machine, or a Spark Connect server."""
