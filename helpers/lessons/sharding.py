"""Data parallelism from DDP to FSDP: runs that are listened to, their sums, and exercises checked by such a run."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from helpers import launch, runs
from helpers.lessons.exercises import told
from helpers.machine import Machine, here
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.command import run_variables
from helpers.recipes.settings import Model, Speed
from helpers.show import bounds, message, tables
from helpers.show.arguments import checked
from helpers.show.message import Message
from helpers.show.numbers import as_typed

MARK = "DATA_PARALLEL "  # before the JSON that the program prints
STATES = ("weights", "gradients", "optimizer")
STAGES = ("DDP", "distributed optimizer", "FSDP, weights whole", "FSDP")  # ZeRO-0 to ZeRO-3

THEIRS = {  # the tutorial's table 101, 8 × H100 80 GB, core_r0.14: ms a step, GB of the whole GPU; None: out of memory
    "gpt2_xl_1_dp1_stock": (220, 33.3),
    "gpt2_xl_15_dp1_stock": (393, 78.5),
    "gpt2_xl_60_dp1_ga4_stock": (1470, 78.5),
    "gpt2_xl_16_dp1_distopt_stock": None,
    "gpt2_xl_32_distopt2_stock": (423, 74.9),
}
SPLIT_OTHERWISE = {  # the same Llama and batch as FSDP's, without FSDP
    "h100-80gb-hbm3": ("twins/llama3_8b_bf16_tp2_sp_eager", "twins/llama3_8b_tensorwise_tp2_sp_eager"),
    "h200": (
        "llama3_8b_100_bf16",
        "twins/llama3_8b_bf16_tp2_sp_eager",
        "twins/llama3_8b_tensorwise_tp2_sp_eager",
    ),
}


@checked
def listen(recipe: Recipe, data, variants: Mapping[str, Mapping[str, Any]], machine: Machine | None = None) -> dict:
    """Train `recipe` on the same ranks with each of `variants` (name → changes), and hear the last step of each.

    Returns:
        Name → losses, held, phases, collectives: see `helpers/ranks/data_parallel.py`.

    Raises:
        preflight.PreflightError: one of them cannot work; nothing was started.
        ValueError: there is no variant.
    """
    if not variants:
        raise ValueError('sharding.listen: there is nothing to train. One variant, say: {"DDP": {}}.')
    machine = machine or here()
    plain = recipe.with_(save_interval=None, tensorboard=False, wandb_project=None, speed=Speed())
    recipes = {name: plain.with_(**change) for name, change in variants.items()}
    for one in recipes.values():
        preflight.refuse(preflight.check(one, data, machine))
    count = max(one.layout.world_size for one in recipes.values())
    variables = {name: value for one in recipes.values() for name, value in run_variables(one, machine).items()}
    variables["TORCH_COMPILE_DISABLE"] = ("1", "compiled code keeps what it says to itself")
    flags = [word for one in recipes.values() for word in ("--and", *one.flags(data, machine))][1:]
    output = launch.ranks("data_parallel", count, *flags, machine=machine, variables=variables)
    found = [json.loads(line.split(MARK, 1)[1]) for line in output.splitlines() if MARK in line]
    return dict(zip(recipes, found, strict=True))


@checked
def planned(recipe: Recipe, variants: Mapping[str, Mapping[str, Any]], machine: Machine | None = None) -> dict:
    """`accounting.memory` of each variant, but for those whose own flags change what is split."""
    recipes = {name: recipe.with_(**change) for name, change in variants.items()}
    for one in recipes.values():
        preflight.require(one, machine)
    return {
        name: accounting.memory(one, machine)
        for name, one in recipes.items()
        if "--data-parallel-sharding-strategy" not in one.extra_flags
    }


@checked
def losses(heard: Mapping[str, Mapping]):
    """The last loss of each run, and its largest difference from the first run's losses (pandas)."""
    import pandas as pd

    first = next(iter(heard.values()))["losses"] if heard else []
    rows = {
        name: {
            "loss of the last step": f"{run['losses'][-1]:.6f}",
            "largest difference": f"{max(abs(a - b) for a, b in zip(run['losses'], first, strict=True)):.1e}",
        }
        for name, run in heard.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@checked
def per_parameter(recipe: Recipe, heard: Mapping[str, Mapping]):
    """Bytes of each parameter that rank 0 holds, part by part, as measured (pandas)."""
    import pandas as pd

    count = sum(accounting.parameter_counts(recipe.model).values())
    rows = {
        name: {part: run["held"][0][part] / count for part in STATES}
        | {"together": sum(run["held"][0][part] for part in STATES) / count}
        for name, run in heard.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(2)


@checked
def sent(stage: int, ranks: int, micro_batches: int, weight: int, gradient: int) -> float:
    """Bytes a parameter that a rank sends in a step, around a ring, at a stage of ZeRO: of `ranks` it sends
    (ranks - 1) / ranks of a tensor that is gathered or scattered, twice that of one that is all-reduced.

    Args:
        weight, gradient: bytes of each, as they travel.
    """
    times = (
        2 * gradient,  # one all-reduce
        gradient + weight,  # reduce-scatter, all-gather
        micro_batches * gradient + weight,  # a share of the gradients has no place to wait in
        micro_batches * (gradient + 2 * weight),  # weights for forward and again for backward
    )
    return times[stage] * (ranks - 1) / ranks


@checked
def zero_stages(
    parameters: Annotated[float, bounds.Above(10**15)],
    ranks: Annotated[int, bounds.RANKS],
    micro_batches: tuple[int, ...] = (1, 2, 4),
):
    """GB that a rank keeps in bf16 at each stage of ZeRO as Megatron has it, and sends in a step (pandas).

    DDP and the distributed optimizer keep and send gradients in fp32, FSDP in bf16; FSDP's `fp32 gradients` are the
    copy of its share that Adam reads. Left out: activations, and what FSDP has gathered.

    Raises:
        ValueError: a step would have no micro-batch.
    """
    import pandas as pd

    if wrong := [m for m in micro_batches if m < 1]:
        raise ValueError(f"sharding.zero_stages: micro_batches has {wrong[0]}; a step has 1 or more.")
    rows = {}
    for stage, name in enumerate(STAGES):
        gradient = 4 if stage < 2 else 2
        kept = {
            "weights": 2 / (ranks if stage == 3 else 1),
            "gradients": gradient / (ranks if stage >= 2 else 1),
            "optimizer": 12 / (ranks if stage >= 1 else 1),
            "fp32 gradients": 4 / ranks if stage >= 2 else 0.0,
        }
        travels = {f"sends, m = {m}": sent(stage, ranks, m, 2, gradient) for m in micro_batches}
        rows[name] = {part: parameters * size / 1e9 for part, size in (kept | travels).items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{parameters / 1e9:g}B, {ranks} ranks")


@checked
def even(model: Model, ranks: tuple[int, ...] = (2, 4, 8)):
    """At how many tokens of a micro-batch FSDP sends as much over `ranks` as TP with sequence parallelism (pandas).

    For each layer FSDP sends its weights three times a micro-batch: gathered for forward and backward, and as
    gradients. TP has ten collectives of tokens × width (notebook 03), and to keep up it must compute `ranks` times the
    tokens of a data-parallel rank. Of each tensor a rank sends (ranks - 1) / ranks. All in 2 bytes.

    Raises:
        ValueError: the model has experts, which neither sum is made for, or a rank is alone and sends nothing.
    """
    import pandas as pd

    if model.num_experts:
        raise ValueError("sharding.even: the sum is for dense models; experts have collectives of their own.")
    if alone := [several for several in ranks if several < 2]:
        raise ValueError(
            f"sharding.even: {alone[0]} sends nothing to anybody. It takes 2 or more ranks, like (2, 4, 8)."
        )
    counts = accounting.parameter_counts(model)
    layer = (counts["attention"] + counts["MLP"]) / model.num_layers
    rows = {}
    for several in ranks:
        share = (several - 1) / several
        weights, token = 3 * 2 * layer * share, 10 * 2 * model.hidden_size * share
        rows[several] = {
            "FSDP sends, MB a layer and micro-batch": round(weights / 1e6),
            "TP+SP sends, kB a layer and token": round(token / 1e3, 1),
            "even at tokens of a micro-batch": f"{weights / token / several:,.0f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("ranks")


DDP = {"processes": 2}


def _overlapped(bucket_size: int) -> dict:
    return DDP | {"extra_flags": ("--overlap-grad-reduce", "--ddp-bucket-size", str(bucket_size))}


@told
def bucket(recipe: Recipe, data, size, machine: Machine | None = None) -> Message:
    """The puzzle: a `--ddp-bucket-size` with which a step has 3 or 4 all-reduces, with nothing but embeddings in the
    last, which nothing hides. Checked by training with it."""
    if size is ...:
        return Message("asked", "The puzzle: put a bucket size where the … is, in parameters, and run the cell again.")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return Message("wrong", f"A bucket size is a whole number of parameters, 1 or more, not {as_typed(size)}.")
    run = listen(recipe, data, {"yours": _overlapped(size)}, machine)["yours"]
    sizes = [one["bytes"] for one in run["collectives"] if one["collective"] == "all-reduce"]
    counts = accounting.parameter_counts(recipe.model)
    embeddings = (counts["embedding"] + counts.get("position", 0)) / sum(counts.values())
    share = sizes[-1] / sum(sizes)
    found = f"{len(sizes)} all-reduces, {share:.0%} of the bytes in the last."
    if len(sizes) > 4:
        return Message("wrong", f"{found} Too many: each one more is a start that must be paid for.")
    if len(sizes) < 3:
        return Message("wrong", f"{found} Too few: most of it waits for the whole of backward.")
    if share > 1.01 * embeddings:
        return Message("wrong", f"{found} Not yet: the embeddings are {embeddings:.0%}, so layers wait with them.")
    return Message("right", f"{found} That is it: all but the embeddings travels while backward still computes.")


@told
def bytes_held(recipe: Recipe, data, answer, machine: Machine | None = None) -> Message:
    """Exercise 1: bytes a parameter that each of two ranks holds with FSDP's `optim`, which splits the optimizer alone.
    Checked by looking into the memory of such a run."""
    if answer is ...:
        return Message("asked", "Exercise 1: put a number of bytes where the … is and run the cell again.")
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return Message("wrong", f"The answer is a number of bytes a parameter, like 12, not {as_typed(answer)}.")
    change = {"processes": 2, "distributed_optimizer": True, "megatron_fsdp": True}
    optim = {"yours": change | {"extra_flags": ("--data-parallel-sharding-strategy", "optim")}}
    held = per_parameter(recipe, listen(recipe, data, optim, machine)).loc["yours"]
    found = ", ".join(f"{part} {held[part]:.1f}" for part in STATES)
    right = abs(answer / held["together"] - 1) < 0.02
    return Message("right" if right else "wrong", f"Measured: {held['together']:.1f} bytes a parameter ({found}).")


@told
def bytes_sent(recipe: Recipe, data, factor, machine: Machine | None = None) -> Message:
    """Exercise 2: how many times the bytes FSDP hands to collectives when a step has four micro-batches, not two."""
    if factor is ...:
        return Message("asked", "Exercise 2: put a number where the … is and run the cell again.")
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        return Message("wrong", f"The answer is a number of times, like 3 or 1.5, not {as_typed(factor)}.")
    change = {"processes": 2, "distributed_optimizer": True, "megatron_fsdp": True}
    batch = recipe.batch.micro_batch_size * 2
    several = {str(n): change | {"global_batch_size": n * batch} for n in (2, 4)}
    sent = [sum(one["bytes"] for one in run["collectives"]) for run in listen(recipe, data, several, machine).values()]
    measured = sent[1] / sent[0]
    right = abs(factor / measured - 1) < 0.02
    words = f"Measured: {measured:.2f} times."
    why = " Weights are gathered and gradients reduced for every micro-batch; DDP waits for the last."
    return Message("right" if right else "wrong", words + why)


@checked
def recorded(model: Literal["gpt2_xl", "llama3_8b"]):
    """The recorded runs of one model, data-parallel and, for the Llama, split otherwise, machine by machine (pandas).

    The peak is of PyTorch's tensors. The bytes a parameter are what one GPU has allocated once a step is over, for each
    parameter of the whole model. Beside GPT2-XL stands what others measured, with the memory of the whole GPU.
    """
    import pandas as pd

    rows = []
    for label, others in SPLIT_OTHERWISE.items():
        found = runs.recorded(label, "sharded/*")
        found += [run for name in others if (run := runs.recorded(label, name))]
        rows += [_row(run) for run in found if run.recipe_name.startswith(model)]
    if not rows:
        return message.nothing_recorded("run of `sharded/` on GPUs (tests/benchmarks/gpu_runs.py --only 'sharded/*')")
    table = pd.DataFrame(rows).set_index(["recorded on", "layout"])
    return tables.whole_sentences(table.drop(columns=HIDDEN[model]))


HIDDEN = {
    "gpt2_xl": ["precision", "recomputed", "CUDA graph"],  # bf16, nothing, none
    "llama3_8b": ["samples a step", "others' ms", "others' GB"],  # four samples
}


def _row(run) -> dict:
    recipe = run.recipe
    theirs = THEIRS.get(run.recipe_name, ("–", "–")) or ("out of memory", "–")
    return {
        "recorded on": re.sub(r"recorded on | ?NVIDIA| 80GB HBM3", "", run.measured_on).strip(),
        "layout": recipe.layout.name,
        "precision": "FP8" if recipe.precision.fp8_format else recipe.precision.dtype,
        "recomputed": "layers" if recipe.batch.recompute == "full" else "–",
        "CUDA graph": "whole step" if recipe.speed.cuda_graph else "–",
        "samples a step": recipe.batch.global_batch_size,
        "step ms": f"{run.step_milliseconds:,.0f}",
        "peak GB": f"{run.figures()['peak memory GB']:.1f}",
        "bytes a parameter": f"{_between_steps(run):.1f}",
        "tokens/s/GPU": f"{run.measured('tokens/s/GPU'):,.0f}",
        "others' ms": str(theirs[0]),
        "others' GB": str(theirs[1]),
        "record": run.recipe_name.removesuffix("_stock"),
    }


def _between_steps(run) -> float:
    return run.series("mem-allocated-bytes").iloc[-1] / sum(accounting.parameter_counts(run.model).values())
