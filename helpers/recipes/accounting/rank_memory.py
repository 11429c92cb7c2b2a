"""Memory of one rank, and of a checkpoint on disk, counted from the sizes of a recipe."""

import math
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.accounting import activations
from helpers.recipes.accounting.parameter_count import outside_layers, parameter_counts, rank_parameters
from helpers.recipes.layout import Layout
from helpers.recipes.settings import Model, Precision
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

GIB = 2**30
# Not counted but set aside: on a GPU an allowance for the CUDA context, NCCL's buffers and the libraries' workspaces
# (not measured); on a CPU what Python, PyTorch and Megatron take in each rank once imported (measured: 388 MB of its
# own, beside 334 MB that all ranks share).
OVERHEAD_BYTES = {"cuda": GIB, "cpu": 400 * 2**20}
# Parameters that Megatron's FSDP has on their way at least: a floor, though its comment says "cap", halved for gathers.
# `core/distributed/fsdp/src/megatron_fsdp/megatron_fsdp.py`, suggested_communication_unit_size.
FSDP_GATHERS_AHEAD = 1_000_000_000 // 2
PARTS = ("weights", "gradients", "optimizer", "activations", "other")


@checked
def memory(recipe: "Recipe", machine: Machine | None = None, pipeline_rank: int | None = None) -> dict[str, float]:
    """Bytes on one rank at the fullest moment of a step, as the five stacked parts of `PARTS`.

    States: mixed precision as in Rajbhandari et al. 2020 (ZeRO, section 3.1), with Megatron's fp32 gradients for bf16;
    the distributed optimizer divides the optimizer's part by data × context ranks. FP8 keeps the bf16 weights and adds
    two FP8 copies of every layer matrix (one transposed), or with `--fp8-param-gather` keeps those copies alone.
    Megatron's FSDP divides weights and gradients, too, keeps gradients in the weights' type and a fp32 weight whatever
    the optimizer keeps. What is whole of them while the passes run, `gathered_bytes`, is counted with the activations
    (see `activations`); or what the optimizer lays out for its step, once they are gone, where that is more.
    A CUDA graph keeps their memory in a pool of its own, so that the optimizer's step cannot take it over: the smaller
    of the two is counted in `other` (Llama3-8B in FP8, TP2 and SP: 17 GB, where pools of 15.5 to 19.4 GB were
    measured).

    Args:
        recipe: a `recipes.Recipe`.
        machine: where it would run; None plans for GPUs with Transformer Engine.
        pipeline_rank: the pipeline stage; None takes the fullest.

    Raises:
        ValueError: a size of the recipe is none, or there is no such stage.
    """
    recipe.require()
    if pipeline_rank is None:
        return fullest(recipe, machine)
    recipe.layout.require_stage(pipeline_rank)
    return of_stage(recipe, machine, pipeline_rank)


def fullest(recipe: "Recipe", machine: Machine | None) -> dict[str, float]:
    """`memory` of the fullest stage; of those in the middle the first holds most micro-batches."""
    stages = (of_stage(recipe, machine, rank) for rank in recipe.layout.kinds_of_stages)
    return max(stages, key=lambda parts: sum(parts.values()))


