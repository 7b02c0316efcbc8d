"""The sizes of the pages of a Parquet file, which its metadata does not have: a page is decompressed as a whole.

Each page starts with a header in Thrift's compact protocol, whose second and third field are the sizes of the page
after and before decompression: https://parquet.apache.org/docs/file-format/data-pages/
"""

from typing import BinaryIO

import pyarrow.parquet as pq

from lakehouse_utils.pipeline.parsing import limits

_HEADER_BYTES = 64 * 1024  # read at a time; a header that is longer has statistics of very long values
_UNCOMPRESSED, _COMPRESSED = 2, 3
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


def oversized_column(stream: BinaryIO, group: pq.RowGroupMetaData) -> str | None:
    """The path of a column of the row group with a page of more than MAX_PAGE_BYTES; None if there is no such page."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.total_uncompressed_size > limits.MAX_PAGE_BYTES and _has_oversized_page(stream, column):
            return str(column.path_in_schema)
    return None


def _has_oversized_page(stream: BinaryIO, column: pq.ColumnChunkMetaData) -> bool:
    position = column.data_page_offset
    if column.dictionary_page_offset:
        position = min(position, column.dictionary_page_offset)
    end = position + column.total_compressed_size
    while position < end:
        stream.seek(position)
        header = _Header(stream.read(min(_HEADER_BYTES, end - position)))
        try:
            sizes = header.struct()
            uncompressed, compressed = sizes[_UNCOMPRESSED], sizes[_COMPRESSED]
        except (IndexError, KeyError):
            return True  # damaged, or with very long values
        if uncompressed > limits.MAX_PAGE_BYTES or compressed < 0:
            return True
        position += header.position + compressed
    return False


class _Header:
    """Reads Thrift's compact protocol, as far as page headers use it. Raises IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self) -> dict[int, int]:
        """The integers of a struct, by the IDs of their fields; other fields are skipped."""
        integers: dict[int, int] = {}
        field = 0
        while kind := self._byte():
            field = field + (kind >> 4) if kind >> 4 else self._integer()
            value = self._value(kind & 0x0F)
            if value is not None:
                integers[field] = value
        return integers

    def _value(self, kind: int) -> int | None:
        if kind in (_TRUE, _FALSE):
            return None
        if kind == _STRUCT:
            self.struct()
        elif kind in (_LIST, _SET):
            size_and_kind = self._byte()
            size = size_and_kind >> 4
            for _ in range(self._varint() if size == 0x0F else size):
                self._value(size_and_kind & 0x0F)
        elif kind == _MAP:
            raise IndexError("page headers have no maps")
        elif kind == _BINARY:
            size = self._varint()
            self.position += size
        elif kind == _DOUBLE:
            self.position += 8
        elif kind == _BYTE:
            self._byte()
        else:
            return self._integer()
        return None

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]
