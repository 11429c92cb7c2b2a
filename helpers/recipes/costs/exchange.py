"""What ranks send each other: bytes on the wire ÷ bandwidth, after a start.

A ring moves (n − 1)/n of the whole for an all-gather (AG) or a reduce-scatter (RS), twice that for an all-reduce (AR):
NCCL's own arithmetic (nccl-tests, PERFORMANCE.md).
"""

from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.accounting import activations
from helpers.recipes.costs.gemms import tokens
from helpers.recipes.costs.rates import Link, Rates

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

# A collective behind a GEMM takes its bandwidth and some of its SMs: of the time that it is hidden for, this much comes
# back as a slower GEMM (1.2B, TP2+SP on two H200: 330 µs of collectives behind FC1's backward cost 206 µs).
SLOWED = 0.6
ON_A_CPU = 1.0  # the cores that compute carry the bytes themselves: nothing is hidden
PIECES_SECONDS = 25e-6  # what `--tp-comm-overlap` takes for each product that it cuts to pieces


def gather(whole: float, ranks: int, link: Link) -> float:
    """Seconds of an all-gather or a reduce-scatter of `whole` bytes over `ranks`."""
    return 0.0 if ranks == 1 else link.start + (ranks - 1) / ranks * whole / link.bandwidth


def reduce(whole: float, ranks: int, link: Link) -> float:
    """Seconds of an all-reduce."""
    return 0.0 if ranks == 1 else link.start + 2 * (ranks - 1) / ranks * whole / link.bandwidth


def all_to_all(own: float, ranks: int, link: Link) -> float:
    """Seconds in which every rank sends (n − 1)/n of its `own` bytes."""
    return 0.0 if ranks == 1 else link.start + (ranks - 1) / ranks * own / link.bandwidth


