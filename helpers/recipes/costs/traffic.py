"""What a step puts on the wires: bytes that all ranks together send, by the dimension that sends them.

The sums of `exchange`, without rates: an all-reduce over n ranks sends 2 (n − 1) times what it adds up, counted over
all of them, an all-gather or a reduce-scatter n − 1 times the whole.
"""

from typing import TYPE_CHECKING

from helpers.recipes.accounting import activations
from helpers.recipes.accounting.parameter_count import parameter_counts

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

GRADIENT = 4  # bytes: Megatron adds gradients up in fp32, unless they are 16 bits wide as well


def sent_bytes(recipe: "Recipe") -> dict[str, float]:
    """Dimension → bytes that all ranks together send in one step, for those that send anything.

    "tensor": two all-reduces a layer forward and two backward, one behind the embedding and one in front of the
    output; with sequence parallelism an all-gather and a reduce-scatter each, and the input gathered once more.
    "pipeline": activations forward, their gradients backward, and the gradient of an embedding that the first and the
    last stage both hold. "data": gradients, or with the distributed optimizer gradients and weights. "context": keys
    and values in a ring, and backward their gradients, too. "expert": every token to its experts and back.
    """
    model, layout, precision = recipe.model, recipe.layout, recipe.precision
    element = activations.element_bytes(precision)
    tokens = recipe.batch.global_batch_size * model.sequence_length
    hidden = tokens * model.hidden_size * element
    tp, pp, cp, ep = layout.tensor_parallel, layout.pipeline_parallel, layout.context_parallel, layout.expert_parallel
    gradient = 2 if precision.dtype == "fp16" or precision.grad_reduce_in_bf16 else GRADIENT
    counts = parameter_counts(model)
    again = 1.5 if recipe.batch.recompute == "full" else 1.0  # the forward collectives are done twice
    found = {}
    if tp > 1:
        times = 4 * model.num_layers * again + 2
        found["tensor"] = 2 * (tp - 1) * hidden * times * (1.25 if layout.sequence_parallel else 1.0)
    if cp > 1:
        keys = 2 * tokens * model.query_groups * model.head_size * element
        found["context"] = 3 * (cp - 1) * keys * model.num_layers
    if ep > 1 and model.num_experts:
        found["expert"] = 4 * (ep - 1) / ep * hidden * model.moe_router_topk * model.num_layers
    if pp > 1:
        cuts = pp * layout.virtual_pipeline_chunks - 1
        copies = 1 if layout.sequence_parallel else tp
        found["pipeline"] = 2 * cuts * hidden * copies
        if model.tied_embeddings:
            found["pipeline"] += 2 * counts["embedding"] * gradient * layout.data_parallel * cp
    if (replicas := layout.data_parallel * cp) > 1:
        weights = element if layout.distributed_optimizer else gradient
        found["data"] = (replicas - 1) * sum(counts.values()) * (gradient + weights)
    return found
