"""What a step puts on the wires: bytes that all ranks together send, by the dimension that sends them.

The sums of `exchange`, without rates: an all-reduce over n ranks sends 2 (n − 1) times what it adds up, counted over
all of them, an all-gather or a reduce-scatter n − 1 times the whole.
"""

from typing import TYPE_CHECKING, Annotated

from helpers.recipes.accounting import activations
from helpers.recipes.accounting.parameter_count import parameter_counts
from helpers.show import bounds
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

GRADIENT = 4  # bytes: Megatron adds gradients up in fp32, unless they are 16 bits wide as well


@checked
def sent_bytes(recipe: "Recipe") -> dict[str, float]:
    """Dimension → bytes that all ranks together send in one step, for those that send anything.

    "tensor": two all-reduces a layer forward and two backward, one behind the embedding and one in front of the
    output; with sequence parallelism an all-gather and a reduce-scatter each, and the input gathered once more.
    "pipeline": activations forward, their gradients backward, and the gradient of an embedding that the first and the
    last stage both hold. "data": gradients, or with the distributed optimizer gradients and weights. "context": keys
    and values in a ring, and backward their gradients, too. "expert": every token to its experts and back.
    """
    recipe.require()
    model, layout, precision = recipe.model, recipe.layout, recipe.precision
    element = activations.element_bytes(precision)
    tokens = recipe.batch.global_batch_size * model.sequence_length
    hidden = tokens * model.hidden_size * element
    tp, pp, cp, ep = layout.tensor_parallel, layout.pipeline_parallel, layout.context_parallel, layout.expert_parallel
    gradient = _gradient(recipe)
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
        found["pipeline"] = 2 * cuts * hidden * copies + _tied(recipe)
    if (replicas := layout.data_parallel * cp) > 1:
        weights = element if layout.distributed_optimizer else gradient
        found["data"] = (replicas - 1) * sum(parameter_counts(model).values()) * (gradient + weights)
    return found


@checked
def crossing_bytes(recipe: "Recipe", ranks_per_node: Annotated[int, bounds.RANKS]) -> dict[str, float]:
    """Of `sent_bytes` what leaves a node, where ranks count node by node, TP first, then CP, DP and PP, as in Megatron.

    A ring over a group enters and leaves each node once, so that of m neighbours there only one sends outside.
    """
    recipe.require()
    layout = recipe.layout
    tp, cp, pp = layout.tensor_parallel, layout.context_parallel, layout.pipeline_parallel
    groups = {  # ranks, and how far apart two neighbours are numbered
        "tensor": (tp, 1),
        "context": (cp, tp),
        "data": (layout.data_parallel * cp, tp),
        "expert": (layout.expert_parallel, layout.expert_tensor_parallel or tp),
        "pipeline": (pp, layout.world_size // pp),
    }
    found = {}
    for name, sent in sent_bytes(recipe).items():
        ranks, stride = groups[name]
        together = max(1, ranks_per_node // stride)
        if ranks <= together:
            continue
        found[name] = sent / together
        if name == "pipeline":
            chunks = layout.virtual_pipeline_chunks
            tied = _tied(recipe)
            found[name] = (sent - tied) * (chunks * ranks / together - 1) / (chunks * ranks - 1) + tied
    return found


def _tied(recipe: "Recipe") -> float:
    """The gradient of an embedding that the first and the last stage both hold."""
    if not recipe.model.tied_embeddings:
        return 0.0
    embedding = parameter_counts(recipe.model)["embedding"]
    return 2 * embedding * _gradient(recipe) * recipe.layout.data_parallel * recipe.layout.context_parallel


def _gradient(recipe: "Recipe") -> int:
    precision = recipe.precision
    return 2 if precision.dtype == "fp16" or precision.grad_reduce_in_bf16 else GRADIENT
