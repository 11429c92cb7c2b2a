"""Megatron's own estimate of a rank's memory."""

from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers.machine import megatron_definitions
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

WEIGHTS = "compute_weight_and_optimizer_memory"
ACTIVATIONS, PRECISE = "compute_activation_memory_without_sp", "compute_activation_memory"


@checked
def megatron_memory(recipe: "Recipe") -> dict[str, float]:
    """Megatron's own estimate, bytes on the fullest rank: `weights and optimizer` and `activations`.

    From `megatron/training/theoretical_memory_usage.py`. It assumes bf16 and knows neither context parallelism nor
    FP8, flash attention or full recomputation.
    """
    recipe.require()
    names = (WEIGHTS, ACTIVATIONS, PRECISE, "NUM_BYTES_IN_MEGABYTE")
    theory = megatron_definitions("training/theoretical_memory_usage.py", *names)
    arguments = megatron_arguments(recipe)
    precise = recipe.layout.sequence_parallel and recipe.batch.recompute == "selective"
    estimate = getattr(theory, PRECISE if precise else ACTIVATIONS)
    return {
        "weights and optimizer": getattr(theory, WEIGHTS)(arguments),
        "activations": estimate(arguments, recipe.micro_batches),
    }


def megatron_arguments(recipe: "Recipe"):
    """The arguments that Megatron's accounting functions read, under Megatron's names."""
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
