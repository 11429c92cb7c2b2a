import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import checkpoint_files
import numpy as np
import pytest
from ask_megatron import ask_megatron, described, placed
from machines import BARE_H200, EIGHT_H200, ONE_2080, ONE_3090, RTX_5090, TWO_B200, TWO_H200

from helpers import recipes, runs
from helpers.corpus import Corpus, index
from helpers.machine import CPU, PROJECT, Machine, shared_memory
from helpers.recipes import Layout, accounting, preflight
from helpers.recipes.preflight import directory
from helpers.recipes.settings import Speed

SMALL = recipes.gpt3_345m().scaled_to("cpu")  # 4 layers × 128, 4 heads, sequence 128, vocabulary 4096
GROUPED = recipes.llama3_8b().scaled_to("cpu")  # 8 heads, 2 groups
MOE = SMALL.with_(num_experts=4)
BIG = recipes.gpt3_345m()
LLAMA = recipes.llama3_8b()
PLAIN = {"distributed_optimizer": False, "fp8_param_gather": False, "grad_reduce_in_bf16": False,
    "moments_in_bf16": False, "speed": Speed()}  # fmt: skip


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """200 documents of 300 tokens, ids below 4096, in Megatron's two files."""
    folder = tmp_path / "corpus"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    prefix = folder / "small_text_document"
    write_corpus(prefix, [300] * 200)
    return Corpus(
        name="small",
        prefix=prefix,
        documents=200,
        tokens=60_000,
        bytes=240_000,
        token_dtype="uint16",
        vocab_size=4096,
        max_token_id=4095,
        eod_id=0,
        tokenizer="bpe-4096",
        tokenizer_path=folder / "tokenizer",
        fingerprint="0123456789ab",
        source_note="written by a test",
    )


def write_corpus(prefix: Path, lengths: list[int], dtype: str = "uint16") -> None:
    with index.Writer(prefix, dtype) as writer:
        for length in lengths:
            writer.add(np.arange(length, dtype=dtype).tobytes(), np.array([length]), np.array([1]))


def refusal(recipe, data, machine, run_directory) -> str:
    with pytest.raises(preflight.PreflightError) as caught:
        preflight.refuse(preflight.check(recipe, data, machine, run_directory))
    assert all(problem.asked and problem.why and problem.change for problem in caught.value.problems)
    return str(caught.value)


def everything_under(folder: Path) -> set:
    return {(path, path.stat().st_size) for path in folder.rglob("*")}


