"""The lake: addresses of tables, one set of credentials for boto3, delta-rs and DuckDB, and what a Delta log says."""

from lakehouse_utils.lake.lake import Credentials, Lake, TableRef

__all__ = ["Credentials", "Lake", "TableRef"]
