"""Raw files as rows of text: CSV, JSON lines, Parquet."""
