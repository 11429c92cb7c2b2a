"""How a batch reaches all ranks: one rank of a tensor-parallel group reads, the others are sent what they need."""

from functools import cache

import torch
from megatron.core import mpu
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.parallel_state import get_hybrid_data_context_parallel_groups
from megatron.core.transformer.multi_token_prediction import mtp_on_this_rank
from megatron.core.utils import (
    flatten_batch_for_packed_sequences,
    get_batch_on_this_cp_rank,
    get_batch_on_this_tp_rank,
)
from megatron.training import get_args
from megatron.training.arguments import core_transformer_config_from_args
from megatron.training.training import update_seqlen_stats_from_cu_seqlens
from megatron.training.utils import is_first_or_last_pipeline_stage


@cache  # every batch asks, and building it goes through all of Megatron's arguments
def transformer_config():
    return core_transformer_config_from_args(get_args())


def predicts_further_tokens(vp_stage: int | None) -> bool:
    """Whether a multi-token-prediction layer lives on this rank (`--mtp-num-layers`)."""
    config = transformer_config()
    return mtp_on_this_rank(config.pipeline_model_parallel_layout, config.mtp_num_layers, False, vp_stage)


def uses_tokens(vp_stage: int | None) -> bool:
    """The first pipeline stage embeds tokens, the last compares with them; those between get activations instead."""
    return is_first_or_last_pipeline_stage(vp_stage) or predicts_further_tokens(vp_stage)


def loads_data(vp_stage: int | None) -> bool:
    """One rank of a tensor-parallel group reads for all of them."""
    return mpu.get_tensor_model_parallel_rank() == 0 and uses_tokens(vp_stage)


WHAT_TO_READ = ["tokens", "labels", "loss_mask", "attention_mask", "position_ids"]
DOCUMENTS = ["cu_seqlens", "cu_seqlens_padded", "max_seqlen"]  # of packed samples: where documents begin
FIELDS = [*WHAT_TO_READ, *DOCUMENTS, "local_cp_size", "hybrid_cp_group"]


def get_batch(data_iterator, vp_stage: int | None) -> dict[str, torch.Tensor | None]:
    """One micro-batch on this rank: tensors of [micro_batch_size, seq_length / context_parallel_size], or None."""
    args = get_args()
    packed = args.dataloader_inter_document_masking
    # Attention needs the documents' boundaries in every stage, so packed samples go to those without tokens too.
    if not (uses_tokens(vp_stage) or packed):
        return dict.fromkeys(FIELDS)

    batch = {}
    tp_rank = mpu.get_tensor_model_parallel_rank()
    if tp_rank == 0:
        loaded = next(data_iterator)
        batch = {name: None if loaded.get(name) is None else loaded[name].cuda(non_blocking=True) for name in FIELDS}
    batch = get_batch_on_this_tp_rank(
        batch,
        has_cu_seqlens=packed,
        is_hybrid_cp=args.hybrid_context_parallel,
        create_attention_mask_in_dataloader=args.create_attention_mask_in_dataloader,
        broadcast_src_rank=mpu.get_tensor_model_parallel_src_rank(),
        broadcast_group=mpu.get_tensor_model_parallel_group(),
        cp_size=args.context_parallel_size,
        tp_rank=tp_rank,
        micro_batch_size=args.micro_batch_size,
        seq_length=args.seq_length,
        mtp_on_this_rank=predicts_further_tokens(vp_stage),
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        is_pipeline_first_stage=mpu.is_pipeline_first_stage(),
        is_pipeline_last_stage=mpu.is_pipeline_last_stage(),
    )
    batch = flatten_batch_for_packed_sequences(batch)
    if not uses_tokens(vp_stage):
        return dict.fromkeys(FIELDS) | {name: batch[name] for name in DOCUMENTS}
    return get_batch_on_this_cp_rank(
        batch,
        is_hybrid_cp=args.hybrid_context_parallel,
        cp_group=mpu.get_context_parallel_group(),
        hybrid_cp_group_func=get_hybrid_data_context_parallel_groups,
        use_per_sequence_balancing=packed,
    )


def document_boundaries(batch: dict[str, torch.Tensor | None]) -> PackedSeqParams | None:
    """What keeps attention inside documents (`--dataloader-inter-document-masking`); None: it may cross them."""
    if batch["cu_seqlens"] is None:
        return None
    starts, padded, cp_size = batch["cu_seqlens"].squeeze(0), batch["cu_seqlens_padded"], batch["local_cp_size"]
    update_seqlen_stats_from_cu_seqlens(starts)
    padded = None if padded is None else padded.squeeze(0)
    used, longest = starts if padded is None else padded, int(batch["max_seqlen"].item())
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=used,
        cu_seqlens_kv=used,
        cu_seqlens_q_padded=padded,
        cu_seqlens_kv_padded=padded,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        local_cp_size=None if cp_size is None else int(cp_size.item()),
        cp_group=batch["hybrid_cp_group"],
        tokens_per_sample=get_args().seq_length,
    )