def link_of(machine: Machine, rates: Rates, ranks: int, stride: int, each_alone: bool = False) -> Link:
    """The wires of a group of `ranks`, `stride` ranks apart.

    Where it leaves a node, NCCL's rings use the network cards of all of its ranks there, up to what the links inside
    carry; `each_alone`: what one rank sends to one other (p2p, all-to-all) has that rank's card alone.
    """
    inside = rates.link(ranks)
    each = max(1, len(machine.gpus) // machine.nodes)
    if machine.nodes == 1 or rates.between_nodes is None or ranks * stride <= each:
        return inside
    cards = 1 if each_alone else min(ranks, max(1, each // stride))
    return Link(rates.between_nodes.start, min(inside.bandwidth, cards * rates.between_nodes.bandwidth))


def tensor(recipe: "Recipe", machine: Machine, rates: Rates) -> tuple[float, float, float]:
    """Seconds of one layer's tensor-parallel collectives: exposed forward, exposed backward, hidden backward.

    Without sequence parallelism: two AR forward, and two backward behind the weights' gradients. With it: two AG and
    two RS forward; backward two AG exposed (the gradient's), and behind products two AG (the input's, for the weight's
    gradient) and two RS: tensor_parallel/layers.py, `LinearWithGradAccumulationAndAsyncCommunication`.
    """
    n = recipe.layout.tensor_parallel
    if n == 1:
        return 0.0, 0.0, 0.0
    link = link_of(machine, rates, n, 1)
    whole = tokens(recipe) * recipe.model.hidden_size * activations.element_bytes(recipe.precision)
    if not recipe.layout.sequence_parallel:
        once = reduce(whole, n, link)
        return 2 * once, 0.0, 2 * once
    once = gather(whole, n, link)
    return 4 * once, 2 * once, 4 * once


def context_way(recipe: "Recipe") -> str:
    """How keys and values travel: "p2p", a ring, unless Megatron's `--cp-comm-type` says "all_gather" or "a2a"."""
    flags = recipe.extra_flags
    return flags[flags.index("--cp-comm-type") + 1] if "--cp-comm-type" in flags[:-1] else "p2p"


def context(recipe: "Recipe", machine: Machine, rates: Rates, attention: tuple[float, float]) -> tuple[float, float]:
    """Seconds of one layer's context-parallel exchange that its attention (seconds, forward and backward) does not
    hide, with what it slows attention by.

    A ring passes keys and values on n − 1 times behind attention, and backward their gradients, too. An all-gather of
    both comes before it. All-to-alls trade the sequence for heads, of queries, keys and values, and of the result
    (Jacobs et al. 2023, DeepSpeed Ulysses).
    """
    layout, model = recipe.layout, recipe.model
    n = layout.context_parallel
    if n == 1:
        return 0.0, 0.0
    way = context_way(recipe)
    link = link_of(machine, rates, n, layout.tensor_parallel, each_alone=way != "all_gather")
    each = tokens(recipe) * model.head_size * activations.element_bytes(recipe.precision) / layout.tensor_parallel
    keys, queries = 2 * each * model.query_groups, 2 * each * model.num_attention_heads
    if way == "all_gather":
        once = gather(n * keys, n, link)
        return once, once
    if way == "a2a":
        once = 4 * link.start + (n - 1) / n * (keys + queries) / link.bandwidth
        return once, once
    ring = (n - 1) * (link.start + keys / link.bandwidth)
    ahead, back = attention
    return _behind(ring, ahead), _behind(2 * ring, back)


def _behind(sent: float, beside: float) -> float:
    return max(0.0, sent - beside) + SLOWED * min(sent, beside)


def experts(recipe: "Recipe", machine: Machine, rates: Rates) -> float:
    """Seconds of one layer's all-to-alls forward: tokens to their experts and back; backward as much again."""
    model, layout = recipe.model, recipe.layout
    if not model.num_experts:
        return 0.0
    spread = layout.tensor_parallel if layout.sequence_parallel else 1
    own = tokens(recipe) / spread * model.moe_router_topk * model.hidden_size
    own *= activations.element_bytes(recipe.precision)
    n, et = layout.expert_parallel, layout.expert_tensor_parallel or layout.tensor_parallel
    there = all_to_all(own, n, link_of(machine, rates, n, et, each_alone=True))
    shared = gather(own * et, et, link_of(machine, rates, et, 1))
    return 2 * (there + shared)


def pipeline(recipe: "Recipe", machine: Machine, rates: Rates) -> float:
    """Seconds of one transfer of a micro-batch's activations to the next stage."""
    layout = recipe.layout
    if layout.pipeline_parallel == 1:
        return 0.0
    spread = layout.tensor_parallel if layout.sequence_parallel else 1
    sent = tokens(recipe) * recipe.model.hidden_size * activations.element_bytes(recipe.precision) / spread
    link = link_of(machine, rates, 2, layout.world_size // layout.pipeline_parallel, each_alone=True)
    return link.start + sent / link.bandwidth


def data(recipe: "Recipe", machine: Machine, rates: Rates, dense: float, experts: float) -> tuple[float, float, float]:
    """Seconds of one step's gradients and of its weights over the data-parallel ranks (`dense` and `experts`: the
    parameters of this rank): an AR, or an RS and, of the weights, an AG with the distributed optimizer. Third, how much
    of that comes back where it is hidden: less than `SLOWED` where a network is the narrower."""
    layout, precision = recipe.layout, recipe.precision
    gradient = 2 if precision.dtype == "fp16" or precision.grad_reduce_in_bf16 else 4
    weight = 1 if precision.fp8_format and precision.fp8_param_gather else activations.element_bytes(precision)
    groups = (
        (dense, layout.data_parallel * layout.context_parallel, layout.tensor_parallel),
        (experts, max(1, layout.world_size // layout.expert_model_parallel), layout.expert_parallel),
    )
    sent = received = 0.0
    slowed = SLOWED
    for parameters, n, stride in groups:
        if n == 1 or not parameters:
            continue
        link = link_of(machine, rates, n, stride)
        slowed = min(slowed, SLOWED * link.bandwidth / rates.link(n).bandwidth)
        if layout.distributed_optimizer:
            sent += gather(gradient * parameters, n, link)
            received += gather(weight * parameters, n, link)
        else:
            sent += reduce(gradient * parameters, n, link)
    return sent, received, slowed