# What is asked: recipe, changes, machine, and what the refusal must say: the numbers asked for and the way out.
REFUSED = {
    "heads not divided by TP": (SMALL, {"tensor_parallel": 3, "processes": 3, "hidden_size": 132}, CPU,
        ["tensor_parallel=3", "num_attention_heads=4", "4 heads", "1, 2 or 4"]),
    "hidden not divided by TP": (SMALL, {"tensor_parallel": 4, "hidden_size": 130, "num_attention_heads": 4}, CPU,
        ["hidden_size=130", "tensor_parallel=4", "130 / 4", "hidden_size=128"]),
    "hidden not divided by heads": (SMALL, {"hidden_size": 100, "num_attention_heads": 6}, CPU,
        ["hidden_size=100", "num_attention_heads=6", "hidden_size=102"]),
    "MLP not divided by TP": (SMALL, {"tensor_parallel": 4, "ffn_hidden_size": 450}, CPU,
        ["ffn_hidden_size=450", "450 / 4", "ffn_hidden_size=448"]),
    "vocabulary not divided by TP": (SMALL, {"tensor_parallel": 4, "vocab_size": 4098}, CPU,
        ["vocab_size=4098", "4098 / 4", "vocab_size=4096"]),
    "groups against TP": (GROUPED, {"num_query_groups": 3, "num_attention_heads": 12, "hidden_size": 144,
        "tensor_parallel": 2}, CPU, ["tensor_parallel=2", "num_query_groups=3", "change: tensor_parallel=1."]),
    "groups not dividing heads": (GROUPED, {"num_query_groups": 3}, CPU,
        ["num_query_groups=3", "8 heads", "1, 2, 4 or 8"]),
    "layers not divided by PP": (SMALL, {"pipeline_parallel": 3}, CPU,
        ["pipeline_parallel=3", "num_layers=4", "4 / 3", "num_layers=3"]),
    "layers for a shorter last stage": (SMALL, {"pipeline_parallel": 4, "num_layers": 30}, CPU,
        ["30 / 4", 'pipeline_layout="Et*8|t*8|t*8|t*6L"']),
    "layers too few for a shorter last stage": (SMALL, {"pipeline_parallel": 4, "num_layers": 5}, CPU,
        ["5 / 4", 'pipeline_layout="Ett|t|t|tL"']),
    "layers not divided by PP x VPP": (SMALL, {"pipeline_parallel": 2, "virtual_pipeline_chunks": 4}, CPU,
        ["virtual_pipeline_chunks=4", "4 / 8", "num_layers=8"]),
    "layers and the loss not divided by PP": (SMALL, {"pipeline_parallel": 2, "account_for_loss": True}, CPU,
        ["account_for_loss", "4 + 1 layers", "5 / 2", "1 or 5"]),
    "embedding counted without PP": (SMALL, {"account_for_embedding": True}, CPU,
        ["account_for_embedding with pipeline_parallel=1", "no pipeline"]),
    "a pipeline layout of unknown letters": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "ET*2|ttL"}, CPU,
        ["'T' stands for nothing", 'pipeline_layout="Ett|ttL"']),
    "a pipeline layout of other stages": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Ett|t|tL"}, CPU,
        ["3 pieces", "2 stages × 1 chunks", 'pipeline_layout="Ett|ttL"']),
    "a pipeline layout of more chunks": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Et|t|t|tL"}, CPU,
        ["4 pieces", "virtual_pipeline_chunks=2"]),
    "a pipeline layout of other layers": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Et*3|ttL"}, CPU,
        ["num_layers=4", "5 layers"]),
    "a pipeline layout without a loss": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Ett|tt"}, CPU,
        ["ends with output and loss", 'pipeline_layout="Ett|ttL"']),
    "a pipeline layout that begins with a layer": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "tEt|ttL"}, CPU,
        ["begins with the embedding"]),
    "a pipeline layout without a pipeline": (SMALL, {"pipeline_layout": "EttttL"}, CPU,
        ["pipeline_parallel=1", "pipeline_layout=None"]),
    "a pipeline layout and layers dealt out": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Ettt|tL",
        "account_for_loss": True}, CPU, ["one or the other"]),
    "a pipeline layout of millions": (SMALL, {"pipeline_parallel": 2, "pipeline_layout": "Et*99999999|ttL"}, CPU,
        ["more than 10,000 times"]),
    "a schedule from a CUDA graph": (recipes.gpt3_345m(), {"record_schedule": True, "cuda_graph": True}, TWO_H200,
        ["record_schedule with cuda_graph", "cuda_graph=False"]),
    "VPP without PP": (SMALL, {"virtual_pipeline_chunks": 2}, CPU,
        ["virtual_pipeline_chunks=2", "pipeline_parallel=1", "pipeline_parallel=2"]),
    "VPP with odd micro-batches": (SMALL, {"pipeline_parallel": 2, "virtual_pipeline_chunks": 2,
        "micro_batch_size": 4, "global_batch_size": 12}, CPU, ["3 micro-batches", "PP = 2", "global_batch_size=16"]),
    "sequence not divided by 2 CP": (SMALL, {"context_parallel": 2, "sequence_length": 126}, CPU,
        ["context_parallel=2", "sequence_length=126", "126 / 4", "sequence_length=128"]),
    "sequence not divided by TP with SP": (SMALL, {"tensor_parallel": 4, "sequence_parallel": True,
        "sequence_length": 126}, CPU, ["sequence_length=126", "126 / 4", "sequence_length=128"]),
    "sequence divided by 2 CP but its part not by TP": (SMALL, {"tensor_parallel": 4, "context_parallel": 2,
        "sequence_parallel": True, "sequence_length": 124}, CPU, ["sequence of 62", "62 / 4", "sequence_length=128"]),
    "processes not a multiple of TP": (SMALL, {"processes": 3, "tensor_parallel": 2}, CPU,
        ["processes=3", "2 × 1 × 1 = 2", "processes=4"]),
    "processes not a multiple of TP x PP x CP": (SMALL, {"processes": 6, "tensor_parallel": 2, "pipeline_parallel": 2,
        "context_parallel": 2}, CPU, ["processes=6", "2 × 2 × 2 = 8", "processes=8"]),
    "fewer processes than TP": (SMALL, {"processes": 1, "tensor_parallel": 2}, CPU, ["processes=1", "processes=2"]),
    "processes not a multiple of ETP x EP x PP": (MOE, {"processes": 2, "tensor_parallel": 2, "expert_parallel": 2,
        "sequence_parallel": True, "linear_bias": False}, CPU,
        ["expert_parallel=2", "2 × 2 × 1 = 4", "processes=4", "expert_tensor_parallel=1"]),
    "changes left out that are no names": (SMALL, {"without": None}, CPU, ["without=None", "tuple of names"]),
    "EP without experts": (SMALL, {"expert_parallel": 2}, CPU, ["expert_parallel=2", "num_experts=2"]),
    "experts not divided by EP": (SMALL, {"num_experts": 3, "expert_parallel": 2, "processes": 2}, CPU,
        ["num_experts=3", "expert_parallel=2", "3 / 2", "num_experts=4"]),
    "more experts visited than there are": (MOE, {"moe_router_topk": 5}, CPU,
        ["moe_router_topk=5", "moe_router_topk=4"]),
    "one expert a token": (MOE, {"moe_router_topk": 1}, CPU, ["moe_router_topk=1", "--moe-router-pre-softmax"]),
    "experts with TP and no SP": (MOE, {"tensor_parallel": 2, "expert_tensor_parallel": 1}, CPU,
        ["tensor_parallel=2", "num_experts=4", "sequence_parallel=True"]),
    "split experts with biases": (MOE, {"tensor_parallel": 2, "sequence_parallel": True}, CPU,
        ["expert_tensor_parallel=2", "linear_bias=True", "expert_tensor_parallel=1"]),
    "global batch against micro-batch": (SMALL, {"micro_batch_size": 3, "global_batch_size": 8}, CPU,
        ["global_batch_size=8", "micro_batch_size=3", "3 × 1 = 3", "global_batch_size=9", "micro_batch_size=2"]),
    "global batch against micro-batch x DP": (SMALL, {"processes": 4, "micro_batch_size": 4, "global_batch_size": 24},
        CPU, ["global_batch_size=24", "4 × 4 = 16", "global_batch_size=32"]),
    "more ranks than GPUs": (BIG, {"processes": 4, "global_batch_size": 128}, TWO_H200,
        ["4 processes", "2 × NVIDIA H200", "2 visible GPUs", "processes=2"]),
    "no micro-batch": (SMALL, {"micro_batch_size": 0}, CPU, ["micro_batch_size=0", "micro_batch_size=1"]),
    "no tensor parallelism at all": (SMALL, {"tensor_parallel": 0}, CPU, ["tensor_parallel=0", "tensor_parallel=1"]),
    "half a layer": (SMALL, {"num_layers": 2.5}, CPU, ["num_layers=2.5", "whole numbers"]),
    "no steps": (SMALL, {"train_iters": 0}, CPU, ["train_iters=0", "train_iters=1"]),
    "eval interval left out": (SMALL, {"eval_interval": None}, CPU, ["eval_interval=None", "eval_interval=100"]),
    "warm-up longer than training": (SMALL, {"train_iters": 10, "lr_warmup_iters": 10}, CPU,
        ["lr_warmup_iters=10", "train_iters=10", "lr_warmup_iters=1", "train_iters=100"]),
    "min_lr above lr": (SMALL, {"lr": 1e-4, "min_lr": 1e-3}, CPU, ["lr=0.0001", "min_lr=0.001", "min_lr=1e-05"]),
    "a learning rate in quotes": (SMALL, {"lr": "3e-4", "dropout": None}, CPU, ["lr='3e-4'", "dropout=None"]),
    "a warm-up backwards": (SMALL, {"lr_warmup_iters": -5}, CPU, ["lr_warmup_iters=-5", "from 0"]),
    "evaluations unsaid": (SMALL, {"eval_iters": None}, CPU, ["eval_iters=None", "from 0"]),
    "all dropped out": (SMALL, {"dropout": 1.0}, CPU, ["dropout=1.0", "0.1"]),
    "unknown activation": (SMALL, {"activation": "swiglue"}, CPU, ["activation='swiglue'", "'swiglu'"]),
    "unknown dtype": (SMALL, {"dtype": "float32"}, CPU, ["dtype='float32'", "'fp32'"]),
    "unknown recompute": (SMALL, {"recompute": "partial"}, CPU, ["recompute='partial'", "'selective'"]),
    "FP8 on a CPU": (GROUPED, {"fp8_format": "hybrid", "dtype": "bf16"}, CPU,
        ['fp8_format="hybrid"', "2-core CPU", "fp8_format=None"]),
    "FP8 before Ada": (LLAMA, {"num_layers": 2, "hidden_size": 1024, "vocab_size": 4096, "sequence_length": 1024},
        ONE_3090, ["RTX 3090", "8.6", "8.9", "fp8_format=None trains in bf16"]),
    "MXFP8 on Hopper": (LLAMA, {"fp8_recipe": "mxfp8", "tensor_parallel": 2}, TWO_H200,
        ["mxfp8", "10.0", "9.0", '"tensorwise"']),
    "MXFP8 on an RTX 5090": (LLAMA, {"fp8_recipe": "mxfp8"}, Machine(gpus=(RTX_5090,), transformer_engine=True),
        ["mxfp8", "RTX 5090 has 12.0", "Transformer Engine", '"tensorwise"']),
    "FP8 without Transformer Engine": (LLAMA, {"num_layers": 2}, BARE_H200,
        ["without Transformer Engine", "uv sync --extra gpu"]),
    "FP8 with a width not in blocks of 16": (LLAMA, {"ffn_hidden_size": 14344, "tensor_parallel": 2}, TWO_H200,
        ["14344 / 2", "16", "14336"]),
    "FP8 weights without the distributed optimizer": (LLAMA, PLAIN | {"tensor_parallel": 2, "fp8_param_gather": True},
        TWO_H200, ["fp8_param_gather", "distributed_optimizer=True"]),
    "CP on a GPU without Transformer Engine": (BIG, {"context_parallel": 2, "micro_batch_size": 1}, BARE_H200,
        ["context_parallel=2", "context_parallel=1"]),
    "SP on a GPU without Transformer Engine": (BIG, {"tensor_parallel": 2, "sequence_parallel": True,
        "micro_batch_size": 1}, BARE_H200, ["sequence_parallel", "sequence_parallel=False"]),
    "8B on one H200": (LLAMA.with_(**PLAIN), {}, TWO_H200,
        ["GB more than the GPU's 151 GB", "optimizer 96.4 GB", "tensor_parallel=2, sequence_parallel=True, processes=2",
         "distributed_optimizer=True (saves 48.2 GB, which fits)"]),
    "FSDP without the distributed optimizer": (LLAMA, {**PLAIN, "processes": 2, "megatron_fsdp": True,
        "recompute": "full"}, TWO_H200, ["megatron_fsdp", "distributed_optimizer=True"]),
    "FSDP in a CUDA graph": (LLAMA, {"processes": 2, "megatron_fsdp": True, "cuda_graph": True},
        TWO_H200, ["cuda_graph with megatron_fsdp", "cuda_graph=False"]),
    "moments in bf16 without shares": (LLAMA, {"distributed_optimizer": False, "overlap_communication": False},
        TWO_H200, ["moments_in_bf16", "distributed_optimizer=True"]),
    "moments in bf16 with delayed scaling": (LLAMA, {"fp8_recipe": "delayed", "processes": 2},
        TWO_H200, ['fp8_recipe="delayed"', "moments_in_bf16=False"]),
    "overlap without the distributed optimizer": (BIG, {"overlap_communication": True}, TWO_H200,
        ["overlap_communication", "distributed_optimizer=True"]),
    "tensor overlap without sequence parallelism": (BIG, {"overlap_tensor_parallel": True, "tensor_parallel": 2},
        TWO_H200, ["overlap_tensor_parallel with TP2", "sequence_parallel=True"]),
    "CUDA graph without Transformer Engine": (BIG, {"cuda_graph": True, "micro_batch_size": 1}, BARE_H200,
        ["cuda_graph without Transformer Engine", "cuda_graph=False"]),
    "CUDA graph of experts": (BIG, {"cuda_graph": True, "num_experts": 4}, TWO_H200,
        ["cuda_graph with num_experts=4", "cuda_graph=False"]),
    "345M on 8 GB": (BIG, {}, ONE_2080,
        ["8.6 GB", "micro_batch_size=1", "which fits"]),
    "8B on a laptop": (LLAMA, {"fp8_format": None}, CPU, ["8.6 GB", "recipe.scaled_to(machine)"]),
    "fine-tuning flag": (SMALL, {"extra_flags": ("--sft",)}, CPU, ["--sft", "supervised fine-tuning", "entry_script"]),
    "ModelOpt flag": (SMALL, {"extra_flags": ("--export-te-mcore-model",)}, CPU,
        ["--export-te-mcore-model", "ModelOpt"]),
    "the MLP recomputed with biases": (SMALL,
        {"extra_flags": ("--recompute-activations", "--recompute-modules", "mlp")}, CPU,
        ["--recompute-modules", "forever", "--disable-bias-linear"]),
    "an optimizer taken off the GPU": (SMALL, {"extra_flags": ("--optimizer-cpu-offload",)}, CPU,
        ["--optimizer-cpu-offload on 2-core CPU", "where it is already", "Leave it out"]),
    "a CUDA graph by flag": (SMALL, {"extra_flags": ("--cuda-graph-impl", "local")}, CPU,
        ["--cuda-graph-impl", "kernels of a GPU", "Leave it out"]),
    "nsys": (SMALL, {"extra_flags": ("--profile",)}, CPU, ["--profile", "nsys", "--use-pytorch-profiler"]),
    "latent attention in tensor-parallel shares": (SMALL, {"tensor_parallel": 2, "extra_flags":
        ("--multi-latent-attention",)}, CPU, ["--multi-latent-attention", "gradient", "--context-parallel-size"]),
    "training part of weight 0": (SMALL, {"split": "0,50,50"}, CPU, ["train part has weight 0", 'split="90,5,5"']),
    "validation part of weight 0": (SMALL, {"split": "100,0,0"}, CPU, ["valid part has weight 0", "eval_iters=0"]),
    "empty test part": (SMALL, {"split": "949,50,1"}, CPU,
        ['split="949,50,1" of 200 documents', "test part gets 0.10%", "0 documents", 'split="990,5,5"']),
    "empty test part though never evaluated": (SMALL, {"split": "949,50,1", "eval_iters": 0}, CPU,
        ["test part gets 0.10%", "forever"]),
    "validation part shorter than a sample": (SMALL, {"sequence_length": 400, "split": "198,1,1"}, CPU,
        ["valid part has 300 tokens", "401", "sequence_length=256"]),
    "split that is none": (SMALL, {"split": "most,few"}, CPU, ["split='most,few'", "90,5,5"]),
    "a name with a line of its own": (SMALL, {"name": "x\ntouch ran"}, CPU, [r"name='x\ntouch ran'", "names a folder"]),
    "a name outside": (SMALL, {"name": "../escape"}, CPU, ["name='../escape'", "names a folder"]),
    "no name": (SMALL, {"name": ""}, CPU, ["name=''", "names a folder"]),
    "a name that is a dot": (SMALL, {"name": "."}, CPU, ["name='.'"]),
    "a name of 300 characters": (SMALL, {"name": "n" * 300}, CPU, ["up to 100"]),
    "a name that is none": (SMALL, {"name": None}, CPU, ["name=None"]),
    "a number for a name": (SMALL, {"name": 5}, CPU, ["name=5"]),
    "a tokenizer that is none": (SMALL, {"tokenizer": None}, CPU, ["tokenizer=None", "corpus.prepare(tokenizer=…)"]),
    "a part of another kind": (dataclasses.replace(SMALL, model="gpt"), {}, CPU, ["model='gpt'", "recipes.Model"]),
    "an endless learning rate": (SMALL, {"lr": float("inf")}, CPU, ["lr=inf", "from 0"]),
    "a switch for a learning rate": (SMALL, {"lr": True}, CPU, ["lr=True"]),
    "endless numbers": (SMALL, {"weight_decay": float("inf"), "init_method_std": float("nan")}, CPU,
        ["weight_decay=inf", "init_method_std=nan"]),
    "Adam that forgets nothing": (SMALL, {"adam_beta2": 1.0}, CPU, ["adam_beta2=1.0", "below 1"]),
    "Adam beyond 1": (SMALL, {"adam_beta2": 5}, CPU, ["adam_beta2=5", "below 1"]),
    "half a step of warm-up": (SMALL, {"lr_warmup_iters": 2.5}, CPU, ["lr_warmup_iters=2.5", "whole number"]),
    "a switch for a size": (SMALL, {"tensor_parallel": True}, CPU, ["tensor_parallel=True", "whole numbers from 1"]),
    "a number for a switch": (SMALL, {"sequence_parallel": 2}, CPU, ["sequence_parallel=2", "sequence_parallel=True"]),
    "a seed in letters": (SMALL, {"seed": "x"}, CPU, ["seed='x'", "whole number"]),
    "a seed of 64 bits": (SMALL, {"seed": 2**63}, CPU, ["from 0 to 2,147,483,647"]),
    "no split": (SMALL, {"split": None}, CPU, ["split=None", "'90,5,5'"]),
    "a split of numbers": (SMALL, {"split": (90, 5, 5)}, CPU, ["split=(90, 5, 5)", "'90,5,5'"]),
    "flags in one string": (SMALL, {"extra_flags": "--bf16 --swiglu"}, CPU, ["('--bf16', '--swiglu')"]),
    "flags that are none": (SMALL, {"extra_flags": None}, CPU, ["extra_flags=None", "extra_flags=()"]),
    "a number for a flag": (SMALL, {"extra_flags": (5,)}, CPU, ["extra_flags=(5,)", "('5',)"]),
    "an unknown flag": (SMALL, {"extra_flags": ("--micro-batch-sise", "4")}, CPU,
        ["Megatron has no such flag", '"--micro-batch-size"']),
    "a folder of the run's own": (SMALL, {"extra_flags": ("--save", "elsewhere")}, CPU,
        ["--save", "its own directory", "save_interval=100"]),
    "a checkpoint in the place of the run's own": (SMALL, {"extra_flags": ("--load=elsewhere",)}, CPU,
        ["--load", "its own checkpoints", "--pretrained-checkpoint"]),
    "curves elsewhere, by a flag cut short": (SMALL, {"extra_flags": ("--tensorboard-d", "elsewhere")}, CPU,
        ["--tensorboard-d", "its own directory"]),
    "help": (SMALL, {"extra_flags": ("--bf16", "-h")}, CPU, ["--help", "trains nothing"]),
    "a choice that Megatron has not": (SMALL, {"extra_flags": ("--lr-decay-style", "nope")}, CPU,
        ["--lr-decay-style nope", "none of its choices: constant, linear, cosine"]),
    "a word for a number": (SMALL, {"extra_flags": ("--num-experts", "x")}, CPU,
        ["--num-experts x", "'x' is not a whole number", "Number of Experts"]),
    "a value for a switch": (SMALL, {"extra_flags": ("--swiglu=1",)}, CPU, ["It is a switch"]),
    "flag and value in one word": (SMALL, {"extra_flags": ("--lr 3e-4",)}, CPU, ["('--lr', '3e-4')"]),
    "a value without a flag": (SMALL, {"extra_flags": ("bf16",)}, CPU, ["extra_flags bf16", "begins with --"]),
    "a W&B project of two lines": (SMALL, {"wandb_project": "a\nb"}, CPU, ["wandb_project", "one line"]),
    "a W&B run that is a flag": (SMALL, {"wandb_project": "a", "wandb_run_name": "--save"}, CPU, ["wandb_run_name"]),
    "a W&B user that is a number": (SMALL, {"wandb_entity": 5}, CPU, ["wandb_entity=5"]),
    "token ids above the vocabulary": (SMALL, {"vocab_size": 1024}, CPU, ["4,095", "1,023", "vocab_size=4096"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_words(case, corpus, tmp_path):
    recipe, changes, machine, words = REFUSED[case]
    before = everything_under(tmp_path)
    message = refusal(recipe.with_(**changes), corpus, machine, tmp_path / "runs" / "new")
    assert everything_under(tmp_path) == before, "something was left behind"
    assert [word for word in words if word not in message] == [], message


def truncate(path: Path, drop: int) -> None:
    os.truncate(path, path.stat().st_size - drop)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


DAMAGED = {
    "bin missing": (lambda c: index.bin_path(c.prefix).unlink(), [".bin does not exist", "corpus.prepare"]),
    "idx missing": (lambda c: index.idx_path(c.prefix).unlink(), [".idx does not exist", "corpus.prepare"]),
    "bin truncated": (lambda c: truncate(index.bin_path(c.prefix), 100), ["119,900", "120,000", "corpus.prepare"]),
    "idx truncated": (lambda c: truncate(index.idx_path(c.prefix), 8), ["200", "truncated", "corpus.prepare"]),
    "idx shorter than its header": (lambda c: os.truncate(index.idx_path(c.prefix), 20), ["34-byte header", "20"]),
    "wrong magic": (lambda c: overwrite(index.idx_path(c.prefix), 0, b"PK\x03\x04"), ["MMIDIDX", "PK"]),
    "idx of another dtype": (lambda c: write_corpus(c.prefix, [300] * 200, "int32"), ["int32", "uint16"]),
    "dtype code that holds no tokens": (lambda c: overwrite(index.idx_path(c.prefix), 17, b"\x06"), ["dtype code 6"]),
    "tokenizer missing": (lambda c: (c.tokenizer_path / "tokenizer.json").unlink(), ["bpe-4096", "there is nothing"]),
    "two documents": (lambda c: write_corpus(c.prefix, [300] * 2), ["2 documents", "at least 3 documents"]),
    "no documents": (lambda c: write_corpus(c.prefix, []), ["0 documents", "at least 3 documents"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_data_is_refused_in_words(case, corpus, tmp_path):
    damage, words = DAMAGED[case]
    damage(corpus)
    before = everything_under(tmp_path)
    message = refusal(SMALL, corpus, CPU, tmp_path / "runs" / "new")
    assert everything_under(tmp_path) == before, "something was left behind"
    assert [word for word in words if word not in message] == [], message


def test_a_good_recipe_passes_and_leaves_nothing(corpus, tmp_path):
    before = everything_under(tmp_path)
    assert preflight.check(SMALL, corpus, CPU, tmp_path / "runs" / "new") == []
    assert preflight.check(SMALL, None, CPU) == []
    assert everything_under(tmp_path) == before


def test_the_full_recipes_pass_where_they_fit(corpus):
    gpt2 = dataclasses.replace(corpus, vocab_size=50257)
    roomy = {"split": "98,1,1", "sequence_length": 256}
    for recipe, machine in (
        (BIG, TWO_H200),
        (recipes.gpt3_857m().with_(processes=2), TWO_H200),
        (LLAMA.with_(tensor_parallel=2, sequence_parallel=True), TWO_H200),
        (LLAMA.with_(processes=8, distributed_optimizer=True), EIGHT_H200),
        (BIG.scaled_to(ONE_3090), ONE_3090),
        (LLAMA.scaled_to(ONE_3090), ONE_3090),
        (LLAMA.with_(tensor_parallel=2, fp8_recipe="mxfp8"), TWO_B200),
    ):
        assert preflight.check(recipe, None, machine) == [], recipe
        assert preflight.check(recipe.with_(**roomy), gpt2, machine) == []


def test_all_problems_are_told_at_once(corpus, tmp_path):
    index.bin_path(corpus.prefix).unlink()
    message = refusal(SMALL.with_(tensor_parallel=3, min_lr=1.0, extra_flags=("--sft",)), corpus, CPU, tmp_path)
    for word in ("tensor_parallel=3", "--sft", ".bin does not exist"):
        assert word in message
    assert message.startswith("3 things cannot work")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequence_parallel": True}, ["sequence_parallel", "tensor_parallel=1"]),
        ({"wandb_project": "tour", "tensorboard": False}, ['wandb_project="tour"', "turned on for you"]),
        ({"extra_flags": ("--seq-length", "64")}, ["--seq-length", "recipe.with_"]),
    ],
)
def test_surprises_are_warnings(changes, words, corpus):
    (problem,) = preflight.check(SMALL.with_(**changes), corpus, CPU)
    assert problem.severity == "warning"
    assert [word for word in words if word not in str(problem)] == []


def test_bf16_before_ampere_is_a_warning():
    machine = ONE_2080
    (problem,) = preflight.check(SMALL.with_(dtype="bf16"), None, machine)
    assert problem.severity == "warning" and "7.5" in problem.why and "fp16" in problem.change


def test_bf16_on_a_cpu_that_is_slow_at_it_is_a_warning_with_the_factor():
    slow = dataclasses.replace(CPU, fast_cpu_bf16=False)
    recipe = GROUPED.with_(dtype="bf16")
    (problem,) = preflight.check(recipe, None, slow)
    assert problem.severity == "warning" and problem.change == 'dtype="fp32".'
    bf16, fp32 = (runs.recorded("cpu", f"llama3_small_{d}").figures()["tokens/s/GPU"] for d in ("bf16", "fp32"))
    assert f"{fp32 / bf16:.0f} times" in problem.why
    for fine, where in ((recipe.with_(dtype="fp32"), slow), (recipe, CPU)):
        assert preflight.check(fine, None, where) == []


def test_a_gpu_without_transformer_engine_is_told_what_that_costs():
    (problem,) = preflight.check(BIG.with_(micro_batch_size=8, cuda_graph=False), None, BARE_H200)
    assert problem.severity == "warning" and "uv sync --extra gpu" in problem.change
    assert "63,172 instead of 71,135 tokens/s" in problem.why
    local, layers = (runs.recorded("h200", f"gpt3_345m_{name}_8").figures() for name in ("local", "micro"))
    for run in (local, layers):
        assert f"{run['tokens/s/GPU']:,.0f}" in problem.why and f"{run['peak memory GB']:.1f}" in problem.why


def test_a_recorded_step_with_evaluations_needs_room():
    full = BIG.with_(micro_batch_size=96, global_batch_size=96)
    (problem,) = preflight.check(full, None, TWO_H200)
    assert problem.severity == "warning" and "9.7 GB" in problem.why and "eval_iters=0" in problem.change
    for roomy in (full.with_(cuda_graph=False), full.with_(eval_iters=0), BIG):
        assert preflight.check(roomy, None, TWO_H200) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"pipeline_parallel": 2}, "PP2"), ({"dtype": "fp16"}, "fp16"), ({"recompute": "full"}, "full")],
)
def test_a_recorded_step_that_nobody_has_measured_is_warned_of(changes, what):
    (problem,) = preflight.check(BIG.with_(**changes), None, TWO_H200)
    assert problem.severity == "warning" and what in problem.asked and "cuda_graph=False" in problem.change


