"""Numbers as people read them."""

import math

import pytest

from helpers.show import numbers
from helpers.show.numbers import shown


def test_shown():
    assert [shown(v) for v in (None, math.nan, 156672.3, 0.028375, 6.435563, 20.0)] == [
        "–", "–", "156,672", "0.02838", "6.436", "20",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "words", "with_tenths"),
    [(999, "999", "999"), (4096, "4.1k", "4.1k"), (354_871_296, "355M", "354.9M"), (8_030_261_248, "8.03B", "8.03B")],
)
def test_counts(count, words, with_tenths):
    assert numbers.short_count(count) == words
    assert numbers.short_count(count, tenths=True) == with_tenths


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (187, "3:07 min"), (7500, "2:05 h")])
def test_durations(seconds, words):
    assert numbers.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (7.349e14, "FLOP/s", "735 TFLOP/s"),
        (1.42e15, "FLOP/s", "1,420 TFLOP/s"),
        (9.999e-4, "s", "1 ms"),
        (7.44e-5, "s", "74.4 µs"),
        (7.5e-15, "s", "7.5 fs"),
        (3.0, "B/s", "3 B/s"),
        (0.0, "s", "0 s"),
    ],
)
def test_prefixes(value, unit, words):
    assert numbers.prefixed(value, unit) == words
