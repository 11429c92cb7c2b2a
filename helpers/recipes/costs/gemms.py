"""The matrix products of one rank, by their sizes, and how long each takes.

A layer has four (QKV, projection, FC1, FC2), the last stage one more (the logits). Backward has two for each forward
one: dgrad, the gradient of the input, and wgrad, that of the weight, both with the same FLOPs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.recipes.costs.rates import Products, Rates

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


@dataclass(frozen=True)
class Gemm:
    """`count` products of [m, k] × [k, n] on one rank; `split` tells on which side tensor parallelism cut it."""

    name: str
    m: float
    n: float
    k: float
    count: float = 1

    @property
    def flops(self) -> float:
        return 2 * self.m * self.n * self.k * self.count


def tokens(recipe: "Recipe") -> float:
    """Tokens of one micro-batch on one rank."""
    return recipe.batch.micro_batch_size * recipe.model.sequence_length / recipe.layout.context_parallel


def layer(recipe: "Recipe") -> tuple[Gemm, ...]:
    """A layer's products in the forward pass. Experts: what the ranks of a group send each other evens out."""
    model, layout = recipe.model, recipe.layout
    t, m, h, f = layout.tensor_parallel, tokens(recipe), model.hidden_size, model.ffn_size
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    up = 2 * f if model.activation == "swiglu" else f
    attention = (Gemm("QKV", m, (q + 2 * k) / t, h), Gemm("projection", m, h, q / t))
    if model.num_experts is None:
        return (*attention, Gemm("FC1", m, up / t, h), Gemm("FC2", m, h, f / t))
    et, here = layout.expert_tensor_parallel or t, model.num_experts / layout.expert_parallel
    own = m / t if layout.sequence_parallel else m  # tokens that this rank routes
    rows = own * model.moe_router_topk * et / here
    return (
        *attention,
        Gemm("router", own, model.num_experts, h),
        Gemm("FC1", rows, up / et, h, here),
        Gemm("FC2", rows, h, f / et, here),
    )


def logits(recipe: "Recipe") -> Gemm:
    """The output layer: in 16 or 32 bits whatever the layers are in."""
    model = recipe.model
    return Gemm("logits", tokens(recipe), model.vocab_size / recipe.layout.tensor_parallel, model.hidden_size)


def seconds(gemm: Gemm, rates: Rates, format: str) -> float:
    """FLOPs ÷ rate, or bytes ÷ bandwidth where that is more (a roofline), and the start of each."""
    rate = product(rates, format)
    element = {"fp8": 1, "fp32": 4}.get(format, 2)
    bytes_moved = element * (gemm.m * gemm.k + gemm.k * gemm.n) + max(2, element) * gemm.m * gemm.n
    return max(gemm.flops / rate.flops, gemm.count * bytes_moved / rates.bandwidth) + gemm.count * rate.start


def product(rates: Rates, format: str) -> Products:
    """How fast a machine multiplies in a format.

    Raises:
        ValueError: nobody measured that there.
    """
    if format not in rates.products:
        known, instead = ", ".join(rates.products), "fp8_format=None, fp8_param_gather=False"
        change = f"with_({instead})" if format == "fp8" else 'with_(dtype="bf16")'
        raise ValueError(f"No rate of {format.upper()} GEMMs is known of {rates.machine}, but of {known}: {change}.")
    return rates.products[format]


def format_of(recipe: "Recipe") -> str:
    """The format that the layers' products are computed in: "fp8", "bf16" (fp16 runs at its rate) or "fp32"."""
    if recipe.precision.fp8_format:
        return "fp8"
    return "fp32" if recipe.precision.dtype == "fp32" else "bf16"