def test_the_environment_must_not_contradict_tensor_parallelism(monkeypatch):
    recipe = BIG.with_(tensor_parallel=2)
    assert preflight.check(recipe, None, TWO_H200) == []
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8")
    (problem,) = preflight.check(recipe, None, TWO_H200)
    assert "CUDA_DEVICE_MAX_CONNECTIONS=8" in problem.asked and "unset" in problem.change
    assert preflight.check(recipe, None, TWO_B200) == []


def test_a_script_of_the_learners_own_may_do_other_jobs():
    recipe = BIG.with_(extra_flags=("--sft",))
    assert "--sft" in refusal(recipe, None, TWO_H200, None)
    assert preflight.check(recipe, None, TWO_H200, entry_script="pretrain_gpt.py") == []


def test_flags_that_only_break_on_a_cpu_are_left_to_a_gpu():
    for flags in ("--optimizer-cpu-offload",), ("--profile",), ("--recompute-modules", "mlp"):
        assert preflight.check(BIG.with_(extra_flags=flags), None, TWO_H200) == []


def test_no_disk_for_a_checkpoint(tmp_path, monkeypatch):
    usage = directory.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(directory.shutil, "disk_usage", lambda path: usage._replace(free=12 * 10**9))
    recipe = BIG.with_(train_iters=200, save_interval=50, keep=2)
    message = refusal(recipe, None, TWO_H200, tmp_path / "new")
    for word in ("save_interval=50 with keep=2", "5.0 GB", "3 on disk at once 14.9 GB", "12.0 GB is free", "keep=1"):
        assert word in message, message
    assert preflight.check(recipe.with_(keep=1), None, TWO_H200, tmp_path / "new") == []
    assert preflight.check(recipe.with_(save_interval=None), None, TWO_H200, tmp_path / "new") == []
    # One of the run's own checkpoints lies there already: only two more need room.
    described = tmp_path / "new" / "20260101-000000" / "recipe.json"
    checkpoint_files.write(described.parent / "checkpoints", 50)
    described.write_text(f'{{"fingerprint": "{recipe.fingerprint(None)}"}}')
    runs.trust(described.parent)
    assert preflight.check(recipe, None, TWO_H200, tmp_path / "new") == []
    # But launch picks up neither a run with another entry script nor a finished one.
    (full,) = preflight.check(recipe, None, TWO_H200, tmp_path / "new", entry_script="mine.py")
    assert "3 on disk at once 14.9 GB" in full.why
    described.with_name("status.json").write_text('{"state": "finished"}')
    assert "3 on disk at once 14.9 GB" in refusal(recipe, None, TWO_H200, tmp_path / "new")


