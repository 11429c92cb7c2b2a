"""Numbers as people read them."""

import math

import pytest

from helpers.show import numbers
from helpers.show.numbers import shown


def test_shown():
    assert [shown(v) for v in (None, math.nan, 156672.3, 0.028375, 6.435563, 20.0)] == [
        "–", "–", "156,672", "0.02838", "6.436", "20",
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (187, "3:07 min"), (7500, "2:05 h")])
def test_durations(seconds, words):
    assert numbers.duration(seconds) == words
