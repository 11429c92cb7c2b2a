"""What others call a recipe's fields: Megatron's flags, and the short names of papers and other programs."""

from functools import partial

from helpers.show import names

OTHERS = {
    "tensor_parallel": "tp tensor_model_parallel_size tensor_parallel_size",
    "pipeline_parallel": "pp pipeline_model_parallel_size pipeline_parallel_size",
    "virtual_pipeline_chunks": "vpp virtual_pipeline num_virtual_stages_per_pipeline_rank",
    "pipeline_layout": "pipeline_model_parallel_layout",
    "account_for_embedding": "account_for_embedding_in_pipeline_split account_for_embedding_and_loss",
    "account_for_loss": "account_for_loss_in_pipeline_split",
    "context_parallel": "cp context_parallel_size",
    "expert_parallel": "ep expert_model_parallel_size expert_parallel_size",
    "expert_tensor_parallel": "etp expert_tensor_parallel_size",
    "sequence_parallel": "sp",
    "distributed_optimizer": "use_distributed_optimizer zero zero1",
    "megatron_fsdp": "fsdp use_megatron_fsdp zero3 fully_shard",
    "processes": "dp data_parallel data_parallel_size world_size nproc_per_node gpus num_gpus ranks",
    "micro_batch_size": "mbs batch_size per_device_train_batch_size",
    "global_batch_size": "gbs",
    "recompute": "recompute_granularity activation_checkpointing gradient_checkpointing",
    "train_iters": "steps max_steps num_steps iters iterations max_iters",
    "lr": "learning_rate max_lr",
    "min_lr": "min_learning_rate",
    "lr_warmup_iters": "warmup warmup_steps warmup_iters lr_warmup_steps",
    "weight_decay": "wd",
    "clip_grad": "grad_clip gradient_clipping max_grad_norm",
    "adam_beta2": "beta2",
    "save_interval": "save_steps",
    "eval_interval": "eval_steps",
    "num_layers": "layers n_layer n_layers depth num_hidden_layers",
    "hidden_size": "d_model n_embd dim width",
    "ffn_hidden_size": "d_ff ffn_size intermediate_size",
    "num_attention_heads": "heads num_heads n_head n_heads",
    "num_query_groups": "num_kv_heads n_kv_heads num_key_value_heads group_query_attention",
    "sequence_length": "seq_length seq_len seqlen max_seq_len max_sequence_length context_length block_size "
    "max_position_embeddings",
    "vocab_size": "padded_vocab_size",
    "position_embedding": "position_embedding_type",
    "rotary_base": "rope_theta rope_base",
    "activation": "swiglu hidden_act",
    "normalization": "norm",
    "tied_embeddings": "tie_word_embeddings untie_embeddings_and_output_weights",
    "linear_bias": "bias add_bias_linear disable_bias_linear",
    "dropout": "attention_dropout hidden_dropout",
    "num_experts": "experts num_moe_experts",
    "moe_router_topk": "topk top_k",
    "dtype": "bf16 fp16 fp32 precision_dtype",
    "fp8_format": "fp8",
    "cuda_graph": "cuda_graph_impl cuda_graphs",
    "overlap_communication": "overlap_grad_reduce overlap_param_gather",
    "overlap_tensor_parallel": "tp_comm_overlap",
    "cross_entropy_fusion": "cross_entropy_loss_fusion cross_entropy_fusion_impl",
}
OURS = {other: ours for ours, others in OTHERS.items() for other in others.split()}
told = partial(names.told, also=OURS)  # of a recipe, and of its parts