def test_a_limit_on_files_that_a_checkpoint_breaks(tmp_path, file_size_limit):
    recipe = BIG.with_(train_iters=200, save_interval=50, keep=1)
    file_size_limit(6 * 10**9)
    assert preflight.check(recipe, None, TWO_H200, tmp_path) == []
    file_size_limit(10**9)
    message = refusal(recipe, None, TWO_H200, tmp_path)
    for word in (
        "save_interval=50",
        "5.0 GB",
        "`ulimit -f` allows 1.0 GB",
        "ulimit -f unlimited",
        "save_interval=None",
    ):
        assert word in message, message
    assert preflight.check(recipe.with_(save_interval=None), None, TWO_H200, tmp_path) == []


def test_shared_memory_that_takes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path / "not there")
    message = refusal(BIG, None, TWO_H200, tmp_path)
    for word in ("--num-workers 1", "not there: No such file", "--ipc=host", 'extra_flags=("--num-workers", "0")'):
        assert word in message, message
    alone = BIG.with_(extra_flags=("--num-workers", "0"))
    assert not [problem for problem in preflight.check(alone, None, TWO_H200, tmp_path) if problem.severity == "error"]


def test_checkpoints_of_8b_need_a_disk(tmp_path):
    free = directory.shutil.disk_usage(tmp_path).free
    recipe = LLAMA.with_(tensor_parallel=2, sequence_parallel=True, save_interval=1, train_iters=10**6, keep=10**5)
    assert accounting.checkpoint_bytes(recipe) * 10**5 > free
    assert "113 GB" in refusal(recipe, None, TWO_H200, tmp_path)


