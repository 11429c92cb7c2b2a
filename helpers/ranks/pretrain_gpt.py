"""Pretrain a GPT with Megatron: the script that torchrun runs, once for every rank.

    torchrun --nproc-per-node 2 helpers/ranks/pretrain_gpt.py --tensor-model-parallel-size 2 ...

Megatron Core's wheel brings the training loop (`megatron.training.pretrain`) but no program around it. This is
that program, in four pieces: which data a rank loads, how a batch reaches all ranks, how one micro-batch becomes
a loss, and `main`, which turns flags into a run. Every pretraining flag of Megatron works; `LEFT_OUT` lists the
ones that belong to other jobs. The numbers are those of NVIDIA's own `pretrain_gpt.py`, bit for bit.
"""

import ctypes
import json
import os
import signal
import sys
import time
from functools import cache, partial

PROGRAM_START = time.time()

LEFT_OUT = {  # a flag, or the beginning of several -> what it belongs to
    "--sft": "supervised fine-tuning",
    "--fim-data": "fill-in-the-middle data",
    "--spec": "a model built from a layer specification of your own",
    "--logits-load-dir": "distillation from the saved logits of a teacher",
    "--logits-save-dir": "saving logits for distillation",
    "--export-": "ModelOpt (quantization, pruning, distillation)",
    "--modelopt-": "ModelOpt (quantization, pruning, distillation)",
    "--perform-rl-step": "reinforcement learning",
    "--hybrid-layer-pattern": "models that mix attention with state-space layers",
    "--yaml-cfg": "a configuration file instead of flags",
}
FIELDS = (  # what a batch is made of; a rank that has no use for a field holds None
    "tokens labels loss_mask attention_mask position_ids "
    "cu_seqlens cu_seqlens_padded max_seqlen local_cp_size hybrid_cp_group"
).split()


def refuse_what_is_left_out(arguments: list[str]) -> None:
    """Stop the program, with words, when `arguments` ask for a job that this script leaves out."""
    for argument in arguments:
        flag = argument.split("=")[0]
        for name, job in LEFT_OUT.items():
            if flag == name or (name.endswith("-") and flag.startswith(name)):
                sys.exit(
                    f"{flag} asks for {job}. This script only pretrains GPT models. Take the flag out, or give "
                    "your own clone of Megatron-LM as the entry script: its pretrain_gpt.py has it."
                )


