"""The formats against the FP8 paper's table, the casts against their definition, the products against fp64."""

import math

import pytest
import torch

from helpers import formats
from helpers.formats import number_formats
from helpers.formats.number_formats import BF16, E4M3, E5M2, FP16


def heavy_tailed(rows=256, columns=256, seed=0):
    """Normal numbers whose columns differ in size by up to 2^12: what outlier channels look like."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 2.0 ** (12 * torch.rand(columns, generator=generator) ** 4)
    return torch.randn(rows, columns, generator=generator) * sizes


@pytest.mark.parametrize(
    ("format", "largest", "normal", "subnormal"),
    [  # Micikevicius et al. 2022, table 1
        (E4M3, 448.0, 2**-6, 2**-9),
        (E5M2, 57344.0, 2**-14, 2**-16),
        (FP16, 65504.0, 2**-14, 2**-24),
        (BF16, 3.3895313892515355e38, 2**-126, 2**-133),
    ],
)
def test_a_format_agrees_with_the_paper_and_with_torch(format, largest, normal, subnormal):
    assert (format.largest, format.smallest_normal, format.smallest_subnormal) == (largest, normal, subnormal)
    info = torch.finfo(format.dtype)
    assert (info.max, info.tiny, info.bits) == (largest, normal, format.bits)
    values = format.values()
    assert values[-1] == largest and values[values > 0][0] == subnormal
    assert torch.equal(values, -values.flip(0)), "every value has its negative"


@pytest.mark.parametrize(("format", "count"), [(E4M3, 253), (E5M2, 247), (BF16, 65279), (FP16, 63487)])
def test_how_many_finite_values_there_are(format, count):
    assert len(format.values()) == count == formats.table().loc[format.name, "finite values"]


def test_the_table_of_formats_can_be_read_without_counting_zeros():
    table = formats.table()
    assert table.largest.tolist() == ["448", "57,344", "3.39e+38", "65,504"]
    assert table["smallest normal"].tolist() == ["0.0156", "6.1e-05", "1.18e-38", "6.1e-05"]
    assert table.infinity.tolist() == ["no", "yes", "yes", "yes"]


@pytest.mark.parametrize("format", number_formats.FORMATS)
def test_spacing_is_the_distance_between_neighbours(format):
    values = format.values().double()
    positive = values[values > 0][:-1]
    chosen = positive[:: max(1, len(positive) // 300)]
    for value in chosen.tolist():
        following = values[values > value][0].item()
        assert format.spacing(value) == following - value == format.spacing(-value)


def test_a_plain_cast_rounds_to_the_nearest_value_and_saturates():
    tensor = torch.tensor([0.0, 1.06, 1.0625, 1.1875, -3e-4, 447.0, 1e6, -1e6])
    found = number_formats.cast(tensor, E4M3)
    assert found.values.tolist() == [0.0, 1.0, 1.0, 1.25, 0.0, 448.0, 448.0, -448.0]
    assert found.saturated == pytest.approx(2 / 8)
    grid = E4M3.values()
    random = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    nearest = (random[:, None] - grid).abs().min(dim=1).values
    assert torch.equal((number_formats.cast(random, E4M3).values - random).abs(), nearest)


def test_fp16_overflows_to_infinity_where_bf16_does_not():
    tensor = torch.tensor([1.0, 1e5])
    assert number_formats.cast(tensor, FP16).values.tolist() == [1.0, math.inf]
    assert number_formats.cast(tensor, FP16).saturated == 0.5
    assert number_formats.errors(tensor, number_formats.cast(tensor, BF16)).relative_error < 2**-8


def test_current_scaling_puts_the_largest_element_on_the_largest_value():
    tensor = heavy_tailed() * 1e-5
    for format in (E4M3, E5M2):
        found = number_formats.cast(tensor, format, number_formats.CurrentScaling())
        assert found.codes.float().abs().max() == format.largest and found.saturated == 0
        assert found.values.abs().max() == pytest.approx(float(tensor.abs().max()), rel=1e-6)


def test_delayed_scaling_uses_earlier_steps_only():
    small, spike = torch.full((4,), 1.0), torch.full((4,), 100.0)
    scaling = number_formats.DelayedScaling(amax_history_len=2)
    assert scaling.scale(spike, E4M3) == 1, "no step seen: scale 1, as in Transformer Engine"
    scaling = scaling.seen(small)
    hit = number_formats.cast(spike, E4M3, scaling)
    assert hit.saturated == 1 and hit.values.max() == 1.0, "a spike is cut to the amax that was seen before"
    scaling = scaling.seen(spike)
    assert number_formats.cast(spike, E4M3, scaling).saturated == 0
    scaling = scaling.seen(small)
    assert scaling.scale(small, E4M3) == pytest.approx(4.48), "max: the spike still counts while in the history"
    assert scaling.seen(small).scale(small, E4M3) == 448, "and is forgotten after amax_history_len steps"
    recent = number_formats.DelayedScaling(amax_compute_algo="most_recent", margin=3).seen(spike).seen(small)
    assert recent.scale(small, E4M3) == 448 / 2**3
    with pytest.raises(ValueError, match="say 'max' or 'most_recent'"):
        number_formats.DelayedScaling(amax_compute_algo="mean").seen(small).scale(small, E4M3)


@pytest.mark.parametrize(
    "scaling",
    [number_formats.BlockScaling((1, 128)), number_formats.BlockScaling((128, 128)), number_formats.MXScaling()],
)
@pytest.mark.parametrize("shape", [(256, 256), (3, 5, 100), (130, 200)])
def test_a_block_has_one_power_of_two_that_just_fits(scaling, shape):
    tensor = heavy_tailed(math.prod(shape[:-1]), shape[-1]).reshape(shape)
    scale = scaling.scale(tensor, E4M3).reshape(-1, shape[-1])
    matrix = tensor.reshape(-1, shape[-1])
    rows, columns = scaling.block
    for top in range(0, len(matrix), rows):
        for left in range(0, matrix.shape[1], columns):
            block = scale[top : top + rows, left : left + columns]
            amax = matrix[top : top + rows, left : left + columns].abs().max()
            assert (block == block[0, 0]).all() and math.log2(block[0, 0]).is_integer()
            assert 448 / 2 < amax * block[0, 0] <= 448, "nothing saturates; one power more would"


def test_an_mx_scale_stays_in_e8m0():
    tiny = torch.full((1, 32), 2.0**-140)
    assert number_formats.MXScaling().scale(tiny, E4M3).max() == 2.0**127
    zeros = number_formats.cast(torch.zeros(2, 64), E4M3, number_formats.MXScaling())
    assert torch.equal(zeros.values, torch.zeros(2, 64))


def test_finer_scales_lose_less_of_a_tensor_with_outlier_channels():
    tensor = heavy_tailed()

    def lost(scaling):
        return number_formats.errors(tensor, number_formats.cast(tensor, E4M3, scaling)).underflow

    assert (
        lost(number_formats.MXScaling()) <= lost(number_formats.BlockScaling()) <= lost(number_formats.CurrentScaling())
    )
    unscaled = number_formats.errors(tensor * 1e-6, number_formats.cast(tensor * 1e-6, E4M3))
    assert unscaled.underflow > 0.5, "without a scale, small gradients vanish"


def test_error_measures_agree_with_each_other():
    tensor = heavy_tailed()
    found = number_formats.errors(tensor, number_formats.cast(tensor, E4M3, number_formats.CurrentScaling()))
    assert 0 < found.relative_error < 2**-4, "half a spacing of E4M3 at most, but for what underflows"
    assert found.sqnr_db == pytest.approx(-20 * math.log10(found.relative_error))
    exact = number_formats.errors(
        torch.tensor([0.0, 1.0, -2.0]), number_formats.cast(torch.tensor([0.0, 1.0, -2.0]), E4M3)
    )
    assert (exact.relative_error, exact.sqnr_db, exact.underflow, exact.saturated) == (0, math.inf, 0, 0)
    assert number_formats.relative_error(torch.zeros(2), torch.zeros(2)) == 0


def test_scalings_are_transformer_engines():
    weight = torch.randn(4, 4)
    assert number_formats.scaling_of("tensorwise", "gradient") == number_formats.CurrentScaling()
    assert number_formats.scaling_of("blockwise", "weight") == number_formats.BlockScaling((128, 128))
    assert number_formats.scaling_of("blockwise", "gradient") == number_formats.BlockScaling((1, 128))
    assert number_formats.scaling_of("delayed", "weight", weight).amax_history == (float(weight.abs().max()),)
    with pytest.raises(ValueError, match="say delayed, tensorwise, blockwise or mxfp8"):
        number_formats.scaling_of("int8", "weight")