def of_stage(recipe: "Recipe", machine: Machine | None, pipeline_rank: int) -> dict[str, float]:
    """`memory` of one stage."""
    model, layout, precision = recipe.model, recipe.layout, recipe.precision
    dense, experts = rank_parameters(model, layout, pipeline_rank)
    count = dense + experts
    element = activations.element_bytes(precision)
    weights, gradient = element * count, _gradient_bytes(precision, layout)
    matrices = _layer_matrices(model, layout) * layout.layers(model.num_layers, pipeline_rank)
    if precision.fp8_format:
        weights += (2 if not precision.fp8_param_gather else 2 - element) * matrices
    share, held = count, count
    if layout.distributed_optimizer:
        expert_data = max(1, layout.world_size // layout.expert_model_parallel)
        data = max(1, layout.data_parallel * layout.context_parallel)
        share = dense / data + experts / expert_data
    kept = activations.activation_bytes(recipe, machine, pipeline_rank)
    step = _step_bytes(precision, layout) * share
    if layout.megatron_fsdp:
        if eight_bits := precision.fp8_format is not None and precision.fp8_param_gather:
            weights -= matrices  # the transposed copy is made when backward needs it, and dropped with the layer
            step -= 2 * (count - matrices) * share / count
        held, weights = share, weights * share / count
        kept += gathered_bytes(model, layout, pipeline_rank, 1 if eight_bits else element, element, gradient)
        step += element * outside_layers(model, layout, pipeline_rank)
    pool = min(kept, step) if _records(recipe, machine) else 0
    return {
        "weights": weights,
        "gradients": gradient * held,
        "optimizer": _state_bytes(precision, layout) * share,
        "activations": max(kept, step),
        "other": float(OVERHEAD_BYTES["cpu" if machine and machine.device == "cpu" else "cuda"]) + pool,
    }


def gathered_bytes(model: Model, layout: Layout, pipeline_rank: int, layer: int, outside: int, gradient: int) -> float:
    """Weights and gradients that Megatron's FSDP has whole on a rank at the fullest moment, as backward begins.

    Whole weights: all outside the layers, which are never let go (`AllGatherPipeline.release_bucket`); the layer that
    runs; and the next ones, until `FSDP_GATHERS_AHEAD` parameters, or one layer, are on their way
    (`AllGatherPipeline.all_gather_params`). Whole gradients: the output layer's. Those of the layers follow as their
    activations go. Both in `core/distributed/fsdp/src/megatron_fsdp/param_and_grad_buffer.py`.

    Args:
        layer, outside, gradient: bytes of a layer's weight, of one outside the layers, and of a gradient.
    """
    layers = layout.layers(model.num_layers, pipeline_rank)
    beside = outside_layers(model, layout, pipeline_rank)
    one = (sum(rank_parameters(model, layout, pipeline_rank)) - beside) / layers
    whole = min(layers, 1 + math.ceil(max(FSDP_GATHERS_AHEAD, one) / one))
    is_last = pipeline_rank == layout.pipeline_parallel - 1
    output = is_last * model.vocab_size * model.hidden_size / layout.tensor_parallel
    return outside * beside + layer * one * whole + gradient * output


def _records(recipe: "Recipe", machine: Machine | None) -> bool:
    return recipe.speed.cuda_graph and (machine is None or machine.transformer_engine and machine.device == "cuda")


def _gradient_bytes(precision: Precision, layout: Layout) -> int:
    """Of each parameter: Megatron adds gradients up in fp32, unless they are reduced in 16 bits. Its FSDP adds them up
    in the weights' own type (`--megatron-fsdp-main-grads-dtype auto`)."""
    sixteen = precision.dtype == "fp16" or precision.grad_reduce_in_bf16
    return 2 if sixteen or layout.megatron_fsdp and precision.dtype != "fp32" else 4


def _state_bytes(precision: Precision, layout: Layout) -> int:
    """Of each parameter that a rank steps: fp32 weight and two moments. Megatron's FSDP has a fp32 weight in any case
    (`main_weight_buffer` in `megatron_fsdp/param_and_grad_buffer.py`)."""
    if layout.megatron_fsdp:
        return 12 - 4 * precision.moments_in_bf16
    if precision.dtype == "fp32":
        return 8
    return 6 if _adam_keeps_remainders(precision) else 12 - 4 * precision.moments_in_bf16


def _step_bytes(precision: Precision, layout: Layout) -> int:
    """Of each parameter that a rank steps, during the step: fp32 copies of 16-bit gradients, and with
    `--fp8-param-gather` the new weights in bf16 before they are cast (measured: 24 GB for 4 billion of them).
    With moments in bf16, Megatron's FSDP makes no copies: "always uses decoupled_grad" (`core/optimizer/optimizer.py`).
    """
    reads_sixteen = precision.moments_in_bf16 if layout.megatron_fsdp else _adam_keeps_remainders(precision)
    copies = _gradient_bytes(precision, layout) == 2 and not reads_sixteen
    return 4 * copies + 2 * (precision.fp8_format is not None and precision.fp8_param_gather)


def _adam_keeps_remainders(precision: Precision) -> bool:
    """Transformer Engine's Adam keeps of a fp32 weight only the 2 bytes that bf16 left out, and reads 16-bit gradients.

    See `use_precision_aware_optimizer_no_fp8_or_ds_fp8` in Megatron's `core/optimizer/optimizer_config.py`.
    """
    return precision.moments_in_bf16 and (precision.fp8_format is None or precision.fp8_recipe == "delayed")


def _layer_matrices(model: Model, layout: Layout) -> float:
    """Weights of one layer's matrices on one rank: what FP8 computes with."""
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    matrices = 3 if model.activation == "swiglu" else 2
    attention = (model.hidden_size * (q + 2 * k) + q * model.hidden_size) / layout.tensor_parallel
    mlp = matrices * model.hidden_size * model.ffn_size
    if model.num_experts:
        expert_tensor = layout.expert_tensor_parallel or layout.tensor_parallel
        return attention + mlp * model.num_experts / (layout.expert_parallel * expert_tensor)
    return attention + mlp / layout.tensor_parallel


@checked
def checkpoint_bytes(recipe: "Recipe") -> int:
    """Bytes of one checkpoint on disk, whatever the layout.

    The weights as they are computed with (2 bytes in mixed precision) and the optimizer's three fp32 numbers for each:
    the master copy, Adam's first and second moment. In fp32 the weights are the master copy; the distributed optimizer
    writes it a second time. Megatron-FSDP writes one copy, in fp32.
    """
    recipe.require()
    count = sum(parameter_counts(recipe.model).values())
    if recipe.layout.megatron_fsdp:
        return count * 12
    if recipe.precision.dtype == "fp32":
        return count * (16 if recipe.layout.distributed_optimizer else 12)
    return count * 14
