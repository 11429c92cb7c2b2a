"""Pretrain a GPT with Megatron: the script that torchrun runs, once for every rank.

    torchrun --nproc-per-node 2 helpers/ranks/pretrain_gpt.py --tensor-model-parallel-size 2 ...

Megatron Core's wheel brings the training loop (`megatron.training.pretrain`) but no program around it. This is
that program, in four pieces: which data a rank loads, how a batch reaches all ranks, how one micro-batch becomes
a loss, and `main`, which turns flags into a run. Every pretraining flag of Megatron works; `LEFT_OUT` lists the
ones that belong to other jobs. The losses are those of NVIDIA's own `pretrain_gpt.py`, bit for bit.
"""
# ruff: noqa: E402

import time

PROGRAM_START = time.time()

import ctypes
import dataclasses
import gc
import json
import os
import signal
import sys
from functools import cache, partial

LEFT_OUT = {  # a flag, or the beginning of several: the job it belongs to
    "--sft": "supervised fine-tuning",
    "--fim-data": "fill-in-the-middle training",
    "--spec": "a model built from a layer specification of your own",
    "--logits-load-dir": "distillation from the saved logits of a teacher",
    "--logits-save-dir": "saving logits for distillation",
    "--export-": "ModelOpt (quantization, pruning, distillation)",
    "--modelopt-": "ModelOpt (quantization, pruning, distillation)",
    "--perform-rl-step": "reinforcement learning",
    "--hybrid-layer-pattern": "models that mix attention with state-space layers",
    "--yaml-cfg": "a configuration file instead of flags",
}


def refuse_what_is_left_out(arguments: list[str]) -> None:
    """Stop the program, with words, if `arguments` ask for a job that this script leaves out."""
    for argument in arguments:
        flag = argument.split("=")[0]
        for name, job in LEFT_OUT.items():
            if flag == name or (name.endswith("-") and flag.startswith(name)):
                sys.exit(
                    f"{flag} asks for {job}. This script only pretrains GPT models. Take the flag out, or give "
                    "your own clone of Megatron-LM as the entry script: its pretrain_gpt.py has it."
                )


