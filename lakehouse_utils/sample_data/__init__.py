"""The raw files of a bicycle shop: a full load and six daily batches, deterministic, at any scale.

    python -m lakehouse_utils.sample_data --scale 1 --out data/landing

`vocabulary.py` has the words, `draws.py` the deterministic randomness, `shop.py` every row as a function of its number,
`batches.py` what happens on which day, `writer.py` the files, `dictionary.py` the derived parts of data/README.md.
"""

from lakehouse_utils.sample_data.batches import Summary, generate
from lakehouse_utils.sample_data.writer import Quirk

__all__ = ["Quirk", "Summary", "generate"]
