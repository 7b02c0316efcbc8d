"""The raw files of a bicycle shop: a full load and six daily batches, deterministic, at any scale."""

from lakehouse_utils.sample_data.sample_data import generate

__all__ = ["generate"]
