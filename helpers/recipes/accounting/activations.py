"""What one rank keeps of a forward pass for the backward pass, in bytes, counted tensor by tensor.

After Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4, for the
layers that Megatron builds today: flash attention with Transformer Engine on a GPU, plain attention, which keeps the
scores, elsewhere and in fp32.
"""

from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.command import loss_kernel
from helpers.recipes.layout import Layout
from helpers.recipes.settings import Model, Precision

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


def element_bytes(precision: Precision) -> int:
    """Bytes of one weight or activation: FP8 runs keep both in bf16 outside the matrix products."""
    return 4 if precision.dtype == "fp32" else 2


def activation_bytes(recipe: "Recipe", machine: Machine | None, pipeline_rank: int) -> float:
    """Bytes kept for the backward pass by one rank of a pipeline stage, at the fullest moment of a step.

    A stage holds one micro-batch for every stage from itself to the last (1F1B; Narayanan et al. 2021, section 2.2),
    in chunks with the interleaved schedule. The last stage adds the logits. With full recomputation each layer keeps
    its input alone, and one layer at a time its insides.
    """
    model, layout, batch = recipe.model, recipe.layout, recipe.batch
    pp = layout.pipeline_parallel
    element = element_bytes(recipe.precision)
    tokens = batch.micro_batch_size * model.sequence_length / layout.context_parallel
    spread = layout.tensor_parallel if layout.sequence_parallel else 1
    inside = tokens * layer_activation_bytes(recipe, machine)
    kept = tokens * element * model.hidden_size / spread if batch.recompute == "full" else inside
    held = micro_batches_held(layout, recipe.micro_batches, pipeline_rank)
    total = held * layout.layers(model.num_layers, pipeline_rank) * kept + (inside - kept)
    if pipeline_rank == pp - 1:
        softmax = 4 if element == 4 else 4 + element
        kernel = loss_kernel(recipe, machine)
        if kernel == "native":
            softmax += 4  # its compiled kernels keep one more fp32 copy of the logits (measured: 6.7 GB of 50.7)
        elif kernel == "te":
            softmax = element  # the gradient takes the place of the logits
        norm = _norm_activation_bytes(model, element, plain_layers(machine)) / spread
        total += tokens * (softmax * model.vocab_size / layout.tensor_parallel + norm)
    return total


def plain_layers(machine: Machine | None) -> bool:
    """True where Transformer Engine is not: PyTorch's own layers run and attention's scores are kept."""
    return machine is not None and (machine.device == "cpu" or not machine.transformer_engine)


def micro_batches_held(layout: Layout, count: int, pipeline_rank: int) -> float:
    """Micro-batches whose activations a stage keeps at most, of `count` in a step; a chunk counts as its share.

    The warm-up of `schedules.get_pp_rank_microbatches` and one more.
    """
    pp, v = layout.pipeline_parallel, layout.virtual_pipeline_chunks
    chunks = pp - pipeline_rank if v == 1 else 2 * (pp - pipeline_rank - 1) + (v - 1) * pp + 1
    return min(chunks / v, count)


def layer_activation_bytes(recipe: "Recipe", machine: Machine | None = None) -> float:
    """Bytes that one layer keeps for each token of a micro-batch on one rank."""
    model, layout, precision = recipe.model, recipe.layout, recipe.precision
    plain = plain_layers(machine)
    e, t = element_bytes(precision), layout.tensor_parallel
    h, f = model.hidden_size, model.ffn_size
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    matrix_input = 1 if precision.fp8_format else e
    spread = t if layout.sequence_parallel else 1
    # A norm's output is the input of a matrix product: with FP8 it is kept in 8 bits.
    norms = 2 * (_norm_activation_bytes(model, e, plain) - e * h + matrix_input * h)
    on_cpu = machine is not None and machine.device == "cpu"
    mask = e if on_cpu else 1
    masks = 2 * h * mask if model.dropout else 0
    kept = (norms + masks) / spread
    kept += e * (3 * q if plain else q + 2 * k) / t
    kept += e * q / t + (h / t if precision.fp8_format else 0)
    if (plain or e == 4) and recipe.batch.recompute != "selective":
        # The softmax, then its dropout's mask and result. A CPU keeps the softmax in fp32, and of 16 bits a copy.
        softmax, copy = (4, e * (e < 4)) if on_cpu else (e, 0)
        after = mask + e if model.dropout else copy
        kept += (softmax + after) * model.num_attention_heads * model.sequence_length / t
    up = 2 * f if model.activation == "swiglu" else f
    mlp = e * up + matrix_input * f
    if model.num_experts is None:
        return kept + mlp / t
    # Each token's copies on the way to and from its experts, and its probability of each expert. Ranks that share an
    # expert hold the tokens of all of them, and a part of its width.
    expert_tensor = layout.expert_tensor_parallel or t
    travel = (matrix_input + e) * h / spread * expert_tensor
    return kept + model.moe_router_topk * (travel + mlp / spread) + 4 * model.num_experts / spread


def _norm_activation_bytes(model: Model, element: int, plain: bool) -> float:
    """Bytes for each token that one norm keeps: input and output; PyTorch's RMSNorm two fp32 copies and the output."""
    if plain and model.normalization == "RMSNorm":
        return (8 + element) * model.hidden_size
    return 2 * element * model.hidden_size
