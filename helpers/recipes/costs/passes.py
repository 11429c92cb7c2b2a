"""Everything that is bound by memory: bytes that norms, activations, dropout, the loss and the optimizer move.

Counted kernel by kernel as Megatron-core 0.19.2 and Transformer Engine 2.20 launch them (the timelines under
`notebooks/recorded/h200/timelines`), e bytes an element: a norm reads and writes h elements a token, its backward reads
two and writes one, and so on. Two kernels reach only half of the bandwidth there (RoPE with its copies, and SwiGLU's
backward): their bytes count twice.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.accounting import activations
from helpers.recipes.changes import acting
from helpers.recipes.command import loss_kernel
from helpers.recipes.costs.exchange import context_way
from helpers.recipes.costs.gemms import tokens

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

# Bytes a logit, forward and backward. "te": the logits read twice and overwritten by their gradient, which is scaled
# once more. "native": 52, as many as fusions/fused_cross_entropy.py reads and writes in fp32. None:
# tensor_parallel/cross_entropy.py, each operation by itself.
LOSS_BYTES = {"te": 10, "native": 52, None: 66}
# On a CPU nothing is fused, and each operation reads and writes its tensors whole. The loss of fp32 logits: max, a
# difference, exp, a sum, a quotient, a product. An activation, passes forward and backward over its f elements:
# fusions/fused_bias_gelu.py and fused_bias_swiglu.py, operation by operation.
CPU_LOSS_BYTES = 40
CPU_ACTIVATION = {"gelu": (23, 45), "swiglu": (5, 29)}
# Adam in fp32 reads 16 and writes 14 a parameter; the gradient's norm, its clipping and zeroing take 16 more.
# Transformer Engine's with moments in 16 bits unpacks and packs them: as much as 50 in the H200's timeline.
ADAM_BYTES, ADAM_BYTES_MOMENTS_IN_BF16 = 46, 50
# What our changes save, from their rows in helpers/ranks/repairs/table.py, seconds an element on an H200.
GELU_SECONDS, CAST_SECONDS = 0.3e-12, 60e-12
SPLIT_PASSES = 5  # over the gradients of QKV
RECORDED_KERNELS = {"forward": 19, "backward": 34}  # of a GPT layer
FEWER_WITHOUT_BIAS, MORE_IN_FP8 = 12, 36
COLLECTIVES = {True: 10, False: 4}  # of tensor parallelism, with and without sequence parallelism
# Kernels of context parallelism in a direction: of each step of a ring (send, attention, two corrections), of an
# all-gather (two gathers, their order, two halves with a correction each), of all-to-alls (three for each of q, k, v
# and the result: transposed, sent, put in order). Transformer Engine 2.20, dot_product_attention/context_parallel.py.
RING_STEP, EXCHANGES = 4, {"all_gather": 12, "a2a": 12}
ROUTING, EXPERT = 15, 2  # kernels that route and sort tokens in a direction, and those of each expert


@dataclass(frozen=True)
class Passes:
    """One micro-batch of one layer on one rank: bytes through memory, random numbers drawn, seconds beside both."""

    bytes: float
    random: float = 0.0
    seconds: float = 0.0


def forward(recipe: "Recipe", machine: Machine | None) -> Passes:
    """Norms, activation, dropout, residual sums, RoPE."""
    e, h, spread, q, k, f, up, t = _sizes(recipe)
    model, ours = recipe.model, acting(recipe, machine)
    residual = (3 * e + (model.dropout > 0)) * h
    moved = (2 * 2 * e * h + 2 * residual) / spread
    visited = CPU_ACTIVATION[model.activation][0] * f if _on_cpu(machine) else f + up
    moved += e * visited / t * _visits(recipe)
    if model.position_embedding == "rope":
        moved += 2 * 4 * e * (q + k) / t
    slower = 0.0 if model.activation != "gelu" or "gelu" in ours else GELU_SECONDS * f / t
    drawn = 2 * h / spread if model.dropout else 0.0
    count = tokens(recipe)
    return Passes(count * (moved + _travel(recipe)), count * drawn, count * slower)


def backward(recipe: "Recipe", machine: Machine | None) -> Passes:
    """The same in reverse, with the sums of gradients of biases."""
    e, h, spread, q, k, f, up, t = _sizes(recipe)
    model, ours = recipe.model, acting(recipe, machine)
    moved = (2 * 3 * e * h + 2 * 3 * e * h) / spread  # norms, and the residual stream's gradient added to
    if model.dropout:
        moved += 2 * (2 * e + 1) * h / spread
    if model.linear_bias:
        moved += (2 * e * h / spread) + e * (q + 2 * k) / t + e * f / t
    swiglu = model.activation == "swiglu"
    visited = CPU_ACTIVATION[model.activation][1] if _on_cpu(machine) else 10 if swiglu else 3
    moved += e * visited * f / t * _visits(recipe)
    if model.position_embedding == "rope":
        moved += 2 * 3 * e * (q + k) / t
    if "split" not in ours and machine_has_engine(machine):
        moved += SPLIT_PASSES * e * (q + 2 * k) / t
    slower = 0.0 if swiglu or "gelu" in ours else GELU_SECONDS * f / t
    count = tokens(recipe)
    return Passes(count * (moved + _travel(recipe)), 0.0, count * slower)


def casts(recipe: "Recipe") -> Passes:
    """What FP8 adds: a scale (a pass of its own unless it comes from earlier steps) and a cast with its transpose for
    every input of a product, forward and backward, and the weights' transposes."""
    if not recipe.precision.fp8_format:
        return Passes(0.0)
    _, h, _, q, k, f, up, t = _sizes(recipe)
    cast = 4 if recipe.precision.fp8_recipe == "delayed" else 6
    split = (cast * (q + f) + cast * (up + q + 2 * k)) / t
    whole = (4 + 4 + 3 * cast) * h
    weights = 2 * sum(n * m for n, m in ((q + 2 * k, h), (h, q), (up, h), (h, f))) / t
    return Passes(tokens(recipe) * (split + whole) + weights)


