"""This machine's rates, measured: what a prediction needs to know of it. Kept until a version changes."""

import contextlib
import importlib.metadata
import json
import math
import os
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path

from helpers import launch, recipes
from helpers.machine import Machine, cache_root, here, short_path
from helpers.planner import lines
from helpers.recipes import Recipe, costs
from helpers.recipes.command import run_variables
from helpers.recipes.costs import Link, Products, Rates, passes, rates
from helpers.recipes.costs.stage import LOOP, TILE, width
from helpers.show.arguments import checked

MARK = "CALIBRATION "  # before the JSON that the program prints
FOLDER = "calibration"  # in the cache
PACKAGES = ("torch", "megatron-core", "transformer-engine")
STEPS = 12  # of the training run; the first two are left out
EXPECTED = {"cuda": "about a minute", "cpu": "about 20 seconds"}
BUSY = 0.5  # load of each core by others before the measurement, above which it is told


def is_here(machine: Machine) -> bool:
    """Whether it is this machine, with all of its GPUs, some, or none."""
    mine = here()
    return machine == replace(mine, gpus=mine.gpus[: len(machine.gpus)])


@checked
def calibrate(machine: Machine | None = None, force: bool = False) -> Rates:
    """The rates of this machine, from a short training run with its parts timed; kept in the cache.

    A kept calibration of the same versions is returned at once. One that was made with others is named, one that is
    damaged is told; then it is measured again. `force` measures in any case. `machine` may be the CPU of a machine that
    has GPUs (`machine.for_ranks`).

    Raises:
        ValueError: it is another machine. launch.TrainingFailed: the run failed; the message says which rank, why, and
            the fix.
    """
    machine = machine or here()
    if not is_here(machine):
        raise ValueError(
            f"planner.calibrate measures the machine that it runs on, {here().name}, and {machine.name} is another: "
            "call it there. recipes.costs.of(machine) has the rates of one that is not here, from the data sheets."
        )
    kept = None if force else _read(_path(machine))
    if kept:
        return kept
    if not force and (other := _other_versions(machine)):
        print(_differs(other) + " Measuring again.")
    _tell_of_others(machine)
    print(f"Measuring {machine.name}: {EXPECTED[machine.device]}.")
    found = measured(machine)
    path = _path(machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    rates.write(found, path.with_suffix(".tmp")).replace(path)
    return found


@checked
def calibrated(machine: Machine | None = None) -> Rates | None:
    """The kept calibration of this machine, or None. One that was made with other versions is named in a sentence."""
    machine = machine or here()
    if kept := _read(_path(machine)):
        return kept
    if other := _other_versions(machine):
        print(_differs(other) + " planner.calibrate() measures again.")
        return other
    return None


def record(found: Rates, label: str, recorded_dir: Path = rates.RECORDED) -> Path:
    """Keep it for readers elsewhere, among the recorded runs of a machine ("h200", "cpu")."""
    return rates.write(found, recorded_dir / label / rates.FILE)


def measured(machine: Machine) -> Rates:
    """The rates of a machine that is here, measured now."""
    recipe, begin = small_run(machine), time.monotonic()
    flags, variables = recipe.flags(None, machine), run_variables(recipe, machine)
    output = launch.ranks("calibration", machine.processes, *flags, machine=machine, variables=variables)
    line = next(line for line in output.splitlines() if MARK in line)
    found = from_measurements(json.loads(line.partition(MARK)[2]), recipe, machine)
    note = f"measured on {time.strftime('%Y-%m-%d')} in {time.monotonic() - begin:.0f} s"
    return replace(found, sources=(note, *found.sources))


def from_measurements(told: dict, recipe: Recipe, machine: Machine) -> Rates:
    """The rates in what `helpers/ranks/calibration.py` told of a run of `recipe`.

    What a step takes beyond its parts is the difference between the measured one and that of `costs`: the same model
    that predicts other recipes with it.
    """
    bandwidth = lines.rate(told["elementwise"], 0.0)
    attention = told["attention"]
    elements, taken = told["dropout"]
    moved = 2 * 4 + 1 if machine.device == "cpu" else 3 * 2 + 1  # what is read and written, and a byte of the mask
    links, note = _links(told["links"], machine)
    found = Rates(
        machine=machine.gpus[0].name if machine.gpus else machine.kind,
        products={name: _products(points) for name, points in told["products"].items()},
        bandwidth=bandwidth,
        scores=_per_score(attention[0], "forward", machine),
        scores_backward=_per_score(attention[0], "backward", machine),
        random=max(0.0, taken / elements - moved / bandwidth),
        random_score=_random_score(attention[-2], attention[-1], machine),
        kernel=told["kernel"],
        launch=0.0,
        step=0.0,
        links=links,
        sources=note,
        versions=_versions(),
    )
    found = replace(found, launch=_launch(told["floor"], recipe, machine, found))
    beyond = statistics.quantiles(told["steps"][2:], n=4)[0] - costs.step(recipe, machine, found).seconds
    return replace(found, step=max(0.0, beyond))


def small_run(machine: Machine) -> Recipe:
    """A training run so small that launching sets its pace: four of GPT3-345M's layers, one short sample a rank."""
    tokens = 64
    recipe = recipes.gpt3_345m()
    if machine.device == "cpu":
        recipe, tokens = recipe.scaled_to("cpu"), 16
    return recipe.with_(
        name="calibration",
        num_layers=4,
        sequence_length=tokens,
        vocab_size=512,
        dropout=0.0,
        dtype=recipe.precision.dtype if machine.supports_bf16 else "fp16",
        micro_batch_size=1,
        global_batch_size=machine.processes,
        processes=machine.processes,
        cuda_graph=False,
        overlap_communication=False,
        train_iters=STEPS + 2,
        lr_warmup_iters=1,
        eval_iters=0,
        save_interval=None,
        tensorboard=False,
        wandb_project=None,
    )


def _products(points: list[tuple[float, float]]) -> Products:
    start = lines.start(points)
    return Products(lines.rate(points, start), start)


def _scores(case: dict, machine: Machine) -> float:
    """Scores that are computed: half of them under a causal mask, but for attention that leaves none out."""
    length = case["length"]
    each = (length + TILE) / 2 if passes.machine_has_engine(machine) else length
    return case["samples"] * case["heads"] * case["length"] * each


def _per_score(case: dict, way: str, machine: Machine) -> float:
    return case[way] / _scores(case, machine) / width(case["channels"], machine)


def _random_score(plain: dict, dropping: dict, machine: Machine) -> float:
    extra = sum(dropping[way] - plain[way] for way in ("forward", "backward")) / 2
    return max(0.0, extra / _scores(plain, machine))


def _launch(floor: dict, recipe: Recipe, machine: Machine, found: Rates) -> float:
    """Seconds for one launch. On a GPU measured; on a CPU, where one kernel is several operations, what the layers take
    beyond their work, for each kernel that a GPU would launch."""
    if machine.device == "cuda":
        return floor["seconds"] / floor["launches"]
    parts = costs.step(recipe, machine, replace(found, launch=1.0)).parts
    work = sum(parts[name] for name in ("GEMMs", "attention", "norms, elementwise", "loss"))
    return max(0.0, floor["seconds"] - work) / (parts["launching"] / LOOP)


def _links(points: list[list[float]], machine: Machine) -> tuple[dict[int, Link], tuple[str, ...]]:
    """Collectives by the number of ranks; on one GPU, which sends nothing, those of the nearest machine known."""
    by_ranks: dict[int, list] = {}
    for ranks, wire, seconds in points:
        by_ranks.setdefault(int(ranks), []).append((wire, seconds))
    links = {ranks: Link(lines.start(some), lines.rate(some, lines.start(some))) for ranks, some in by_ranks.items()}
    if links:
        return links, ()
    known = costs.nearest(machine)
    return known.links, (f"links of {known.machine}: one GPU sends nothing",)


# ---- what is kept ------------------------------------------------------------------------------------------------
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _path(machine: Machine) -> Path:
    """Its name tells the machine and the versions: "2-core-cpu@torch-2.11.0@megatron-core-0.19.2.json"."""
    versions = (f"{name}-{version}" for name, version in _versions().items())
    return cache_root() / FOLDER / ("@".join((_slug(machine), *versions)) + ".json")


def _slug(machine: Machine) -> str:
    return re.sub(r"[^a-z0-9]+", "-", machine.kind.lower()).strip("-")


def _read(path: Path) -> Rates | None:
    """What is kept there; None where nothing is, or it is damaged, which is told in a sentence."""
    if not path.is_file():
        return None
    try:
        found = Rates.from_json(json.loads(path.read_text()))
        numbers = [
            found.bandwidth,
            found.scores,
            found.scores_backward,
            *(one.flops for one in found.products.values()),
        ]
        if all(math.isfinite(number) and number > 0 for number in numbers):
            return found
        reason = "a rate in it is not above zero"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}"
    print(f"The kept calibration {short_path(path)} is damaged ({reason}): it is not used.")
    return None


def _other_versions(machine: Machine) -> Rates | None:
    """The newest calibration of this machine that was made with other versions."""
    others = [path for path in (cache_root() / FOLDER).glob(f"{_slug(machine)}@*.json") if path != _path(machine)]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        if kept := _read(path):
            return kept
    return None


def _differs(kept: Rates) -> str:
    now = _versions()
    names = [name for name in PACKAGES if kept.versions.get(name) != now.get(name)]
    then, here_now = (
        ", ".join(f"{name} {some.get(name, 'absent')}" for name in names) for some in (kept.versions, now)
    )
    return f"The kept calibration was made with {then}, and here is {here_now}."


def _tell_of_others(machine: Machine) -> None:
    load, cores = os.getloadavg()[0], machine.cpu_count
    if load > BUSY * cores:
        print(f"Other programs take {load:.1f} of {cores} cores: the machine will look slower than it is.")
