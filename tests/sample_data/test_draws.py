"""Deterministic draws: the same numbers on every platform."""

import hashlib

import numpy as np

from lakehouse_utils.sample_data import draws


def test_draws_are_the_same_on_every_machine():
    """Hashes and draws have the values that they had when they were first written."""
    bits = draws.hash_bits("orders", np.arange(10_000)).astype("<u8").tobytes()
    assert hashlib.sha256(bits).hexdigest() == "62582e65cf1fd1be2d6650260feaaca460b90fcf946a56f72389471aab2207ea"
    assert draws.draw("orders", np.arange(6), 1000).tolist() == [781, 229, 440, 48, 692, 838]
