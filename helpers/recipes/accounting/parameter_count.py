"""Parameters and floating-point operations of a model, counted from its sizes alone.

Symbols in the formulas: L layers, h hidden size, f MLP width, V vocabulary rows, s sequence length, b micro-batch,
q query width (heads × head size), k key and value width (query groups × head size), E experts.
"""

from helpers.machine import GPU
from helpers.recipes.layout import Layout
from helpers.recipes.settings import Model
from helpers.show.arguments import checked


@checked
def parameters(model: Model):
    """Parameters by part, as Megatron's `GPTModel` holds them.

    Returns:
        pandas DataFrame indexed by part (embedding, position, attention, MLP, experts, norms, output), in the order of
        the forward pass, with columns `parameters` (int), `share` (0 to 1) and `formula` (the same count by hand).
    """
    import pandas as pd

    counts = parameter_counts(model)
    total = sum(counts.values())
    rows = {part: (count, count / total, _formulas(model)[part]) for part, count in counts.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "share", "formula"])
    return table.rename_axis("part")


@checked
def parameter_counts(model: Model) -> dict[str, int]:
    """The counts of `parameters` as a plain dict, without parts that the model does not have."""
    layer, h = _layer_parameters(model), model.hidden_size
    norm = _norm_size(model) * h
    counts = {
        "embedding": model.vocab_size * h,
        "position": model.positions * h if model.position_embedding == "learned_absolute" else 0,
        "attention": model.num_layers * layer["attention"],
        "MLP": model.num_layers * layer["MLP"],
        "experts": model.num_layers * (layer["experts"] + layer["router"]),
        "norms": model.num_layers * layer["norms"] + norm,
        "output": 0 if model.tied_embeddings else model.vocab_size * h,
    }
    return {part: count for part, count in counts.items() if count}


def _layer_parameters(model: Model) -> dict[str, int]:
    """One layer's parameters: attention, MLP or experts and router, norms."""
    h, f = model.hidden_size, model.ffn_size
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    up = 2 * f if model.activation == "swiglu" else f
    bias = model.linear_bias
    attention = h * (q + 2 * k) + q * h + (bias or model.qkv_bias) * (q + 2 * k) + bias * h
    mlp = h * up + f * h + bias * (up + h)
    experts = model.num_experts or 0
    return {
        "attention": attention,
        "MLP": 0 if experts else mlp,
        "experts": experts * mlp,
        "router": experts * (h + bias),
        "norms": 2 * _norm_size(model) * h,
    }


def _norm_size(model: Model) -> int:
    """Vectors in one norm: LayerNorm has weight and bias, RMSNorm a weight."""
    return 1 if model.normalization == "RMSNorm" else 2


def _formulas(model: Model) -> dict[str, str]:
    L, h, f, V = model.num_layers, model.hidden_size, model.ffn_size, model.vocab_size
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    up = 2 * f if model.activation == "swiglu" else f
    attention = f"{h:,}·({q:,}+2·{k:,}) + {q:,}·{h:,}"
    mlp = f"{h:,}·{up:,} + {f:,}·{h:,}"
    norm = f"{_norm_size(model)}·{h:,}"
    if model.linear_bias:
        attention += f" + {q + 2 * k + h:,}"
        mlp += f" + {up + h:,}"
    elif model.qkv_bias:
        attention += f" + {q + 2 * k:,}"
    router = f"{h + model.linear_bias:,}"
    return {
        "embedding": f"{V:,}·{h:,}",
        "position": f"{model.positions:,}·{h:,}",
        "attention": f"{L}·({attention})",
        "MLP": f"{L}·({mlp})",
        "experts": f"{L}·{model.num_experts}·({mlp} + {router})",
        "norms": f"({L}·2 + 1)·{norm}",
        "output": f"{V:,}·{h:,}",
    }


@checked
def flops_by_part(model: Model) -> dict[str, int]:
    """Floating-point operations for one training token, forward and backward: attention, MLP, scores, logits.

    Every weight of a matrix costs 6 a token (Kaplan et al. 2020, section 2.1, the N of 6N without embeddings):
    2 forward, 4 backward. `scores` is attention's s-dependent part, halved because a causal mask hides half of it.
    """
    h, f, s = model.hidden_size, model.ffn_size, model.sequence_length
    q, k = model.head_size * model.num_attention_heads, model.head_size * model.query_groups
    matrices = 3 if model.activation == "swiglu" else 2
    visited = model.moe_router_topk if model.num_experts else 1
    return {
        "attention": 6 * model.num_layers * (h * (q + 2 * k) + q * h),
        "MLP": 6 * model.num_layers * matrices * h * f * visited,
        "scores": 6 * model.num_layers * q * s,
        "logits": 6 * h * model.vocab_size,
    }


@checked
def flops_per_token(model: Model) -> int:
    """Sum of `flops_by_part`: Megatron's `training.py:num_floating_point_operations` for one token (0.12 and later)."""
    return sum(flops_by_part(model).values())


@checked
def mfu(tokens_per_second_per_gpu: float, model: Model, gpu: GPU | None) -> float | None:
    """Model FLOPs utilisation, 0 to 1, against the dense bf16 peak (Chowdhery et al. 2022, PaLM, appendix B).

    None without a GPU and for a GPU whose peak is not known: no number is better than a wrong one.
    """
    if gpu is None or gpu.peak_bf16_flops is None:
        return None
    return tokens_per_second_per_gpu * flops_per_token(model) / gpu.peak_bf16_flops


@checked
def rank_parameters(model: Model, layout: Layout, pipeline_rank: int = 0) -> tuple[float, float]:
    """Parameters on one rank of a pipeline stage: (all but the experts', the experts').

    Tensor parallelism divides matrices and their output biases, not norms, positions or the biases added after a sum.
    With tied embeddings the last stage of a pipeline holds a copy of the embedding.
    """
    t, h = layout.tensor_parallel, model.hidden_size
    layer = _layer_parameters(model)
    whole = layer["norms"] + layer["router"]
    if model.linear_bias:
        whole += h + (0 if model.num_experts else h)
    split = layer["attention"] + layer["MLP"] + layer["norms"] + layer["router"] - whole
    layers = layout.layers(model.num_layers, pipeline_rank)
    dense = layers * (split / t + whole) + outside_layers(model, layout, pipeline_rank)
    expert_tensor = layout.expert_tensor_parallel or t
    return dense, layers * layer["experts"] / (layout.expert_parallel * expert_tensor)


def outside_layers(model: Model, layout: Layout, pipeline_rank: int) -> float:
    """Of `rank_parameters`, those of the embeddings, the last norm and the output."""
    h = model.hidden_size
    first, last = pipeline_rank == 0, pipeline_rank == layout.pipeline_parallel - 1
    embedding = model.vocab_size * h / layout.tensor_parallel
    found = 0.0
    if first:
        found += embedding + (model.positions * h if model.position_embedding == "learned_absolute" else 0)
    if last:
        found += _norm_size(model) * h
        found += embedding if not model.tied_embeddings or not first else 0
    return found
