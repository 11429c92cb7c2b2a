"""Sums with few bits: exact where the bits suffice, and losing what DeepSeek-V3 describes where they do not."""

import torch

from helpers.formats import accumulation_errors
from helpers.formats.accumulation import add_up


def test_whole_numbers_that_fit_are_added_exactly():
    a = torch.randint(-3, 4, (4, 256), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(add_up(a, a), a @ a.T), "sums below 2**14"


def test_what_is_below_the_last_bit_is_cut_off():
    large = torch.zeros(1, 64)
    large[0, 0], large[0, 32:] = 2.0**14, 0.75
    ones = torch.ones(1, 64)
    assert add_up(large, ones) == 2.0**14, "each 0.75 is less than the last of 14 bits, which stands for 2"
    assert add_up(large, ones, split_at=32) == 2.0**14 + 32 * 0.75


def test_a_long_sum_loses_more_than_the_cast_unless_it_is_split():
    table = accumulation_errors()
    long = table.loc[("1 × 1", 14336)]
    assert long["14 bits"] > 10 * long["cast"] and long["14 bits, split every 128"] < 0.002
    assert (table.loc["1 × 0", "14 bits"] < 0.2 * table.loc["1 × 0", "cast"]).all(), "one operand has a mean, one not"
    assert (table["summed in fp32"] < 1e-5).all()
    assert table.loc["1 × 1", "14 bits"].is_monotonic_increasing
