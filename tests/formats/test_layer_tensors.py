"""What FP8 costs a layer: measured on made tensors with known flaws, then on a layer that was really trained."""

import math

import pandas as pd
import pytest
import torch
from records import make_run
from torch.distributed.checkpoint import FileSystemReader, load

from helpers import formats
from helpers.formats import cast_errors, number_formats, product_errors
from helpers.formats.layer_tensors import KINDS, RECIPES, Linear
from helpers.machine import CPU
from helpers.processes import checkpoints


def made(seed: int = 0) -> Linear:
    """A layer whose input has one loud column and whose gradients are small, as trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn(512, 256, generator=generator)
    activation[:, 7] *= 400
    weight = torch.randn(128, 256, generator=generator) * 0.02
    gradient = torch.randn(512, 128, generator=generator) * 1e-6
    return Linear("linear_fc2", weight, activation, gradient)


def test_every_tensor_is_cast_under_every_recipe():
    table = cast_errors(made())
    assert list(table.index) == [(kind, recipe) for kind in KINDS for recipe in RECIPES]
    assert set(table.loc["gradient", "format"]["tensorwise":"tensorwise"]) == {"E5M2"}
    assert (table.xs("bf16", level="recipe")["relative_error"] < 2**-8).all()
    fp8 = table.drop(index="bf16", level="recipe")
    assert fp8["relative_error"].between(2**-7, 2**-3).all()


def test_blocks_keep_what_a_loud_column_would_drown():
    losses = cast_errors(made()).loc["activation", "underflow"]
    assert losses["mxfp8"] < losses["blockwise"] < losses["tensorwise"]


def test_products_are_judged_against_the_exact_ones():
    layer = made()
    table = product_errors(layer)
    weight = number_formats.cast(layer.weight, number_formats.BF16).values.double()
    activation = number_formats.cast(layer.activation, number_formats.BF16).values.double()
    by_hand = number_formats.relative_error(activation @ weight.T, layer.activation.double() @ layer.weight.double().T)
    assert table.loc[("forward", "bf16"), "relative_error"] == pytest.approx(by_hand, rel=1e-3)
    assert (table["sqnr_db"] == [-20 * math.log10(error) for error in table["relative_error"]]).all()
    for _, product in table.groupby(level="product"):
        errors = product["relative_error"].droplevel("product")
        assert errors["bf16"] < 0.2 * errors.drop("bf16").min()


def test_delayed_scaling_remembers_the_step_before():
    quiet, loud = made(), made()
    loud = Linear("linear_fc2", loud.weight, loud.activation * 4, loud.gradient, before=quiet)
    saturated = cast_errors(loud).loc["activation", "saturated"]
    assert saturated["delayed"] > 0 == saturated["tensorwise"]


def test_a_run_without_a_checkpoint_is_told(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="has no checkpoint. Train with save_interval set."):
        formats.of_run(run)


def weight_in_newest_checkpoint(run, name: str) -> torch.Tensor:
    """One weight as the checkpoint holds it, the layers stacked along the first axis; read without Megatron."""
    folder = run.path / "checkpoints"
    reader = FileSystemReader(checkpoints.path_of(folder, checkpoints.saved(folder)[-1]))
    meta = reader.read_metadata().state_dict_metadata[name]
    weights = {name: torch.empty(meta.size, dtype=meta.properties.dtype)}
    load(weights, storage_reader=reader, no_dist=True)
    return weights[name]


@pytest.mark.train
def test_a_trained_layer_gives_its_real_tensors(tiny_run):
    before = sorted(path for path in tiny_run.path.rglob("*") if path.is_file())
    layers = formats.of_run(tiny_run, machine=CPU)
    assert sorted(path for path in tiny_run.path.rglob("*") if path.is_file()) == before, "the run is left as it was"
    layer = layers["linear_fc2"]
    stored = weight_in_newest_checkpoint(tiny_run, "decoder.layers.mlp.linear_fc2.weight")[-1]
    assert torch.equal(layer.before.weight, stored), "the first of the two steps has the checkpoint's weights"
    assert 0 < (layer.weight - stored).abs().max() < 0.01, "the second has taken one step"
    assert layer.activation.shape[1] == 256 and layer.gradient.shape == (len(layer.activation), 64)
    assert 0 < layer.gradient.abs().max() < 0.1 and not torch.equal(layer.activation, layer.before.activation)
    vanished = number_formats.errors(layer.gradient, number_formats.cast(layer.gradient, number_formats.E4M3))
    assert vanished.underflow > 0.5, "why gradients need a scale"
    assert set(layers) == {"linear_proj", "linear_fc2"}
    assert (product_errors(layer)["relative_error"] < 0.2).all()


def test_the_best_are_all_that_no_reader_of_the_figure_can_tell_apart():
    errors = pd.DataFrame(
        {"relative_error": [0.0, 0.0555, 0.02661, 0.02660]},
        index=pd.MultiIndex.from_product([["gradient"], ["bf16", "delayed", "blockwise", "mxfp8"]]),
    )
    assert formats.best(errors, "gradient") == ("blockwise", "mxfp8")
