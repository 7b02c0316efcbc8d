"""How much is read, parsed and kept at a time. This bounds memory use, whatever a file contains.

Always refer to them as `limits.NAME`, so that a test that changes a value changes it everywhere.
"""

MIB = 1 << 20

BLOCK_BYTES = 24 * MIB  # of raw text; one block becomes one Parquet file, which is several times smaller
HEAD_BYTES = MIB  # read first, to recognize what kind of file it is
STEP_BYTES = MIB  # processed at a time if a temporary copy of a whole block would take too much memory

MAX_HEADER_BYTES = 16 * MIB
MAX_RECORD_BYTES = 128 * MIB  # a longer record is quarantined without being parsed
MAX_PAGE_BYTES = 640 * MIB  # of Parquet, decompressed; a row group with a larger one is quarantined without being read
MAX_QUOTED_BYTES = 64 * MIB  # a quote that is still open after this many bytes counts as never closed
MAX_RAW_BYTES = 16 * MIB  # of a broken record, kept in quarantine
MAX_BROKEN_RECORDS = 10_000  # of one file, kept in quarantine; the others are only counted

MAX_CELLS = 6 << 20  # in one block: short values take more memory as Arrow columns than as text
MAX_OBJECTS = 1 << 20  # cells that are held as Python objects
MAX_COLUMNS = 20_000  # of a file; each new column is another copy of the table's schema in its log
