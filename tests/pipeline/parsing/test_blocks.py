"""Blocks: columns that differ from row to row, within bounds of memory."""

from support.raw_files import read_json

from lakehouse_utils.pipeline.parsing import limits


def test_blocks_with_different_columns(tiny_blocks):
    """Each block has the columns of its rows."""
    tiny_blocks(10)
    content = read_json('{"id":1,"a":1}\n{"id":2}\n{"b":3,"id":3}\n{"a":4,"id":4}\n')
    assert content.columns == ["id", "a", "b"]
    assert content.values == [("1", "1", None), ("2", None, None), ("3", None, "3"), ("4", "4", None)]


def test_blocks_with_many_broken_records(monkeypatch):
    """A block lists one broken record more than a file may list, and counts the others."""
    monkeypatch.setattr(limits, "MAX_BROKEN_RECORDS", 3)
    (block,) = read_json("x\n" * 10 + '{"id":1}\n').blocks
    assert ([record.line for record in block.broken], block.unlisted, block.read) == ([1, 2, 3, 4], 6, 11)


def test_blocks_of_lines_with_different_keys(monkeypatch):
    """Lines of which each has its own key come out in blocks that fit into memory."""
    monkeypatch.setattr(limits, "MAX_OBJECTS", 10_000)
    content = read_json("".join(f'{{"id":{i},"k{i}":{i}}}\n' for i in range(1500)))
    assert content.lines == list(range(1, 1501))
    assert [row[0] for row in content.values] == [str(i) for i in range(1500)]
    assert max(block.rows.num_columns * block.rows.num_rows for block in content.blocks) < 13_000