def loss(recipe: "Recipe", machine: Machine | None) -> float:
    """Bytes of the loss of one micro-batch, forward and backward, on a rank of the last stage."""
    each = CPU_LOSS_BYTES if _on_cpu(machine) else LOSS_BYTES[loss_kernel(recipe, machine)]
    return tokens(recipe) * recipe.model.vocab_size / recipe.layout.tensor_parallel * each


def optimizer(recipe: "Recipe", machine: Machine | None, parameters: float, share: float) -> Passes:
    """One step: `share` of the rank's `parameters` is stepped here, all of their gradients are zeroed."""
    precision = recipe.precision
    each = ADAM_BYTES_MOMENTS_IN_BF16 if precision.moments_in_bf16 else ADAM_BYTES
    flat = precision.fp8_format and precision.fp8_param_gather and "cast" not in acting(recipe, machine)
    return Passes((each - 4) * share + 4 * parameters, 0.0, CAST_SECONDS * share if flat else 0.0)


def unfused_gradients(recipe: "Recipe", machine: Machine | None, weights: float) -> float:
    """Bytes a micro-batch where weights' gradients are computed first and added up in fp32 after that."""
    fused = (
        "gradient_fusion" in acting(recipe, machine) and "--no-gradient-accumulation-fusion" not in recipe.extra_flags
    )
    return 0.0 if fused else 12.0 * weights


def kernels(recipe: "Recipe", direction: str) -> float:
    """Kernels of one layer: what a processor launches one by one where no CUDA graph is recorded."""
    model = recipe.model
    number = RECORDED_KERNELS[direction]
    layout = recipe.layout
    number -= FEWER_WITHOUT_BIAS / 2 * (not model.linear_bias) - 3 * (model.position_embedding == "rope")
    number += MORE_IN_FP8 / 2 * (recipe.precision.fp8_format is not None)
    number += COLLECTIVES[layout.sequence_parallel] / 2 * (layout.tensor_parallel > 1)
    if layout.context_parallel > 1:
        number += EXCHANGES.get(context_way(recipe), RING_STEP * (layout.context_parallel - 1))
    if model.num_experts:
        grouped = "--moe-grouped-gemm" in recipe.extra_flags
        number += ROUTING + EXPERT * (1 if grouped else model.num_experts / layout.expert_parallel)
    return number


def machine_has_engine(machine: Machine | None) -> bool:
    return machine is None or (machine.device == "cuda" and machine.transformer_engine)


def _on_cpu(machine: Machine | None) -> bool:
    return machine is not None and machine.device == "cpu"


def _sizes(recipe: "Recipe"):
    model, layout = recipe.model, recipe.layout
    e = activations.element_bytes(recipe.precision)
    spread = layout.tensor_parallel if layout.sequence_parallel else 1
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    f = model.ffn_size
    return e, model.hidden_size, spread, q, k, f, 2 * f if model.activation == "swiglu" else f, layout.tensor_parallel


def _visits(recipe: "Recipe") -> int:
    return recipe.model.moe_router_topk if recipe.model.num_experts else 1


def _travel(recipe: "Recipe") -> float:
    """Bytes a token to sort it by expert, and back: each copy read and written, twice; every rank that shares an expert
    does so with the tokens of all of them."""
    model, layout = recipe.model, recipe.layout
    if not model.num_experts:
        return 0.0
    shared = layout.expert_tensor_parallel or layout.tensor_parallel
    return 4 * activations.element_bytes(recipe.precision) * model.hidden_size * model.moe_router_topk * shared
