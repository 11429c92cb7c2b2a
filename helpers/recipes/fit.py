"""A recipe at the size that a machine carries, its architecture kept."""

from dataclasses import replace
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import candidates, costs
from helpers.recipes.layout import Layout
from helpers.recipes.settings import Batch, Model, Precision, Speed
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

SMALL = "_small"
ROOM = 0.9  # of a GPU's memory: for a recipe that is to run at the first try


def fit(recipe: "Recipe", machine: Machine) -> "Recipe":
    """The same architecture at a size that trains on `machine`.

    On a CPU: 4 layers of width 128 in fp32 with a vocabulary of 4,096, grouped queries, gated MLP, rotary or learned
    positions and untied embeddings kept as they are. On GPUs: the whole model wherever a layout holds it, in the one
    that `recipes.costs` predicts to be the fastest (if the recipe asks for no layout of its own); where none does,
    width, depth and sequence are halved until one does. fp16 stands in for bf16 before Ampere, bf16 for FP8 where the
    GPU has none. A CUDA graph is left out where `preflight.precision.cuda_graph` has anything to say against it, or its
    pool takes the room. A model made smaller has `_small` behind its name: it is not the one that it is named after.

    Raises:
        ValueError: for GPUs too small for the smallest of these; for another size where training is to begin with
            pretrained weights.
    """
    if machine.device == "cpu":
        _refuse_another_size(recipe, machine)
        return _to_cpu(recipe)
    precision = recipe.precision
    if precision.fp8_format and not (machine.supports_fp8 and machine.transformer_engine):
        precision = replace(precision, fp8_format=None)
    if not machine.transformer_engine:
        precision = replace(precision, moments_in_bf16=False)
    if precision.dtype == "bf16" and not machine.supports_bf16:
        precision = replace(precision, dtype="fp16")
    shrunk = replace(recipe, precision=precision, scaled_for=machine.name)
    while True:
        if found := _fastest(shrunk, machine):
            return found
        _refuse_another_size(recipe, machine)
        if shrunk.model.hidden_size <= 512 or shrunk.model.num_attention_heads < 2:
            raise ValueError(
                f"{recipe.name} does not fit {machine.name} even at width {shrunk.model.hidden_size}: "
                "train on the CPU with scaled_to('cpu')."
            )
        shrunk = replace(shrunk, model=_halved(shrunk.model), name=recipe.name + SMALL)


def _refuse_another_size(recipe: "Recipe", machine: Machine) -> None:
    if recipe.pretrained is not None:
        raise ValueError(
            f"{recipe.name} begins with pretrained weights, and on {machine.name} scaled_to would make a smaller "
            "model: train it as it is, or take with_(pretrained=None) first."
        )


def _fastest(recipe: "Recipe", machine: Machine) -> "Recipe | None":
    """The fastest layout that fits, as `recipes.costs` predicts it; a layout that the recipe asks for is kept."""
    asked = recipe.layout not in (Layout(), Layout(distributed_optimizer=True))
    tried = candidates.micro_batches(recipe, recipe.layout, machine, ROOM) if asked else None
    tried = candidates.candidates(recipe, machine, ROOM) if tried is None else tried
    fitting = [one.recipe for one in tried if one.fits]
    rates = costs.nearest(machine)
    return min(fitting, key=lambda one: costs.step(one, machine, rates).seconds, default=None)


@checked
def bf16_or_fp32(machine: Machine) -> str:
    """The `dtype` of a model that is to train in bf16: "fp32" on a CPU where that is slow, said in one sentence."""
    if machine.device == "cuda" or machine.fast_cpu_bf16:
        return "bf16"
    print("This CPU has neither AVX-512 nor Arm's bf16 instructions: bf16 would be slow, so the model trains in fp32.")
    return "fp32"


def _to_cpu(recipe: "Recipe") -> "Recipe":
    model = recipe.model
    heads = 4 if model.num_query_groups is None else 8
    small = replace(
        model,
        num_layers=4,
        hidden_size=128,
        num_attention_heads=heads,
        num_query_groups=None if model.num_query_groups is None else 2,
        ffn_hidden_size=None if model.ffn_hidden_size is None else 448,
        sequence_length=128,
        vocab_size=4096,
        dropout=0.0,
        kv_channels=None,
        max_positions=None,
    )
    schedule = replace(recipe.schedule, train_iters=100, lr=2e-3, min_lr=2e-4, lr_warmup_iters=10, eval_interval=1000)
    return replace(
        recipe,
        name=recipe.name + SMALL,
        model=small,
        layout=recipe.layout if recipe.layout.world_size > 1 else Layout(),
        precision=Precision(dtype="fp32"),
        speed=Speed(),
        batch=Batch(micro_batch_size=4, global_batch_size=8),
        schedule=schedule,
        checkpoints=replace(recipe.checkpoints, save_interval=None),
        tokenizer="bpe-4096",
        scaled_for="cpu",
    )


def _halved(model: Model) -> Model:
    """Half as deep, wide and long, but no less than 2 layers and 1,024 tokens where the model has as many."""
    return replace(
        model,
        num_layers=min(model.num_layers, max(2, model.num_layers // 2)),
        hidden_size=model.hidden_size // 2,
        num_attention_heads=model.num_attention_heads // 2,
        num_query_groups=model.num_query_groups and max(1, model.num_query_groups // 2),
        sequence_length=min(model.sequence_length, max(1024, model.sequence_length // 2)),
        ffn_hidden_size=model.ffn_hidden_size and model.ffn_hidden_size // 2,
    )
