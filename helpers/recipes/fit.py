"""A recipe at the size that a machine carries, its architecture kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import accounting
from helpers.recipes.layout import Layout
from helpers.recipes.preflight import precision as precision_rules
from helpers.recipes.settings import Batch, Model, Precision, Speed

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

SMALL = "_small"


def fit(recipe: "Recipe", machine: Machine) -> "Recipe":
    """The same architecture at a size that trains on `machine`.

    On a CPU: 4 layers of width 128 in fp32 with a vocabulary of 4,096, grouped queries, gated MLP, rotary or learned
    positions and untied embeddings kept as they are. On GPUs: the whole model where it fits, with the largest
    micro-batch, then recomputation, then as many GPUs as share the batch evenly, with the distributed optimizer (if the
    recipe asks for no layout of its own); where not even that fits, width, depth and sequence are halved until it does.
    fp16 stands in for bf16 before Ampere, bf16 for FP8 where the GPU has none. A CUDA graph is left out where
    `preflight.precision.cuda_graph` has anything to say against it, or its pool takes the room. A model made smaller
    has `_small` behind its name: it is not the one that it is named after.

    Raises:
        ValueError: for GPUs too small for the smallest of these.
    """
    if machine.device == "cpu":
        return _to_cpu(recipe)
    precision = recipe.precision
    if precision.fp8_format and not (machine.supports_fp8 and machine.transformer_engine):
        precision = replace(precision, fp8_format=None)
    if not machine.transformer_engine:
        precision = replace(precision, moments_in_bf16=False)
    if precision.dtype == "bf16" and not machine.supports_bf16:
        precision = replace(precision, dtype="fp16")
    room = 0.9 * min(gpu.memory_bytes for gpu in machine.gpus)
    shrunk = replace(recipe, precision=precision, scaled_for=machine.name)
    gpus, samples = len(machine.gpus), recipe.batch.global_batch_size
    spread = Layout(processes=max(n for n in range(1, gpus + 1) if samples % n == 0), distributed_optimizer=True)
    unsplit = recipe.layout in (Layout(), Layout(distributed_optimizer=True))
    layouts = [recipe.layout, spread] if unsplit and spread.processes > 1 else [recipe.layout]
    while True:
        for layout in layouts:
            for batch in _batches(replace(shrunk, layout=layout)):
                for candidate in _with_graph_and_without(replace(shrunk, layout=layout, batch=batch), machine):
                    if sum(accounting.memory(candidate, machine).values()) <= room:
                        return candidate
        if shrunk.model.hidden_size <= 512:
            raise ValueError(
                f"{recipe.name} does not fit {machine.name} even at width {shrunk.model.hidden_size}: "
                "train on the CPU with scaled_to('cpu')."
            )
        shrunk = replace(shrunk, model=_halved(shrunk.model), name=recipe.name + SMALL)


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


def _with_graph_and_without(recipe: "Recipe", machine: Machine) -> Iterator["Recipe"]:
    """The recipe with its CUDA graph, unless `precision.cuda_graph` has anything to say against it; then without."""
    if recipe.speed.cuda_graph:
        parts = accounting.memory(recipe, machine)
        if not any(precision_rules.cuda_graph(recipe, machine, parts)):
            yield recipe
    yield recipe.with_(cuda_graph=False)


def _batches(recipe: "Recipe") -> Iterator[Batch]:
    """Batches from the fastest to the most frugal: micro-batches that divide the global batch, then recomputation."""
    per_rank = recipe.batch.global_batch_size // recipe.layout.data_parallel
    sizes = [size for size in range(recipe.batch.micro_batch_size, 0, -1) if per_rank % size == 0]
    for recompute in dict.fromkeys((recipe.batch.recompute, "selective", "full")):
        for size in sizes if recompute != "full" else sizes[-1:]:
            yield replace(recipe.batch, micro_batch_size=size, recompute=recompute)


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
