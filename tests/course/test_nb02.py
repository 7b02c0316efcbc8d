"""Notebook 02: the prediction of its exercise is what happens, and right answers are accepted in other spellings."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from lakehouse_utils.course.exercises import Right, Wrong, nb02
from lakehouse_utils.lake import Lake


def test_six_writes_leave_what_the_check_expects(lake: Lake) -> None:
    """The six writes of exercise 02.1, run for real, leave the version, rows and files of the right answer."""
    uri, options = lake.uri("six_writes"), lake.storage_options
    brands = pa.table({"brand_id": [str(number) for number in range(1, 10)]})
    write_deltalake(uri, brands, mode="append", storage_options=options)
    write_deltalake(uri, brands, mode="ignore", storage_options=options)
    write_deltalake(uri, brands.slice(0, 4), mode="append", storage_options=options)
    write_deltalake(uri, brands.slice(0, 2), mode="overwrite", storage_options=options)
    with pytest.raises(DeltaError, match="A table already exists"):
        write_deltalake(uri, brands, storage_options=options)
    write_deltalake(uri, brands, mode="append", storage_options=options)
    table = DeltaTable(uri, storage_options=options)
    in_folder = sum(entry["Key"].endswith(".parquet") for entry in lake.objects(lake.key("six_writes", "")))
    assert (table.version(), table.count(), len(table.file_uris()), in_folder) == nb02.PREDICTED


@pytest.mark.parametrize("kind", [tuple, list, lambda numbers: [np.int64(number) for number in numbers]])
def test_prediction_in_any_sequence(kind: Callable[[tuple[int, ...]], list[int]], lake: Lake) -> None:
    """The four numbers are accepted as a tuple or a list, of any kind of integer, and no other number is."""
    assert isinstance(nb02.check_prediction(kind(nb02.PREDICTED), lake), Right)
    for position in range(4):
        for number in {*range(12)} - {nb02.PREDICTED[position]}:
            changed = [*nb02.PREDICTED[:position], number, *nb02.PREDICTED[position + 1 :]]
            with pytest.raises(Wrong):
                nb02.check_prediction(changed, lake)


@pytest.mark.parametrize("refused", ["raises", "returns"])
def test_load_with_any_way_to_handle_the_refusal(refused: str, lake: Lake) -> None:
    """A load is right if it lets the refusal through, and also if it returns."""
    options = lake.storage_options

    def load(uri: str, batch: str, fingerprint: int, rows: pa.Table) -> None:
        table = DeltaTable(uri, storage_options=options)
        if table.transaction_version(batch) == fingerprint:
            return
        note = CommitProperties(app_transactions=[Transaction(batch, fingerprint)], max_commit_retries=0)
        predicate = f"_batch in ('{batch}')"
        write_deltalake(table, rows, mode="overwrite", predicate=predicate, commit_properties=note)

    def load_quietly(uri: str, batch: str, fingerprint: int, rows: pa.Table) -> None:
        with suppress(CommitFailedError):
            load(uri, batch, fingerprint, rows)

    assert isinstance(nb02.check_repeated_batches(load if refused == "raises" else load_quietly, lake), Right)
