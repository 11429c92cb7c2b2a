"""Pretrain a GPT with Megatron: the script that torchrun runs, once for every rank.

    torchrun --nproc-per-node 2 helpers/ranks/pretrain_gpt.py --tensor-model-parallel-size 2 ...

Megatron Core's wheel brings the training loop (`megatron.training.pretrain`) but no program around it. This is that
program: which datasets there are, how one micro-batch becomes a loss, and `main`, which turns flags into a run. How a
batch reaches all ranks is in `batches`. Every pretraining flag of Megatron works; `refused_flags` lists the ones that
belong to other jobs. What is changed in Megatron at run time stands in one table (`repairs/table`), and only what
MEGATRON_TOUR_CHANGES names is changed. The losses are those of NVIDIA's own `pretrain_gpt.py`: on a CPU bit for bit, on
a GPU but for what that table says.
"""
# ruff: noqa: E402

import time

PROGRAM_START = time.time()

import dataclasses
import gc
import json
import os
import sys
from functools import partial

from helpers.ranks import lifetime, refused_flags
from helpers.ranks.repairs import table

if __name__ == "__main__":  # at once: what is imported below takes seconds
    lifetime.end_with_torchrun()
    refused_flags.refuse_what_is_left_out(sys.argv[1:])
    table.apply()  # before torch and Megatron are imported; the log's first lines say what it did

gc.disable()  # what is imported below is never garbage: looking for some takes a rank half a second

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, MockGPTDataset
from megatron.core.enums import ModelType
from megatron.core.rerun_state_machine import get_rerun_state_machine
from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
from megatron.core.transformer.multi_token_prediction import get_mtp_ranks
from megatron.core.utils import StragglerDetector, get_attr_wrapped_model
from megatron.training import get_args, get_timers, inprocess_restart, pretrain, set_startup_timestamps
from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args
from megatron.training.arguments import parse_and_validate_args
from megatron.training.utils import get_blend_and_blend_per_split
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks import passes
from helpers.ranks.batches import document_boundaries, get_batch, loads_data, transformer_config

gc.freeze()
gc.enable()
straggler_timer = StragglerDetector()


# ---- the data ----------------------------------------------------------------------------------------------------
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


def train() -> None:
    """Megatron's whole training, as the flags in sys.argv say."""
    pretraining, store = inprocess_restart.maybe_wrap_for_inprocess_restart(pretrain)
    args = parse_and_validate_args(args_defaults={"tokenizer_type": "GPT2BPETokenizer"})
    config = pretrain_cfg_container_from_args(args, gpt_config_from_args(args))
    kind = ModelType.encoder_or_decoder
    if folder := os.environ.get(passes.VARIABLE):
        passes.record(folder)
    pretraining(config, build_datasets, kind, forward_step, store=store, get_embedding_ranks=embedding_ranks)


@record  # keeps the traceback of the first rank that fails where torchrun finds it
def main() -> None:
    set_startup_timestamps(program_start=PROGRAM_START, main_entry=time.time())
    try:
        train()
    except SystemExit as end:  # how Megatron ends at --exit-interval
        if end.code:
            raise
    lifetime.leave()


if __name__ == "__main__":
    main()
