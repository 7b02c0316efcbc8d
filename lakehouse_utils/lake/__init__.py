"""The lake: addresses of tables, one set of credentials for boto3, delta-rs and DuckDB, and the Delta log."""

from lakehouse_utils.lake.credentials import Credentials
from lakehouse_utils.lake.lake import Lake, TableRef

__all__ = ["Credentials", "Lake", "TableRef"]