def die_with_torchrun() -> None:
    """Have Linux kill this rank when the torchrun that started it is gone, however it went (prctl(2))."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":  # before the imports below, which take seconds
    refuse_what_is_left_out(sys.argv[1:])
    die_with_torchrun()

import torch  # noqa: E402

if os.environ.get("MEGATRON_CPU") == "1" or not torch.cuda.is_available():
    from helpers.ranks import cpu_device

    cpu_device.switch_on()

from megatron.core import mpu  # noqa: E402
from megatron.core.datasets import utils as dataset_utils  # noqa: E402
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder  # noqa: E402
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, MockGPTDataset  # noqa: E402
from megatron.core.enums import ModelType  # noqa: E402
from megatron.core.packed_seq_params import PackedSeqParams  # noqa: E402
from megatron.core.rerun_state_machine import get_rerun_state_machine  # noqa: E402
from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer  # noqa: E402
from megatron.core.transformer.multi_token_prediction import get_mtp_ranks, mtp_on_this_rank  # noqa: E402
from megatron.core.utils import (  # noqa: E402
    StragglerDetector,
    flatten_batch_for_packed_sequences,
    get_attr_wrapped_model,
    get_batch_on_this_cp_rank,
    get_batch_on_this_tp_rank,
)
from megatron.training import get_args, get_timers, inprocess_restart, pretrain, set_startup_timestamps  # noqa: E402
from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args  # noqa: E402
from megatron.training.arguments import core_transformer_config_from_args, parse_and_validate_args  # noqa: E402
from megatron.training.training import update_seqlen_stats_from_cu_seqlens  # noqa: E402
from megatron.training.utils import get_blend_and_blend_per_split, is_first_or_last_pipeline_stage  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import record  # noqa: E402

straggler_timer = StragglerDetector()


# ---- which data a rank loads -------------------------------------------------------------------------------------
@cache
def transformer_config():
    return core_transformer_config_from_args(get_args())


def predicts_further_tokens(vp_stage: int | None) -> bool:
    """Whether a multi-token-prediction layer lives here."""
    config = transformer_config()
    return mtp_on_this_rank(config.pipeline_model_parallel_layout, config.mtp_num_layers, False, vp_stage)


def loads_data(vp_stage: int | None) -> bool:
    """One rank of a tensor-parallel group reads, for the others; inner pipeline stages get activations instead."""
    first_of_group = mpu.get_tensor_model_parallel_rank() == 0
    return first_of_group and (is_first_or_last_pipeline_stage(vp_stage) or predicts_further_tokens(vp_stage))


def datasets(sample_counts: list[int], vp_stage: int | None = None):
    """The train, valid and test datasets for `sample_counts` samples; None where this rank loads no data."""
    args = get_args()
    blend, blend_per_split = get_blend_and_blend_per_split(args)
    sequences_per_dataset = None
    if args.per_dataset_sequences_path is not None:
        with open(args.per_dataset_sequences_path) as file:
            sequences_per_dataset = json.load(file)
    config = GPTDatasetConfig(
        random_seed=args.seed,
        sequence_length=args.seq_length,
        blend=blend,
        blend_per_split=blend_per_split,
        split=args.split,
        multiple_validation_sets=args.multiple_validation_sets,
        full_validation=args.full_validation,
        num_dataset_builder_threads=args.num_dataset_builder_threads,
        path_to_cache=args.data_cache_path,
        mmap_bin_files=args.mmap_bin_files,
        tokenizer=build_tokenizer(args),
        reset_position_ids=args.reset_position_ids,
        reset_attention_mask=args.reset_attention_mask,
        eod_mask_loss=args.eod_mask_loss,
        create_attention_mask=args.create_attention_mask_in_dataloader,
        object_storage_cache_path=args.object_storage_cache_path,
        mid_level_dataset_surplus=args.mid_level_dataset_surplus,
        allow_ambiguous_pad_tokens=args.allow_ambiguous_pad_tokens,
        fast_cache_load=args.dataloader_fast_cache_load,
        sequences_per_dataset=sequences_per_dataset,
        defer_npy_index_mmap=args.dataloader_defer_npy_index_mmap,
        context_parallel_size=args.context_parallel_size,
        data_parallel_size=args.data_parallel_size,
        sequence_parallel_size=args.tensor_model_parallel_size * args.sequence_parallel,
        hybrid_context_parallel=args.hybrid_context_parallel,
        inter_document_masking=args.dataloader_inter_document_masking,
    )
    kind = MockGPTDataset if args.mock_data else GPTDataset
    return BlendedMegatronDatasetBuilder(kind, sample_counts, partial(loads_data, vp_stage), config).build()


datasets.is_distributed = True  # Megatron: call it on every rank, not only on the first of each tensor-parallel group


# ---- how a batch reaches all ranks -------------------------------------------------------------------------------
def get_batch(data_iterator, vp_stage: int | None) -> dict[str, torch.Tensor | None]:
    """One micro-batch on this rank: tensors of [micro_batch_size, seq_length / context_parallel_size]."""
    args = get_args()
    further_tokens = predicts_further_tokens(vp_stage)
    uses_tokens = is_first_or_last_pipeline_stage(vp_stage) or further_tokens
    packed = args.dataloader_inter_document_masking
    if not (uses_tokens or packed):
        return dict.fromkeys(FIELDS)

    batch = {}
    tp_rank = mpu.get_tensor_model_parallel_rank()
    if tp_rank == 0:
        loaded = next(data_iterator)
        batch = {name: loaded.get(name) for name in FIELDS}
        batch = {name: None if field is None else field.cuda(non_blocking=True) for name, field in batch.items()}
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
        mtp_on_this_rank=further_tokens,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        is_pipeline_first_stage=mpu.is_pipeline_first_stage(),
        is_pipeline_last_stage=mpu.is_pipeline_last_stage(),
    )
    batch = flatten_batch_for_packed_sequences(batch)
    if not uses_tokens:  # an inner pipeline stage only needs to know where documents begin
        return {name: batch[name] if "seqlen" in name else None for name in FIELDS}
    return get_batch_on_this_cp_rank(
        batch,
        is_hybrid_cp=args.hybrid_context_parallel,
        cp_group=mpu.get_context_parallel_group(),
        hybrid_cp_group_func=mpu.get_hybrid_data_context_parallel_groups,
        use_per_sequence_balancing=packed,
    )


def document_boundaries(batch: dict[str, torch.Tensor | None]) -> PackedSeqParams | None:
    """Where documents begin in a packed batch, for the attention; None when attention may cross documents."""
    if batch["cu_seqlens"] is None:
        return None
    starts, padded_starts = batch["cu_seqlens"].squeeze(0), batch["cu_seqlens_padded"]
    padded_starts = None if padded_starts is None else padded_starts.squeeze(0)
    update_seqlen_stats_from_cu_seqlens(starts)
    used = starts if padded_starts is None else padded_starts
    longest = int(batch["max_seqlen"].item())
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=used,
        cu_seqlens_kv=used,
        cu_seqlens_q_padded=padded_starts,
        cu_seqlens_kv_padded=padded_starts,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        local_cp_size=None if batch["local_cp_size"] is None else int(batch["local_cp_size"].item()),
        cp_group=batch["hybrid_cp_group"],
        tokens_per_sample=get_args().seq_length,
    )


# ---- how one micro-batch becomes a loss --------------------------------------------------------------------------
def loss_function(loss_mask: torch.Tensor, output: torch.Tensor, model=None):
    """Sum of the token losses, number of tokens, and both again for the log (Megatron divides after all ranks)."""
    mask = loss_mask.view(-1).float()
    loss = torch.sum(output.view(-1).float() * mask)
    token_count = mask.sum().clone().detach().to(torch.int)

    args, checks = get_args(), get_rerun_state_machine()
    verdicts = []
    if args.check_for_nan_in_loss_and_grad:
        verdicts += [(torch.isnan, "found NaN in local forward loss calculation", True)]
        verdicts += [(torch.isinf, "found Inf in local forward loss calculation", True)]
    if args.check_for_spiky_loss:
        spiky = partial(checks.is_unexpectedly_large, threshold=10, context="loss")
        verdicts += [(spiky, "Spiky loss", False)]
    for rejects, message, fatal in verdicts:
        checks.validate_result(result=loss, rejection_func=rejects, message=message, tolerance=0.0, fatal=fatal)

    return loss, token_count, {"lm loss": torch.cat([loss.clone().detach().view(1), token_count.view(1)])}


def forward_step(data_iterator, model, return_schedule_plan: bool = False):
    """The model's output for one micro-batch, and the function that turns it into a loss."""
    timers = get_timers()
    timers("batch-generator", log_level=2).start()
    with straggler_timer(bdata=True):
        batch = get_batch(data_iterator, get_attr_wrapped_model(model, "vp_stage"))
    boundaries = document_boundaries(batch)
    timers("batch-generator").stop()

    inputs = [batch[name] for name in ("tokens", "position_ids", "attention_mask")]
    targets = {name: batch[name] for name in ("labels", "loss_mask")}
    with straggler_timer:
        if return_schedule_plan:  # --overlap-moe-expert-parallel-comm
            output = model.build_schedule_plan(*inputs, **targets)
        else:
            output = model(*inputs, **targets, packed_seq_params=boundaries)
    return output, partial(loss_function, batch["loss_mask"], model=model)


