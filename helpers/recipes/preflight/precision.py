"""What the GPUs and Transformer Engine demand of a recipe: number formats, and the kernels that a layout needs."""

import os
from collections.abc import Iterator, Mapping
from math import gcd, lcm
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.preflight.problem import Problem, error, nearest_multiple, warning
from helpers.show import numbers

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

FP8_RECIPE_NEEDS = {"blockwise": ((9, 0), "Hopper"), "mxfp8": ((10, 0), "Blackwell")}
MXFP8_ENDS = (12, 0)  # in Transformer Engine 2.20: `_compute_mxfp8_support` in its pytorch/quantization.py


def precision(recipe: "Recipe", machine: Machine) -> Iterator[Problem]:
    """Number formats against the GPU, and what needs Transformer Engine."""
    p, lay = recipe.precision, recipe.layout
    if p.fp8_format is not None:
        yield from fp8(recipe, machine)
    if p.fp8_param_gather and p.fp8_format and not lay.distributed_optimizer:
        why = "The distributed optimizer keeps the fp32 copy that 8-bit weights are rounded from."
        change = "distributed_optimizer=True, or fp8_param_gather=False."
        yield error("fp8_param_gather without distributed_optimizer", why, change)
    if p.moments_in_bf16 and not (lay.distributed_optimizer and machine.transformer_engine):
        why = "Only Transformer Engine's Adam does that, and only on the distributed optimizer's shares."
        yield error("moments_in_bf16 by itself", why, "distributed_optimizer=True on a GPU, or moments_in_bf16=False.")
    if p.moments_in_bf16 and p.fp8_param_gather and p.fp8_format and p.fp8_recipe == "delayed":
        why = "Transformer Engine's Adam writes weights of that recipe in 8 bits, and takes fp32 moments only."
        yield error('moments_in_bf16 with fp8_recipe="delayed"', why, "moments_in_bf16=False.")
    if p.dtype == "bf16" and not machine.supports_bf16:
        gpu = next(gpu for gpu in machine.gpus if not gpu.supports_bf16)
        why = f"{gpu.name} (compute capability {_capability(gpu)}) computes bf16 without tensor cores: slowly."
        yield warning(f'dtype="bf16" on {gpu.name}', why, 'dtype="fp16".')
    if p.dtype == "bf16" and machine.device == "cpu" and not machine.fast_cpu_bf16:
        why = (
            "PyTorch multiplies bf16 matrices fast only with AVX-512, or on Arm with bf16 instructions; else a loop "
            "does it. A step of notebook 04's small Llama takes 9 times as long as in fp32 (two cores of an EPYC)."
        )
        yield warning(f'dtype="bf16" on {machine.name}', why, 'dtype="fp32".')
    if machine.device == "cuda" and not machine.transformer_engine:
        install = "install Transformer Engine (uv sync --extra gpu)"
        why = (
            "Megatron's own layers train instead, without FP8, CUDA graphs and fused attention. GPT3-345M on an H200, "
            "micro-batch 8: 63,172 instead of 71,135 tokens/s, and 33.9 instead of 14.4 GB."
        )
        yield warning("a GPU without Transformer Engine", why, install[0].upper() + install[1:] + ".")
        if lay.context_parallel > 1:
            why = "Megatron's own attention sees only its rank's part of the sequence."
            asked = f"context_parallel={lay.context_parallel} without Transformer Engine"
            yield error(asked, why, f"context_parallel=1, or {install}.")
        if lay.sequence_parallel and lay.tensor_parallel > 1:
            why = "PyTorch's norms do not tell Megatron that each rank's gradient covers only a part of the sequence."
            yield error("sequence_parallel without Transformer Engine", why, f"sequence_parallel=False, or {install}.")
    yield from fsdp(recipe, machine)
    connections = os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    split = (lay.tensor_parallel > 1 or lay.context_parallel > 1) and not lay.megatron_fsdp
    if machine.device == "cuda" and split and connections != "1" and machine.gpus[0].compute_capability < (10, 0):
        why = f"Before Blackwell, Megatron demands 1 with {lay.name}: kernels must start in the order they are issued."
        change = "unset CUDA_DEVICE_MAX_CONNECTIONS: the recipe sets it."
        yield error(f"CUDA_DEVICE_MAX_CONNECTIONS={connections} in the environment", why, change)


