"""Flags that cannot do what they ask for: other jobs than `pretrain_gpt.py`'s, and what breaks on a CPU or everywhere.

Preflight reads this before a launch, and each program when it starts, before it imports anything that takes seconds.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

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


@dataclass(frozen=True)
class Broken:
    """A flag of Megatron (0.19) that ends in an error of some other subject: why, and what to do instead.

    `when` says, of all flags given (name → values), whether this one breaks; `anywhere`, that it does on a GPU as well.
    """

    flag: str
    why: str
    change: str
    when: Callable[[dict[str, list[str]]], bool] = lambda given: True
    anywhere: bool = False


BROKEN = (
    Broken(
        "--recompute-modules",
        "With biases, Megatron 0.19 recomputes the MLP forever: it takes the bias for a result of what it recomputes.",
        "Add --disable-bias-linear, or recompute something else: --recompute-modules core_attn.",
        lambda given: (
            "mlp" in given["--recompute-modules"]
            and ("selective" in given.get("--recompute-granularity", ()) or "--recompute-activations" in given)
            and "--disable-bias-linear" not in given
        ),
    ),
    Broken(
        "--optimizer-cpu-offload",
        "It moves the optimizer from a GPU to the CPU, where it is already.",
        "Leave it out.",
    ),
    Broken(
        "--cuda-graph-impl",
        "A CUDA graph records the kernels of a GPU.",
        "Leave it out.",
        lambda given: given["--cuda-graph-impl"] != ["none"],
    ),
    Broken("--enable-cuda-graph", "A CUDA graph records the kernels of a GPU.", "Leave it out."),
    Broken("--external-cuda-graph", "A CUDA graph records the kernels of a GPU.", "Leave it out."),
    Broken(
        "--profile",
        "It marks steps for NVIDIA's nsys, which watches a GPU.",
        "Add --use-pytorch-profiler: PyTorch's own writes torch_profile/ beside the --tensorboard-dir.",
        lambda given: "--use-pytorch-profiler" not in given,
    ),
    Broken(
        "--record-memory-history",
        "It asks the allocator of a GPU what it has done.",
        "Leave it out; --log-memory-to-tensorboard shows what the process takes.",
    ),
    Broken(
        "--moe-grouped-gemm",
        "Its matrix product for all experts at once is Transformer Engine's, which needs a GPU.",
        "Leave it out: the experts compute one after another, with the same result.",
    ),
    Broken(
        "--save-dgrads-interval",
        "In fp32 Megatron's loss writes over the logits, and PyTorch forbids that where their gradient is to be kept.",
        'Add --bf16 (in a recipe, dtype="bf16").',
        lambda given: not {"--bf16", "--fp16"} & set(given),
    ),
    Broken(
        "--multi-latent-attention",
        "Without Transformer Engine, tensor parallelism leaves out a part of its gradient: the keys' positions belong "
        "to all heads, and each rank would count its own heads alone.",
        "Take --tensor-model-parallel-size 1, or split by --context-parallel-size.",
        lambda given: given.get("--tensor-model-parallel-size", ["1"]) != ["1"],
    ),
    Broken(
        "--dataloader-inter-document-masking",
        "With rotary positions Megatron cuts each document over the context-parallel ranks, but the data loader cuts "
        "whole samples.",
        "Take --context-parallel-size 1 or learned positions, or --reset-attention-mask in its place.",
        lambda given: (
            given.get("--context-parallel-size", ["1"]) != ["1"]
            and (given.get("--position-embedding-type") == ["rope"] or "--use-rotary-position-embeddings" in given)
        ),
    ),
    Broken(
        "--use-megatron-fsdp",
        "Megatron's FSDP arranges its ranks with einops, which is not installed.",
        "uv pip install einops.",
        lambda given: find_spec("einops") is None,
        anywhere=True,
    ),
    Broken(
        "--use-megatron-fsdp",
        "Megatron's FSDP takes no other format of checkpoints than its own, even where none is saved.",
        "Add --ckpt-format fsdp_dtensor.",
        lambda given: given.get("--ckpt-format") != ["fsdp_dtensor"],
        anywhere=True,
    ),
    Broken(
        "--use-megatron-fsdp",
        "It scales gradients while it sums them, which NCCL can do and gloo cannot.",
        "Add --calculate-per-token-loss: then they are scaled after the sum.",
        lambda given: "--calculate-per-token-loss" not in given,
    ),
    Broken(
        "--ckpt-format",
        "Megatron 0.19 saves torch_dcp and cannot load it: its optimizers do not know the argument that loading gives.",
        "Take --ckpt-format torch_dist: --use-torch-fsdp2 saves and loads that as well.",
        lambda given: given["--ckpt-format"] == ["torch_dcp"] and "--load" in given,
        anywhere=True,
    ),
)


def job_of(argument: str) -> str | None:
    """The job that a flag (`--flag` or `--flag=value`) belongs to, if this script leaves it out."""
    flag = argument.split("=")[0]
    for name, job in LEFT_OUT.items():
        if flag == name or (name.endswith("-") and flag.startswith(name)):
            return job
    return None


def broken(arguments: list[str], on_cpu: bool) -> Iterator[Broken]:
    """The flags among `arguments` that cannot work, in the order of the table."""
    given: dict[str, list[str]] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.startswith("--"):
            values = given[name] = [value] if value else []  # given twice, the last one counts
        elif given:
            values.append(argument)
    for row in BROKEN:
        if row.flag in given and (on_cpu or row.anywhere) and row.when(given):
            yield row


def refuse_what_is_left_out(arguments: list[str]) -> None:
    """Stop the program, with words, if `arguments` ask for a job that this script leaves out."""
    for argument in arguments:
        if job := job_of(argument):
            sys.exit(
                f"{argument.split('=')[0]} asks for {job}. This script only pretrains GPT models. Take the flag out, "
                "or give your own clone of Megatron-LM as the entry script: its pretrain_gpt.py has it."
            )


def refuse_what_breaks_on_a_cpu(arguments: list[str]) -> None:
    """Stop the program, with words, if a flag among `arguments` cannot work on a CPU."""
    for row in broken(arguments, on_cpu=True):
        sys.exit(f"{row.flag} cannot work here. {row.why} {row.change}")
