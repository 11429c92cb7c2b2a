"""Several launches that make one experiment: a setting swept, layouts compared, a run whose plug is pulled."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from IPython.display import display

from helpers import launch, plots, runs
from helpers.launch import training
from helpers.machine import Machine, here
from helpers.plots import layer
from helpers.recipes import Recipe, preflight
from helpers.recipes.command import run_variables
from helpers.recipes.fit import SMALL
from helpers.recipes.settings import Speed
from helpers.runs import micro_batches
from helpers.runs.results import Results
from helpers.show import bounds
from helpers.show.arguments import checked

GPU_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CPU_SIZES, CPU_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128), 16  # samples; tokens in each
LOSSES = ["first loss", "final loss"]
OUT_OF_MEMORY = re.compile("memory is full|main memory was full")


@checked
def sweep(recipe: Recipe, data, **setting: Iterable) -> list[runs.Run]:
    """Train `recipe` once for each value of one setting: `sweep(recipe, data, micro_batch_size=(1, 2, 4))`.

    Each is a run of its own, called `<recipe>_<setting>_<value>`. The sweep ends at the first value that does not fit
    in memory, says so, and returns the runs before it: where the memory ends is part of the result.

    Raises:
        TypeError: not exactly one setting.
        preflight.PreflightError, launch.TrainingFailed: as `launch.train`, but for memory.
    """
    if len(setting) != 1:
        raise TypeError(f"A sweep changes one setting, not {len(setting)}: sweep(recipe, data, lr=(1e-4, 3e-4)).")
    ((name, values),) = setting.items()
    finished = []
    for value in values:
        print(f"{name} = {value}")
        try:
            words = re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")
            changed = recipe.with_(**{name: value}, name=f"{recipe.name}_{name}_{words}")
            finished.append(launch.train(changed, data, fresh=True))
        except preflight.PreflightError as refusal:
            if not all(problem.why.startswith(preflight.TOO_LARGE) for problem in refusal.problems):
                raise
            print(f"{name} = {value} does not fit, so it was not started. {refusal.problems[0].why}")
            break
        except launch.TrainingFailed as failure:
            if not OUT_OF_MEMORY.search(failure.cause or ""):
                raise
            print(f"{name} = {value} does not fit: {failure.cause} {failure.fix}")
            break
    return finished


@checked
def floor(recipe: Recipe, data, machine: Machine | None = None) -> micro_batches.MicroBatches:
    """Time one micro-batch of the recipe's model, forward and backward, at growing sizes, in one process.

    On a GPU from one sample on until memory ends; on a CPU, whose floor is lower, with samples of 16 tokens.
    """
    machine = machine or here()
    plain = recipe.with_(save_interval=None, tensorboard=False, wandb_project=None)
    plain = plain.with_(cuda_graph=False, overlap_communication=False, overlap_tensor_parallel=False)
    sizes = GPU_SIZES
    if machine.device == "cpu":
        plain, sizes = plain.with_(sequence_length=CPU_TOKENS), CPU_SIZES
    plain = plain.with_(micro_batch_size=1)
    flags, variables = plain.flags(data, machine), run_variables(plain, machine)
    output = launch.ranks("micro_batches", 1, ",".join(map(str, sizes)), *flags, machine=machine, variables=variables)
    return micro_batches.from_output(output, machine.name, plain)


@checked
def layouts(recipe: Recipe, data, *changes: Mapping[str, Any], machine: Machine | None = None) -> list[runs.Run]:
    """Train `recipe` under several layouts: `layouts(recipe, data, {}, {"tensor_parallel": 2})`, one run each."""
    finished = []
    for change in changes:
        changed = recipe.with_(**change)
        preflight.require_values(changed)
        words = re.sub(r"[^a-z0-9]+", "_", changed.layout.name.lower()).strip("_")
        print(changed.layout.name)
        named = changed.with_(name=f"{recipe.name}_{words}")
        finished.append(launch.train(named, data, fresh=True, machine=machine))
    return finished


@checked
def look_inside(
    recipe: Recipe, data, *changes: Mapping[str, Any], machine: Machine | None = None
) -> list[dict[str, list[dict]]]:
    """Build the recipe's model on its ranks and take one layer through forward and backward, listening.

    Then again, on the same ranks, with each of `changes`: `look_inside(recipe, data, {}, {"sequence_parallel": True})`.

    Returns:
        One of each: "shards": which rank holds which part of each matrix; "collectives": what rank 0 said, in order.
        See `helpers/ranks/shards.py`; drawn by `plots.layer`.

    Raises:
        preflight.PreflightError: one of them cannot work. ValueError: they take several numbers of ranks.
    """
    machine = machine or here()
    heard = recipe.with_(save_interval=None, tensorboard=False, wandb_project=None, speed=Speed())
    models = [heard.with_(**change) for change in changes or ({},)]
    for model in models:
        preflight.require(model, machine)
    if len(ranks := {model.layout.world_size for model in models}) > 1:
        raise ValueError(f"experiments.look_inside: all on the same ranks, not on {sorted(ranks)}. Ask for each alone.")
    variables = {name: value for model in models for name, value in run_variables(model, machine).items()}
    variables["TORCH_COMPILE_DISABLE"] = ("1", "compiled code keeps what it says to itself")
    flags = [word for model in models for word in ("--and", *model.flags(data, machine))][1:]
    output = launch.ranks("shards", *ranks, *flags, machine=machine, variables=variables)
    return layer.findings(output)


@checked
def fp8_against_bf16(recipe: Recipe, data, machine: Machine | None = None):
    """Train `recipe` once in bf16 and once as it is, in FP8, and show by how much its loss is higher.

    Where there is no FP8, the two runs recorded on two H200s stand in. They were made for their speed, in few steps and
    at a high learning rate, so their losses are left out. Returns both runs in one table, a column each, or None when
    there is nothing to show.
    """
    preflight.require_values(recipe)
    machine = machine or here()
    if machine.supports_fp8 and machine.transformer_engine and recipe.precision.fp8_format:
        pair = []
        for changes in ({"fp8_format": None, "name": f"{recipe.name}_bf16"}, {"name": f"{recipe.name}_fp8"}):
            changed = recipe.with_(**changes)
            print(changed.precision.name)
            pair.append(launch.train(changed, data, fresh=True, machine=machine))
        display(plots.signed_differences({"FP8 − bf16": tuple(reversed(pair))}, window=1))
        return _side_by_side(pair)
    whole = recipe.name.removesuffix(SMALL)
    names = (f"{whole}_bf16_dp2", f"{whole}_tensorwise_dp2")
    pair = [run for name in names if (run := runs.recorded("h200", name))]
    print(f"{machine.name} trains no FP8: runs recorded on two H200s stand in.")
    if not pair:
        print(f"No run of {whole} is recorded on H200s yet, so there is nothing to show in its place.")
        return None
    return _side_by_side(pair).drop(LOSSES)


def _side_by_side(pair: list[Results]):
    table = runs.compare(pair).rename(columns={"MFU": "MFU, bf16 peak"})
    return table.astype(object).T.dropna(how="all")


@checked
def repeatable(recipe: Recipe, machine: Machine | None = None) -> Recipe:
    """The recipe so that two runs of it have the same losses to the last bit.

    A CPU needs nothing for that. On a GPU `--deterministic-mode` takes kernels that add in a fixed order, of which a
    CUDA graph and a fused loss are none; the loss then takes more memory, and where it does not fit the micro-batch is
    made smaller.
    """
    machine = machine or here()
    if machine.device == "cpu":
        return recipe
    name = f"{recipe.name}_deterministic"
    steady = recipe.with_(name=name, extra_flags=(*recipe.extra_flags, "--deterministic-mode"), cuda_graph=False)
    return steady.scaled_to(machine)


@checked
def undisturbed(recipe: Recipe, data, run: Results) -> runs.Run:
    """A finished run of exactly this recipe: `run` where it is one, else a new one."""
    return run if run.recipe == recipe else launch.train(recipe, data, fresh=True)


@checked
def pull_the_plug(recipe: Recipe, data, step: Annotated[int, bounds.STEPS]) -> runs.Run:
    """Train `recipe`, show it, and kill every process of it, without warning (SIGKILL), once `step` is logged.

    Raises:
        ValueError: the run has no such step, or saves nothing that could be picked up; nothing was started.
        launch.TrainingFailed, RuntimeError: the run failed, or ended, before that step.
        KeyboardInterrupt: after every process has ended.
    """
    preflight.require_values(recipe)
    training.require_step(recipe, step, "experiments.pull_the_plug(step={})")
    if recipe.checkpoints.save_interval is None:
        raise ValueError(
            "experiments.pull_the_plug: save_interval=None saves no checkpoint, so what is killed could not be picked "
            f"up. recipe.with_(save_interval={max(1, step // 2)}) saves one before step {step}."
        )
    return launch.follow(launch.train(recipe, data, fresh=True, detach=True), kill_at=step)