def fsdp(recipe: "Recipe", machine: Machine) -> Iterator[Problem]:
    """What Megatron's FSDP demands beside it (arguments.py, `validate_args`), and what nobody has tried with it."""
    lay = recipe.layout
    if not lay.megatron_fsdp:
        return
    if not lay.distributed_optimizer:
        why = "FSDP is the distributed optimizer and more: Megatron would turn that on by itself, with a warning."
        yield error("megatron_fsdp without distributed_optimizer", why, "distributed_optimizer=True as well.")
    if lay.data_parallel * lay.context_parallel == 1:
        why = "It shares the model out over the data-parallel ranks, and there is one: that rank holds all of it."
        more = lay.world_size * 2
        yield warning("megatron_fsdp on one data-parallel rank", why, f"processes={more}, or megatron_fsdp=False.")
    if lay.pipeline_parallel > 1:
        why = "A stage would gather its weights anew for each micro-batch; we have not run the two together."
        yield warning(f"megatron_fsdp with pipeline_parallel={lay.pipeline_parallel}", why, "pipeline_parallel=1.")
    if machine.device == "cuda" and os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS") == "1":
        why = "Megatron demands more with FSDP: in one queue the gathered weights would wait for the products before."
        change = "unset CUDA_DEVICE_MAX_CONNECTIONS: the recipe sets it."
        yield error("CUDA_DEVICE_MAX_CONNECTIONS=1 in the environment", why, change)


def speed(recipe: "Recipe", machine: Machine) -> Iterator[Problem]:
    """What makes a GPU faster, against the layout and the libraries; a CPU has none of it, whatever is asked."""
    s, lay = recipe.speed, recipe.layout
    if s.cross_entropy_fusion not in (None, "native", "te"):
        yield error(f'cross_entropy_fusion="{s.cross_entropy_fusion}"', "There are two kernels.", '"te" or "native".')
    if machine.device == "cpu":
        return
    if s.cuda_graph and lay.megatron_fsdp:
        why = "FSDP takes memory for each layer's weights and gives it back; we have not run it in a recorded step."
        yield error("cuda_graph with megatron_fsdp", why, "cuda_graph=False.")
    if s.overlap_communication and not lay.distributed_optimizer:
        why = "Weights are gathered, and so can arrive late, only where the distributed optimizer splits them."
        change = "distributed_optimizer=True, or overlap_communication=False."
        yield error("overlap_communication without distributed_optimizer", why, change)
    if s.overlap_tensor_parallel and not (lay.sequence_parallel and lay.tensor_parallel > 1):
        why = "It takes all-gathers and reduce-scatters to pieces, and only sequence parallelism has those."
        change = "tensor_parallel=2, sequence_parallel=True, or overlap_tensor_parallel=False."
        yield error(f"overlap_tensor_parallel with {lay.name}", why, change)
    if s.overlap_tensor_parallel:
        yield from needs_transformer_engine("overlap_tensor_parallel", machine)


def cuda_graph(recipe: "Recipe", machine: Machine, parts: Mapping[str, float]) -> Iterator[Problem]:
    """Where a step cannot be recorded, and where nobody has measured one. `recipes.fit` records none there.

    `parts` is what `accounting.memory` says of the recipe on this machine, in bytes.
    """
    if not recipe.speed.cuda_graph or machine.device == "cpu":
        return
    yield from needs_transformer_engine("cuda_graph", machine)
    if recipe.model.num_experts:
        why = "Each step sends another number of tokens to each expert, and a recorded step cannot change its sizes."
        yield error(f"cuda_graph with num_experts={recipe.model.num_experts}", why, "cuda_graph=False.")
    untried = {
        recipe.layout.name: recipe.layout.pipeline_parallel > 1,
        'dtype="fp16"': recipe.precision.dtype == "fp16",
        f'recompute="{recipe.batch.recompute}"': recipe.batch.recompute is not None,
    }
    for what in (what for what, asked in untried.items() if asked):
        yield warning(
            f"cuda_graph with {what}", "Nobody has measured this here.", "cuda_graph=False if it hangs or fails."
        )
    size = numbers.decimal_bytes
    need, have = sum(parts.values()), min(gpu.memory_bytes for gpu in machine.gpus)
    if recipe.schedule.eval_iters and need <= have < need + parts["activations"]:
        why = (
            f"The estimate, {size(need)} of {size(have)}, leaves out what recorded steps take beside their tensors. "
            "With evaluations between them GPT3-345M took 44.6 GB where 41.4 GB are enough kernel by kernel, and four "
            "layers of it 9.7 GB instead of 4.3 GB."
        )
        yield warning("cuda_graph with little memory left", why, "eval_iters=0 or cuda_graph=False if the memory ends.")