def test_a_directory_with_another_recipes_checkpoint(corpus, tmp_path):
    saved = tmp_path / "run" / "checkpoints"
    saved.mkdir(parents=True)
    described = tmp_path / "run" / "recipe.json"
    described.write_text(f'{{"fingerprint": "{SMALL.fingerprint(corpus)}"}}')
    assert preflight.check(SMALL.with_(num_layers=2), corpus, CPU, tmp_path / "run") == []  # nothing saved yet
    (saved / "latest_checkpointed_iteration.txt").write_text("40")
    assert preflight.check(SMALL, corpus, CPU, tmp_path / "run") == []
    message = refusal(SMALL.with_(num_layers=2), corpus, CPU, tmp_path / "run")
    assert "step 40" in message and SMALL.fingerprint(corpus) in message and "fresh=True" in message
    described.unlink()
    assert "unknown" in refusal(SMALL, corpus, CPU, tmp_path / "run")


def test_a_damaged_directory_is_named(tmp_path):
    (tmp_path / "recipe.json").mkdir()
    assert f"{tmp_path / 'recipe.json'} is damaged: it is a folder" in refusal(SMALL, None, CPU, tmp_path)


class Runs:
    """A pickle that creates a file when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_checkpoint_from_elsewhere_is_loaded_only_when_asked_for(corpus, tmp_path):
    foreign = tmp_path / "runs" / "20260101-000000"
    (foreign / "checkpoints" / "iter_0000040").mkdir(parents=True)
    (foreign / "checkpoints" / "iter_0000040" / ".metadata").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    described = dataclasses.asdict(SMALL) | preflight.identity(SMALL, corpus, None)
    (foreign / "recipe.json").write_text(json.dumps(described))
    message = refusal(SMALL, corpus, CPU, tmp_path / "runs")
    assert str(foreign) in message and "not written by a run of yours" in message
    assert f'runs.trust("{foreign}")' in message and "fresh=True" in message
    loading = SMALL.with_(extra_flags=(f"--pretrained-checkpoint={foreign}",))
    assert refusal(loading, corpus, CPU, tmp_path / "new").count("not written by a run of yours") == 1
    runs.trust(foreign)
    assert preflight.check(SMALL, corpus, CPU, tmp_path / "runs") == []
    assert all(problem.severity == "warning" for problem in preflight.check(loading, corpus, CPU, tmp_path / "new"))
    assert not (tmp_path / "ran").exists()


def test_a_place_with_a_line_break_is_refused(tmp_path):
    assert "A folder whose name can be printed" in refusal(SMALL, None, CPU, tmp_path / "a\nb")


def test_a_directory_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "small").write_text("not a folder")
    for place in (tmp_path / "small", tmp_path / "small" / "new"):
        message = refusal(SMALL, None, CPU, place)
        assert f"{tmp_path / 'small'} is a file, and a folder of that name" in message and "Move it away" in message
    places = [Path("/proc/run")]  # root may write anywhere but into /proc
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        places.append(tmp_path / "closed" / "run")
    for place in places:
        message = refusal(SMALL, None, CPU, place)
        assert str(place) in message and "cannot be written to" in message
        assert "runs_dir=<a folder of yours>" in message and "MEGATRON_TOUR_RUNS" not in message
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", "/proc")
    assert "MEGATRON_TOUR_RUNS=<a folder of yours> in the environment" in refusal(SMALL, None, CPU, Path("/proc/run"))


def test_neither_megatron_nor_torch_is_imported(corpus):
    program = (
        "import sys\n"
        "from helpers import recipes\n"
        "from helpers.machine import CPU\n"
        "recipe = recipes.gpt3_345m().scaled_to('cpu').with_(tensor_parallel=3, extra_flags=('--sft',))\n"
        "problems = recipes.preflight.check(recipe, None, CPU, '/tmp/never/made')\n"
        "assert len(problems) == 2, problems\n"
        "heavy = {'torch', 'megatron', 'transformers', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True)
    assert not Path("/tmp/never").exists()


def random_recipe(draw: random.Random):
    """A recipe of sizes that may or may not go together. What only shows in the first step is kept in order."""
    pick = draw.choice
    layout = Layout(
        tensor_parallel=pick([1, 1, 2, 2, 3, 4]),
        pipeline_parallel=pick([1, 1, 2, 3]),
        context_parallel=pick([1, 1, 1, 1, 2, 2, 5]),
        expert_parallel=pick([1, 1, 1, 2, 3]),
        expert_tensor_parallel=pick([None, 1, 1, 2]),
        sequence_parallel=True,
    )
    layout = dataclasses.replace(layout, processes=layout.model_parallel * pick([1, 1, 2, 3]) + pick([0] * 19 + [1]))
    data = max(1, layout.data_parallel)
    heads, groups = pick([(4, 2), (4, 4), (6, 2), (6, 3), (12, 2), (12, 3), (12, 4)])
    return GROUPED.with_(
        layout=layout,
        num_layers=pick([4, 6, 12]),
        num_attention_heads=heads,
        hidden_size=pick([96, 144, 144, 144, 150]),
        num_query_groups=groups,
        ffn_hidden_size=pick([192] * 7 + [200]),
        vocab_size=pick([768] * 7 + [770]),
        sequence_length=144,
        num_experts=pick([None, 4, 6]) if layout.expert_parallel > 1 or pick([True, False]) else None,
        linear_bias=pick([True, False, False]),
        micro_batch_size=pick([1, 2]),
        global_batch_size=2 * data * pick([1, 3]) + pick([0] * 19 + [1]),
        eval_iters=0,
    )


def test_preflight_and_megatron_say_the_same():
    """Sixty random recipes: what Megatron refuses preflight refuses, and nothing more."""
    draw = random.Random(7)
    drawn = [random_recipe(draw) for _ in range(60)]
    questions = [
        {
            "what": "complaint",
            "flags": recipe.flags(None, CPU, "/tmp/never"),
            "model": described(recipe.model),
            "layout": placed(recipe.layout),
        }
        for recipe in drawn
    ]
    differ, refused = [], 0
    roomy = Machine(memory_bytes=2**40)
    for recipe, megatron in zip(drawn, ask_megatron(questions), strict=True):
        ours = [problem for problem in preflight.check(recipe, None, roomy) if problem.severity == "error"]
        refused += bool(ours)
        if bool(ours) != bool(megatron):
            differ.append((recipe.layout, recipe.model, recipe.batch, megatron, ours))
    assert differ == []
    assert 15 < refused < 45, refused


def test_there_are_at_least_forty_refusals():
    assert len(REFUSED) + len(DAMAGED) >= 40


@pytest.mark.parametrize(
    ("field", "value", "change"),
    [
        ("num_layers", "2", "num_layers=2, without them."),
        ("lr", "1e-4", "lr=0.0001, without them."),
        ("cuda_graph", "True", "cuda_graph=True, without them."),
        ("save_interval", "None", "save_interval=None, without them."),
        ("num_layers", "0", "num_layers=1 or more."),
        ("num_layers", "two", "num_layers=1 or more."),
        ("lr", "1,5", "lr=0 or more."),
    ],
)
def test_a_number_in_quotes_is_advised_without_them(field, value, change):
    (problem,) = preflight.check(SMALL.with_(**{field: value}), None, CPU)
    assert problem.change == change and (f"{value!r} is a text" in problem.why) == change.endswith("without them.")


def test_a_corpus_in_the_place_of_a_tokenizer_is_told_on_one_line(small_corpus):
    (problem,) = preflight.check(SMALL.with_(tokenizer=small_corpus), None, CPU)
    assert "\n" not in problem.asked and "tokenizer=str(data.tokenizer_path)" in problem.change
