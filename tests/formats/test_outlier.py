"""A loud column: what it costs a layer's GEMMs, and what blocks save of them."""

import pytest
import torch

from helpers.formats import loudest, outlier_errors
from helpers.formats.layer_tensors import Linear


def layer() -> Linear:
    generator = torch.Generator().manual_seed(0)
    return Linear("fc2", *(torch.randn(256, 256, generator=generator) for _ in range(3)))


@pytest.fixture(scope="module")
def table():
    return outlier_errors(layer())


def test_one_scale_loses_the_quiet_columns_gradient_and_blocks_along_the_tokens_keep_it(table):
    quiet = table["wgrad, quiet"].unstack("scaling")
    assert quiet.loc[1e6, "tensorwise"] > 0.9 and quiet.loc[1e3, "tensorwise"] < 0.045
    assert quiet["blockwise"].between(0.035, 0.04).all() and quiet["mxfp8"].between(0.035, 0.04).all()


def test_the_output_does_not_suffer_while_the_loud_column_is_what_it_is_made_of(table):
    assert (table["fprop"] < 0.045).all()
    silent = table["fprop, weight 0"].unstack("scaling").loc[1e6]
    assert silent["tensorwise"] > 0.9 > silent["blockwise"] > silent["mxfp8"]


def test_without_an_outlier_all_scalings_are_alike(table):
    alike = table.loc[1.0]
    assert (alike.max() < 1.05 * alike.min()).all()


def test_the_loudest_column_is_found_and_made_louder():
    linear = layer()
    linear.activation[:, 7] *= 1e4
    found = loudest({"linear_fc2": linear}).loc["linear_fc2"]
    assert found["loudest column"] == 7 and 5e3 < found["loudest ÷ median"] < 2e4
    by_hand = outlier_errors(layer(), column=7).loc[(1e4, "tensorwise")]
    assert outlier_errors(linear, column=7).loc[(1.0, "tensorwise")].tolist() == pytest.approx(by_hand.tolist())