def needs_transformer_engine(setting: str, machine: Machine) -> Iterator[Problem]:
    if not machine.transformer_engine:
        why = "It takes Transformer Engine's random numbers and products, which are not installed."
        yield error(f"{setting} without Transformer Engine", why, f"uv sync --extra gpu, or {setting}=False.")


def fp8(recipe: "Recipe", machine: Machine) -> Iterator[Problem]:
    m, p, lay, b = recipe.model, recipe.precision, recipe.layout, recipe.batch
    asked = f'fp8_format="{p.fp8_format}" on {machine.name}'
    without = f"fp8_format=None trains in {p.dtype}"
    if machine.device == "cpu":
        yield error(asked, "FP8 matrix products exist on GPUs only.", f"{without}, or recipe.scaled_to(machine).")
        return
    if not machine.supports_fp8:
        gpu = next(gpu for gpu in machine.gpus if not gpu.supports_fp8)
        why = f"FP8 needs compute capability 8.9 (Ada), 9.0 (Hopper) or newer; {gpu.name} has {_capability(gpu)}."
        yield error(asked, why, f"{without}.")
    elif p.fp8_recipe in FP8_RECIPE_NEEDS:
        needed, generation = FP8_RECIPE_NEEDS[p.fp8_recipe]
        asked, change = f'fp8_recipe="{p.fp8_recipe}" on {machine.name}', 'fp8_recipe="tensorwise" or "delayed".'
        if weaker := [gpu for gpu in machine.gpus if gpu.compute_capability < needed]:
            wanted = ".".join(map(str, needed))
            why = f"It needs compute capability {wanted} ({generation}); {weaker[0].name} has {_capability(weaker[0])}."
            yield error(asked, why, change)
        elif p.fp8_recipe == "mxfp8" and (newer := [g for g in machine.gpus if g.compute_capability >= MXFP8_ENDS]):
            why = (
                "Transformer Engine does not have all its matrix products for compute capability 12.0 and newer yet; "
                f"{newer[0].name} has {_capability(newer[0])}."
            )
            yield error(asked, why, change)
    if not machine.transformer_engine:
        why = "Megatron computes FP8 through Transformer Engine, which is not installed."
        asked = f'fp8_format="{p.fp8_format}" without Transformer Engine'
        yield error(asked, why, f"uv sync --extra gpu, or {without}.")
    tp, q = lay.tensor_parallel, m.num_attention_heads * m.head_size
    block, heads = 16 * tp, m.num_attention_heads
    own = m.kv_channels is None  # then the queries are as wide as the model
    for name, size, step in (
        ("hidden_size", m.hidden_size, lcm(block, heads) if own else block),
        ("ffn_hidden_size", m.ffn_size, block),
        ("kv_channels", 0 if own else q, block // gcd(block, heads)),
    ):
        if size % (16 * tp) and size % tp == 0:
            share = f"{size} / {tp} ranks" if tp > 1 else str(size)
            why = f"FP8 matrix products work in blocks of 16, and {share} is not a multiple of 16."
            change = f"{name}={nearest_multiple(size if name != 'kv_channels' else m.head_size, step)}."
            yield error(f'fp8_format="{p.fp8_format}" with {name} {size}', why, change)
    tokens = b.micro_batch_size * m.sequence_length // lay.context_parallel
    if tokens % 8:
        why = f"FP8 matrix products take tokens in blocks of 8, and a micro-batch has {tokens} on each rank."
        length = nearest_multiple(m.sequence_length, 8 * lay.context_parallel)
        yield error(f'fp8_format="{p.fp8_format}" with {tokens} tokens', why, f"sequence_length={length}.")


def _capability(gpu) -> str:
    return ".".join(map(str, gpu.compute_capability))
