"""Deterministic random numbers: every value is a hash of its purpose and of the row's number.

Therefore a row can be generated alone, in any order and in any chunk, and it is the same on every platform and with
every version of Python and numpy.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def hash_bits(what: str, ids: Integers) -> NDArray[np.uint64]:
    """64 well-mixed bits for each of `ids`, different for every `what`, by splitmix64."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "little"))
    bits = np.asarray(ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def draw(what: str, ids: Integers, count: int | Integers) -> Integers:
    """For each of `ids`, a number from 0 to `count` - 1; all are equally likely."""
    return (((hash_bits(what, ids) >> np.uint64(32)) * _u64(count)) >> np.uint64(32)).astype(np.int64)


def draw_low(what: str, ids: Integers, count: int | Integers) -> Integers:
    """Like `draw`, but low numbers are much more likely: the product of two draws."""
    bits = hash_bits(what, ids)
    product = ((bits >> np.uint64(32)) * (bits & np.uint64(0xFFFFFFFF))) >> np.uint64(32)
    return ((product * _u64(count)) >> np.uint64(32)).astype(np.int64)


def _u64(count: int | Integers) -> NDArray[np.uint64]:
    return np.asarray(count).astype(np.uint64)


def draw_weighted(what: str, ids: Integers, weights: Iterable[int]) -> Integers:
    """For each of `ids`, a number from 0 to `len(weights) - 1`, with probabilities proportional to the weights."""
    bounds = np.cumsum(np.array(list(weights), dtype=np.int64))
    return np.searchsorted(bounds, draw(what, ids, int(bounds[-1])), side="right")