def die_with_torchrun() -> None:
    """Have Linux kill this rank as soon as the torchrun that started it is gone, however it went (prctl(2))."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":  # at once: what is imported below takes seconds
    die_with_torchrun()
    refuse_what_is_left_out(sys.argv[1:])

import torch

if os.environ.get("MEGATRON_CPU") == "1" or not torch.cuda.is_available():
    from helpers.ranks import cpu_device

    cpu_device.switch_on()
else:
    from helpers.ranks import transformer_engine_names

    transformer_engine_names.restore()

from megatron.core import mpu
from megatron.core.datasets import utils as dataset_utils
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, MockGPTDataset
from megatron.core.enums import ModelType
from megatron.core.full_cuda_graph import FullCudaGraphWrapper
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.parallel_state import get_hybrid_data_context_parallel_groups
from megatron.core.rerun_state_machine import get_rerun_state_machine
from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
from megatron.core.transformer.multi_token_prediction import get_mtp_ranks, mtp_on_this_rank
from megatron.core.utils import (
    StragglerDetector,
    flatten_batch_for_packed_sequences,
    get_attr_wrapped_model,
    get_batch_on_this_cp_rank,
    get_batch_on_this_tp_rank,
)
from megatron.training import get_args, get_timers, inprocess_restart, pretrain, set_startup_timestamps
from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args
from megatron.training.arguments import core_transformer_config_from_args, parse_and_validate_args
from megatron.training.training import update_seqlen_stats_from_cu_seqlens
from megatron.training.utils import get_blend_and_blend_per_split, is_first_or_last_pipeline_stage
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks import torch_adamw

straggler_timer = StragglerDetector()


# ---- which data a rank loads -------------------------------------------------------------------------------------
@cache
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


def build_datasets(sample_counts: list[int], vp_stage: int | None = None):
    """The train, valid and test datasets with `sample_counts` samples; None on a rank that loads no data."""
    args = get_args()
    named_alike = {field.name for field in dataclasses.fields(GPTDatasetConfig)} & vars(args).keys()
    blend, blend_per_split = get_blend_and_blend_per_split(args)
    sequences_per_dataset = None
    if args.per_dataset_sequences_path is not None:
        with open(args.per_dataset_sequences_path) as file:
            sequences_per_dataset = json.load(file)
    config = GPTDatasetConfig(
        **{name: getattr(args, name) for name in named_alike},
        random_seed=args.seed,
        sequence_length=args.seq_length,
        blend=blend,
        blend_per_split=blend_per_split,
        path_to_cache=args.data_cache_path,
        tokenizer=build_tokenizer(args),
        create_attention_mask=args.create_attention_mask_in_dataloader,
        fast_cache_load=args.dataloader_fast_cache_load,
        sequences_per_dataset=sequences_per_dataset,
        defer_npy_index_mmap=args.dataloader_defer_npy_index_mmap,
        sequence_parallel_size=args.tensor_model_parallel_size * args.sequence_parallel,
        inter_document_masking=args.dataloader_inter_document_masking,
    )
    kind = MockGPTDataset if args.mock_data else GPTDataset
    return BlendedMegatronDatasetBuilder(kind, sample_counts, partial(loads_data, vp_stage), config).build()


build_datasets.is_distributed = True  # tells Megatron to call it on all ranks; `loads_data` decides


# ---- how a batch reaches all ranks -------------------------------------------------------------------------------
WHAT_TO_READ = ["tokens", "labels", "loss_mask", "attention_mask", "position_ids"]
DOCUMENTS = ["cu_seqlens", "cu_seqlens_padded", "max_seqlen"]  # of packed samples: where documents begin
FIELDS = [*WHAT_TO_READ, *DOCUMENTS, "local_cp_size", "hybrid_cp_group"]


def get_batch(data_iterator, vp_stage: int | None) -> dict[str, torch.Tensor | None]:
    """One micro-batch on this rank: tensors of [micro_batch_size, seq_length / context_parallel_size], or None."""
    args = get_args()
    packed = args.dataloader_inter_document_masking
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


# ---- how one micro-batch becomes a loss --------------------------------------------------------------------------
def loss_function(loss_mask: torch.Tensor, output: torch.Tensor):
    """Sum of the token losses, number of tokens, both again for the log. Megatron divides, over all ranks at once."""
    mask = loss_mask.view(-1).float()
    loss = torch.sum(output.view(-1).float() * mask)
    token_count = mask.sum().clone().detach().to(torch.int)

    checks, tests = get_rerun_state_machine(), []
    if get_args().check_for_nan_in_loss_and_grad:
        tests += [(torch.isnan, "found NaN in local forward loss calculation", True)]
        tests += [(torch.isinf, "found Inf in local forward loss calculation", True)]
    if get_args().check_for_spiky_loss:
        spiky = partial(checks.is_unexpectedly_large, threshold=10, context="loss")  # ten times the largest so far
        tests += [(spiky, "Spiky loss", False)]
    for rejects, message, fatal in tests:
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

    read = (batch["tokens"], batch["position_ids"], batch["attention_mask"])
    compare = {"labels": batch["labels"], "loss_mask": batch["loss_mask"]}
    with straggler_timer:
        if return_schedule_plan:  # --overlap-moe-expert-parallel-comm
            output = model.build_schedule_plan(*read, **compare)
        else:
            output = model(*read, **compare, packed_seq_params=boundaries)
    return output, partial(loss_function, batch["loss_mask"])


# ---- from flags to a run -----------------------------------------------------------------------------------------
def embedding_ranks(pipeline_ranks: list[int]) -> list[int]:
    """The ranks of a pipeline that hold a copy of the token embedding."""
    ranks = {pipeline_ranks[0]}
    if len(pipeline_ranks) > 1:
        if not get_args().untie_embeddings_and_output_weights:
            ranks.add(pipeline_ranks[-1])
        ranks.update(get_mtp_ranks(pipeline_ranks, transformer_config()))
    return sorted(ranks)


def keep_the_built_helpers() -> None:
    """Megatron runs make for its C++ index helpers at every start; its wheel has them built, and no Makefile."""
    try:
        import megatron.core.datasets.helpers_cpp  # noqa: F401
    except ImportError:
        return
    dataset_utils.compile_helpers = lambda: None


def leave() -> None:
    """Let recorded steps go (`--cuda-graph-impl`), then the groups: NCCL waits for ever for the other way round."""
    FullCudaGraphWrapper.cuda_graph = dict.fromkeys(FullCudaGraphWrapper.cuda_graph)
    FullCudaGraphWrapper.result = dict.fromkeys(FullCudaGraphWrapper.result)
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@record  # keeps the traceback of the first rank that fails where torchrun finds it
def main() -> None:
    set_startup_timestamps(program_start=PROGRAM_START, main_entry=time.time())
    keep_the_built_helpers()
    torch_adamw.let_it_resume()
    train, store = inprocess_restart.maybe_wrap_for_inprocess_restart(pretrain)
    args = parse_and_validate_args(args_defaults={"tokenizer_type": "GPT2BPETokenizer"})
    config = pretrain_cfg_container_from_args(args, gpt_config_from_args(args))
    kind = ModelType.encoder_or_decoder
    train(config, build_datasets, kind, forward_step, store=store, get_embedding_ranks=embedding_ranks)
    leave()


if __name__ == "__main__":
    main()
