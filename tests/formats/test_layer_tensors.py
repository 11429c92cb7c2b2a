"""What FP8 costs a layer: measured on made tensors with known flaws, then on a layer that was really trained."""

import pytest
import torch
from records import make_run
from torch.distributed.checkpoint import FileSystemReader, load

from helpers import formats
from helpers.formats import cast_errors, decides, normal, number_formats, product_errors
from helpers.formats.layer_tensors import KINDS, SCALINGS, Linear
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


def test_every_tensor_is_cast_in_each_format_under_each_scaling():
    table = cast_errors(made())
    assert list(table.index) == [(kind, format) for kind in KINDS for format in ("E4M3", "E5M2")]
    assert tuple(table.columns) == SCALINGS
    coarser = table.xs("E5M2", level="element format") / table.xs("E4M3", level="element format")
    assert coarser.drop(index="activation").stack().between(1.8, 2.2).all(), "one mantissa bit less: twice the error"


def test_a_scale_alone_changes_nothing_in_normal_numbers():
    """What a figure of formats under scalings would credit to blocks is the format's."""
    table = product_errors(normal(made()))
    assert (table.max(axis=1) / table.min(axis=1) < 1.03).all()
    assert table.loc[("wgrad", "E5M2")].mean() > 1.4 * table.loc[("wgrad", "E4M3")].mean()


def test_scale_or_format_whichever_changes_the_error_more():
    assert decides(cast_errors(normal(made()))) == "the element format"
    drowned = cast_errors(made())
    drowned.loc[("activation", "E4M3"), "tensorwise"] = 1.0
    assert decides(drowned) == "the scale"


def test_a_gemm_is_judged_against_the_exact_one():
    layer = made()
    table = product_errors(layer)
    assert list(table.index) == [("fprop", "none")] + [(g, f) for g in ("dgrad", "wgrad") for f in ("E4M3", "E5M2")]
    scaling = number_formats.CurrentScaling()
    gradient = number_formats.cast(layer.gradient.T, number_formats.E5M2, scaling).values.double()
    activation = number_formats.cast(layer.activation.T, number_formats.E4M3, scaling).values.double()
    exact = layer.gradient.double().T @ layer.activation.double()
    by_hand = number_formats.relative_error(gradient @ activation.T, exact)
    assert table.loc[("wgrad", "E5M2"), "tensorwise"] == pytest.approx(by_hand, rel=1e-3)


def test_delayed_scaling_remembers_the_step_before():
    quiet, loud = made(), made()
    loud = Linear("linear_fc2", loud.weight, loud.activation * 4, loud.gradient, before=quiet)
    errors = cast_errors(loud).loc[("activation", "E4M3")]
    assert errors["delayed"] > 0.5 > errors["tensorwise"], "all that is above the old largest value is cut"


def test_normal_numbers_have_the_layers_shapes_and_spreads():
    layer = made()
    made_up = normal(layer)
    for kind in KINDS:
        one, other = getattr(layer, kind), getattr(made_up, kind)
        assert one.shape == other.shape and float(other.std()) == pytest.approx(float(one.std()), rel=0.05)


def test_a_run_without_a_checkpoint_is_told(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="has no whole checkpoint. Train with save_interval set."):
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
    assert (product_errors(layer) < 0.2).all(axis=None)