# ---- from flags to a run -----------------------------------------------------------------------------------------
def embedding_ranks(pipeline_ranks: list[int]) -> list[int]:
    """The ranks of a pipeline that hold a copy of the token embedding."""
    ranks = {pipeline_ranks[0]}
    if len(pipeline_ranks) > 1:
        if not get_args().untie_embeddings_and_output_weights:
            ranks.add(pipeline_ranks[-1])
        ranks.update(get_mtp_ranks(pipeline_ranks, transformer_config()))
    return sorted(ranks)


def use_the_built_index_helpers() -> None:
    """Megatron builds its C++ index helpers at every start; a wheel has them built, and no Makefile."""
    try:
        import megatron.core.datasets.helpers_cpp  # noqa: F401
    except ImportError:
        return
    dataset_utils.compile_helpers = lambda: None


@record  # keeps the traceback of the first rank that fails where torchrun finds it
def main() -> None:
    set_startup_timestamps(program_start=PROGRAM_START, main_entry=time.time())
    use_the_built_index_helpers()
    train, store = inprocess_restart.maybe_wrap_for_inprocess_restart(pretrain)
    args = parse_and_validate_args(args_defaults={"tokenizer_type": "GPT2BPETokenizer"})
    config = pretrain_cfg_container_from_args(args, gpt_config_from_args(args))
    train(
        config,
        datasets,
        ModelType.encoder_or_decoder,
        forward_step,
        store=store,
        get_embedding_ranks=embedding_ranks,
    )


if __name__ == "__main__":
    main()
