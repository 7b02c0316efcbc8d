"""Sizes so small that every boundary is somewhere in a short file."""

from collections.abc import Callable

import pytest

from lakehouse_utils.pipeline.parsing import limits


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the sizes of blocks, of what is read first, and of what is held in memory."""

    def shrink(block: int) -> None:
        monkeypatch.setattr(limits, "BLOCK_BYTES", block)
        monkeypatch.setattr(limits, "HEAD_BYTES", max(block, 4))  # a byte order mark is read whole
        monkeypatch.setattr(limits, "STEP_BYTES", max(block, 4))
        monkeypatch.setattr(limits, "MAX_CELLS", block)
        monkeypatch.setattr(limits, "MAX_OBJECTS", block)

    return shrink
