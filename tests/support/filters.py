"""Whether readers that skip files by the log's statistics find every row."""

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_utils.lake import Lake
from support import lakes


def wrong_counts(lake: Lake) -> list[tuple[str, str, object]]:
    """Filters, by table, column and value, for which pyarrow or Polars finds another number of rows than there are.

    The values are the first and the last of each column, and NULL. Columns that were added after a file was written are
    not tested with NULL: delta-rs 1.6.6 tells pyarrow that such a file has no NULL in them.
    """
    wrong: list[tuple[str, str, object]] = []
    for name, table in lakes.opened(lake):
        rows, dataset = table.to_pyarrow_table(), table.to_pyarrow_dataset()
        frame = pl.scan_delta(lake.uri(*name.split(".")), storage_options=lake.storage_options)
        for column in rows.column_names:
            all_values, values = rows[column].to_pylist(), rows[column].drop_null()
            for value in values[:1].to_pylist() + values[-1:].to_pylist():
                is_equal = pc.field(column) == pa.scalar(value, rows.schema.field(column).type)
                counts = [dataset.count_rows(filter=is_equal)]
                if not isinstance(value, float):
                    is_value = pl.col(column) == pl.lit(value)
                    counts.append(frame.filter(is_value).select(pl.len()).collect().item())
                if set(counts) != {all_values.count(value)}:
                    wrong.append((name, column, value))
            is_in_all_files = all(column in fragment.physical_schema.names for fragment in dataset.get_fragments())
            if is_in_all_files and dataset.count_rows(filter=pc.field(column).is_null()) != rows[column].null_count:
                wrong.append((name, column, None))
    return wrong
