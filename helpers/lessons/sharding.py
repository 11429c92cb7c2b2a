"""Data parallelism from DDP to FSDP: runs that are listened to, their sums, and exercises checked by such a run."""

import json
from collections.abc import Mapping
from typing import Any

from helpers import launch, runs
from helpers.lessons.exercises import told
from helpers.machine import Machine, here
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.command import run_variables
from helpers.recipes.settings import Speed
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.message import Message

MARK = "DATA_PARALLEL "  # before the JSON that the program prints
STATES = ("weights", "gradients", "optimizer")

THEIRS = {  # the tutorial's table 101, 8 × H100 80 GB, Megatron core_r0.14: ms a step, GB a GPU; None: out of memory
    "gpt2_xl_1_dp1_stock": (220, 33.3),
    "gpt2_xl_15_dp1_stock": (393, 78.5),
    "gpt2_xl_60_dp1_ga4_stock": (1470, 78.5),
    "gpt2_xl_16_dp1_distopt_stock": None,
    "gpt2_xl_32_distopt2_stock": (423, 74.9),
}
SPLIT_OTHERWISE = {  # the same Llama and batch as FSDP's, without FSDP
    "h100-80gb-hbm3": ("twins/llama3_8b_bf16_tp2_sp_eager", "twins/llama3_8b_tensorwise_tp2_sp_eager"),
    "h200": ("llama3_8b_100_bf16", "llama3_8b_bf16_tp2_sp"),
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
        return Message("wrong", f"A bucket size is a whole number of parameters, 1 or more, not {size!r}.")
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
        return Message("wrong", f"The answer is a number of bytes a parameter, like 12, not {answer!r}.")
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
        return Message("wrong", f"The answer is a number of times, like 3 or 1.5, not {factor!r}.")
    change = {"processes": 2, "distributed_optimizer": True, "megatron_fsdp": True}
    batch = recipe.batch.micro_batch_size * 2
    several = {str(n): change | {"global_batch_size": n * batch} for n in (2, 4)}
    sent = [sum(one["bytes"] for one in run["collectives"]) for run in listen(recipe, data, several, machine).values()]
    measured = sent[1] / sent[0]
    right = abs(factor / measured - 1) < 0.02
    words = f"Measured: {measured:.2f} times."
    why = " Weights are gathered and gradients reduced for every micro-batch; DDP waits for the last."
    return Message("right" if right else "wrong", words + why)


def recorded():
    """The recorded runs of data parallelism, four of the same Llama without FSDP, and what others measured (pandas).

    The bytes a parameter are what one GPU has allocated once a step is over, for each parameter of the whole model.
    """
    import pandas as pd

    found = []
    for label, others in SPLIT_OTHERWISE.items():
        found += runs.recorded(label, "sharded/*")
        found += [run for name in others if (run := runs.recorded(label, name))]
    found.sort(key=lambda run: "llama" in run.recipe_name)
    if not found:
        return message.nothing_recorded("run of `sharded/` on GPUs (tests/benchmarks/gpu_runs.py --only 'sharded/*')")
    rows = {}
    for run in found:
        theirs = THEIRS.get(run.recipe_name, "–")
        rows[run.recipe_name.removesuffix("_stock")] = {
            "layout": run.layout.name,
            "samples a step": run.recipe.batch.global_batch_size,
            "launched": "as a CUDA graph" if run.recipe.speed.cuda_graph else "one by one",
            "step ms": f"{run.step_milliseconds:,.0f}",
            "peak memory GB": f"{run.figures()['peak memory GB']:.1f}",
            "bytes a parameter between steps": f"{_between_steps(run):.1f}",
            "tokens/s/GPU": f"{run.measured('tokens/s/GPU'):,.0f}",
            "others, H100s: ms, GB": "out of memory" if theirs is None else ", ".join(map(str, theirs)),
            "measured on": run.measured_on,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def _between_steps(run) -> float:
    return run.series("mem-allocated-bytes").iloc[-1] / sum(accounting.parameter_counts(run.model).values())
