"""Parameters, floating-point operations and memory of a recipe, counted from its sizes alone.

Symbols in the formulas: L layers, h hidden size, f MLP width, V vocabulary rows, s sequence length, b micro-batch,
q query width (heads × head size), k key and value width (query groups × head size), E experts.
"""

from helpers import activations
from helpers.layout import Layout
from helpers.machine import GPU, Machine, quietly
from helpers.settings import Model

GIB = 2**30
# Not counted but set aside: on a GPU an allowance for the CUDA context, NCCL's buffers and the libraries' workspaces
# (not measured); on a CPU what Python, PyTorch and Megatron take in each rank once imported (measured: 388 MB of its
# own, beside 334 MB that all ranks share).
OVERHEAD_BYTES = {"cuda": GIB, "cpu": 400 * 2**20}
PARTS = ("weights", "gradients", "optimizer", "activations", "other")


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


def parameter_counts(model: Model) -> dict[str, int]:
    """The counts of `parameters` as a plain dict, without parts that the model does not have."""
    layer, h = _layer_parameters(model), model.hidden_size
    norm = _norm_size(model) * h
    counts = {
        "embedding": model.vocab_size * h,
        "position": model.sequence_length * h if model.position_embedding == "learned_absolute" else 0,
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
    attention = h * (q + 2 * k) + q * h + bias * (q + 2 * k + h)
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
    router = f"{h + model.linear_bias:,}"
    return {
        "embedding": f"{V:,}·{h:,}",
        "position": f"{model.sequence_length:,}·{h:,}",
        "attention": f"{L}·({attention})",
        "MLP": f"{L}·({mlp})",
        "experts": f"{L}·{model.num_experts}·({mlp} + {router})",
        "norms": f"({L}·2 + 1)·{norm}",
        "output": f"{V:,}·{h:,}",
    }


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


def flops_per_token(model: Model) -> int:
    """Sum of `flops_by_part`: Megatron's `training.py:num_floating_point_operations` for one token (0.12 and later)."""
    return sum(flops_by_part(model).values())


def mfu(tokens_per_second_per_gpu: float, model: Model, gpu: GPU | None) -> float | None:
    """Model FLOPs utilisation, 0 to 1, against the dense bf16 peak (Chowdhery et al. 2022, PaLM, appendix B).

    None without a GPU and for a GPU whose peak is not known: no number is better than a wrong one.
    """
    if gpu is None or gpu.peak_bf16_flops is None:
        return None
    return tokens_per_second_per_gpu * flops_per_token(model) / gpu.peak_bf16_flops


def rank_parameters(model: Model, layout: Layout, pipeline_rank: int = 0) -> tuple[float, float]:
    """Parameters on one rank of a pipeline stage: (all but the experts', the experts').

    Tensor parallelism divides matrices and their output biases, not norms, positions or the biases added after a sum.
    With tied embeddings the last stage of a pipeline holds a copy of the embedding.
    """
    t, pp, h = layout.tensor_parallel, layout.pipeline_parallel, model.hidden_size
    layer = _layer_parameters(model)
    whole = layer["norms"] + layer["router"]
    if model.linear_bias:
        whole += h + (0 if model.num_experts else h)
    split = layer["attention"] + layer["MLP"] + layer["norms"] + layer["router"] - whole
    layers = model.num_layers / pp
    dense = layers * (split / t + whole)
    first, last = pipeline_rank == 0, pipeline_rank == pp - 1
    embedding = model.vocab_size * h / t
    if first:
        dense += embedding + (model.sequence_length * h if model.position_embedding == "learned_absolute" else 0)
    if last:
        dense += _norm_size(model) * h
        dense += embedding if not model.tied_embeddings or not first else 0
    expert_tensor = layout.expert_tensor_parallel or t
    return dense, layers * layer["experts"] / (layout.expert_parallel * expert_tensor)


def memory(recipe, machine: Machine | None = None, pipeline_rank: int | None = None) -> dict[str, float]:
    """Bytes on one rank at the fullest moment of a step, as the five stacked parts of `PARTS`.

    States: mixed precision as in Rajbhandari et al. 2020 (ZeRO, section 3.1), with Megatron's fp32 gradients for bf16;
    the distributed optimizer divides the optimizer's part by data × context ranks. FP8 keeps the bf16 weights and adds
    two FP8 copies of every layer matrix (one transposed), or with `--fp8-param-gather` keeps those copies alone.
    Activations: see `activations`; or what the optimizer lays out for its step, once they are gone, where that is more.

    Args:
        recipe: a `recipes.Recipe`.
        machine: where it would run; None plans for GPUs with Transformer Engine.
        pipeline_rank: the pipeline stage; None takes the fullest.
    """
    if pipeline_rank is None:
        stages = (memory(recipe, machine, rank) for rank in range(recipe.layout.pipeline_parallel))
        return max(stages, key=lambda parts: sum(parts.values()))
    model, layout, precision = recipe.model, recipe.layout, recipe.precision
    dense, experts = rank_parameters(model, layout, pipeline_rank)
    count = dense + experts
    element = activations.element_bytes(precision)
    weights = element * count
    if precision.fp8_format:
        matrices = (_layer_matrices(model, layout)) * model.num_layers / layout.pipeline_parallel
        weights += (2 if not precision.fp8_param_gather else 2 - element) * matrices
    share = count
    if layout.distributed_optimizer:
        expert_data = max(1, layout.world_size // layout.expert_model_parallel)
        data = max(1, layout.data_parallel * layout.context_parallel)
        share = dense / data + experts / expert_data
    kept = activations.activation_bytes(recipe, machine, pipeline_rank)
    return {
        "weights": weights,
        "gradients": _gradient_bytes(precision) * count,
        "optimizer": _state_bytes(precision) * share,
        "activations": max(kept, _step_bytes(precision) * share),
        "other": float(OVERHEAD_BYTES["cpu" if machine and machine.device == "cpu" else "cuda"]),
    }


def _gradient_bytes(precision) -> int:
    """Of each parameter: Megatron adds gradients up in fp32, unless they are reduced in 16 bits."""
    return 2 if precision.dtype == "fp16" or precision.grad_reduce_in_bf16 else 4


def _state_bytes(precision) -> int:
    """Of each parameter that a rank steps: fp32 weight and two moments."""
    if precision.dtype == "fp32":
        return 8
    return 6 if _adam_keeps_remainders(precision) else 12 - 4 * precision.moments_in_bf16


def _step_bytes(precision) -> int:
    """Of each parameter that a rank steps, during the step: fp32 copies of 16-bit gradients, and with
    `--fp8-param-gather` the new weights in bf16 before they are cast (measured: 24 GB for 4 billion of them)."""
    copies = _gradient_bytes(precision) == 2 and not _adam_keeps_remainders(precision)
    return 4 * copies + 2 * (precision.fp8_format is not None and precision.fp8_param_gather)


def _adam_keeps_remainders(precision) -> bool:
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


def megatron_memory(recipe) -> dict[str, float]:
    """Megatron's own estimate, bytes on the fullest rank: `weights and optimizer` and `activations`.

    From `megatron/training/theoretical_memory_usage.py`. It assumes bf16 and knows neither context parallelism nor
    FP8, flash attention or full recomputation. Imports Megatron (seconds).
    """
    with quietly():
        from megatron.training import theoretical_memory_usage as theory

    arguments = megatron_arguments(recipe)
    micro_batches = recipe.batch.global_batch_size // (recipe.batch.micro_batch_size * recipe.layout.data_parallel)
    precise = recipe.layout.sequence_parallel and recipe.batch.recompute == "selective"
    estimate = theory.compute_activation_memory if precise else theory.compute_activation_memory_without_sp
    return {
        "weights and optimizer": theory.compute_weight_and_optimizer_memory(arguments),
        "activations": estimate(arguments, micro_batches),
    }


def megatron_arguments(recipe):
    """The arguments that Megatron's accounting functions read, under Megatron's names."""
    from types import SimpleNamespace

    model, layout, batch = recipe.model, recipe.layout, recipe.batch
    chunks = layout.virtual_pipeline_chunks
    return SimpleNamespace(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_size,
        num_attention_heads=model.num_attention_heads,
        kv_channels=model.head_size,
        group_query_attention=model.num_query_groups is not None,
        num_query_groups=model.query_groups,
        seq_length=model.sequence_length,
        padded_vocab_size=model.vocab_size,
        swiglu=model.activation == "swiglu",
        normalization=model.normalization,
        add_bias_linear=model.linear_bias,
        untie_embeddings_and_output_weights=not model.tied_embeddings,
        num_experts=model.num_experts,
        moe_router_topk=model.moe_router_topk,
        moe_layer_freq=1,
        moe_ffn_hidden_size=model.ffn_size,
        moe_shared_expert_intermediate_size=None,
        moe_latent_size=None,
        mtp_num_layers=None,
        multi_latent_attention=False,
        attention_output_gate=False,
        experimental_attention_variant=None,
        hybrid_layer_pattern=None,
        micro_batch_size=batch.micro_batch_size,
        world_size=layout.world_size,
        data_parallel_size=layout.data_parallel,
        tensor_model_parallel_size=layout.tensor_parallel,
        pipeline_model_parallel_size=layout.pipeline_parallel,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
        expert_model_parallel_size=layout.expert_parallel,
        expert_tensor_parallel_size=layout.expert_tensor_parallel or layout.tensor_parallel,
        use_distributed_optimizer=layout.distributed_optimizer,
    )


def checkpoint_bytes(recipe) -> int:
    """Bytes of one checkpoint on disk, whatever the layout.

    The weights as they are computed with (2 bytes in mixed precision) and the optimizer's three fp32 numbers for each:
    the master copy, Adam's first and second moment. In fp32 the weights are the master copy; the distributed optimizer
    writes it a second time.
    """
    count = sum(parameter_counts(recipe.model).values())
    if recipe.precision.dtype == "fp32":
        return count * (16 if recipe.layout.distributed_optimizer else 12)
    return count * 14
