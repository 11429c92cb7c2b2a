"""Our entry script and launcher against NVIDIA's own `pretrain_gpt.py`: same flags, same machine. Run by hand:

    git clone --depth 1 --branch core_r0.19.0 https://github.com/NVIDIA/Megatron-LM
    python tests/benchmarks/against_nvidia.py --megatron Megatron-LM --out notebooks/recorded/h200/baselines

GPT3-345M on one GPU, bf16, 32 samples a step, 40 steps of the speeches, three ways in turn:

    ours             helpers/ranks/pretrain_gpt.py by launch.train
    nvidia           NVIDIA's script by launch.train(entry_script=…)
    nvidia torchrun  NVIDIA's script by torchrun alone, once: no supervisor, nobody who watches

Of the clone only three files are taken, unchanged: the Megatron beneath is the installed wheel, ours and theirs alike.
Its index helpers are built already and it brings no Makefile, so the `make` that NVIDIA's start calls is one that says
yes. Flags and environment are those of `command.sh`. Two things differ on purpose: with Transformer Engine 2.20 ours
gives Megatron back its split of queries, keys and values (`ranks/repairs/split.py`), which NVIDIA's script has to do
without, and a GELU without tanh (`ranks/repairs/gelu.py`); so ours should be the faster, and losses differ by its
rounding.

Writes `against_nvidia.json`: medians after warm-up, all step times and losses from Megatron's own lines, commands.
`--smoke` is two layers on a CPU, where NVIDIA's script runs through `helpers.ranks.cpu.device`: a rehearsal.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import combinations, product
from pathlib import Path

from helpers import corpus, launch, recipes
from helpers.machine import PROJECT, cuda_libraries, here
from helpers.processes import logs, run_directory
from helpers.recipes import Recipe
from helpers.recipes.settings import Speed
from helpers.runs import records

FILES = ("pretrain_gpt.py", "gpt_builders.py", "model_provider.py")
WARM_UP = 10
OURS, NVIDIA, TORCHRUN = "ours", "nvidia", "nvidia torchrun"


def recipe_of(smoke: bool) -> Recipe:
    """What all of them train: only flags that NVIDIA's script takes without apex."""
    recipe = recipes.gpt3_345m().with_(
        name="against_nvidia", train_iters=40, lr_warmup_iters=5, eval_iters=0, save_interval=None,
        speed=Speed(cross_entropy_fusion="native"), extra_flags=("--no-gradient-accumulation-fusion",),
    )  # fmt: skip
    if not smoke:
        return recipe
    small = {"num_layers": 2, "hidden_size": 64, "sequence_length": 64, "micro_batch_size": 2, "global_batch_size": 4}
    return recipe.scaled_to("cpu").with_(**small, train_iters=12, lr_warmup_iters=1)


def laid_out(megatron: Path, folder: Path) -> Path:
    """NVIDIA's script in a folder without a Megatron of its own, and a `make` for its start; returns the script."""
    for name in FILES:
        shutil.copy(megatron / name, folder)
    tools = folder / "tools"
    tools.mkdir()
    (tools / "make").write_text("#!/bin/sh\n")
    (tools / "make").chmod(0o755)
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    return folder / FILES[0]


def blob(path: Path) -> str:
    """The id that git has for this file, to find NVIDIA's commit by."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def by_launcher(recipe: Recipe, data, runs_dir: Path, script: Path | None):
    """(command, its run directory, the log) of a run under our launcher."""
    run = launch.train(recipe, data, fresh=True, entry_script=script, runs_dir=runs_dir)
    command = recipe.command(data, run_directory=run.path, entry_script=script)
    return command, run.path, (run.path / "log.txt").read_text()


def by_torchrun(recipe: Recipe, data, runs_dir: Path, script: Path):
    """The same of a run under torchrun alone."""
    directory = Path(tempfile.mkdtemp(dir=runs_dir))
    command = recipe.command(data, run_directory=directory, entry_script=script)
    done = subprocess.run(
        command.argv, cwd=PROJECT, env=cuda_libraries.merged(command.environment), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout[-6000:]}\ntorchrun ended with {done.returncode}.")
    return command, directory, done.stdout


def measured(program: str, recipe: Recipe, data, runs_dir: Path, script: Path) -> dict:
    started = time.monotonic()
    if program == TORCHRUN:
        command, directory, log = by_torchrun(recipe, data, runs_dir, script)
    else:
        command, directory, log = by_launcher(recipe, data, runs_dir, None if program == OURS else script)
    wall = time.monotonic() - started
    steps = [step for line in log.splitlines() if (step := logs.parse_step(line))]
    if len(steps) != recipe.schedule.train_iters:
        sys.exit(f"{log[-6000:]}\n{program}: {len(steps)} steps of {recipe.schedule.train_iters}.")
    words = [word for flags in command.groups.values() for flag in flags for word in flag.words]
    found = {
        "program": program,
        "wall_seconds": round(wall, 1),
        "milliseconds": [step.milliseconds for step in steps],
        "losses": [step.loss for step in steps],
        "flags": [word.replace(str(directory), "runs/<run>") for word in words],
        "command": records.without_paths(str(command).replace(str(script.parent), "Megatron-LM"), directory),
    }
    print(f"{program}: {median([found]):.1f} ms a step, {wall:.0f} s with its start and end", flush=True)
    return found


def median(of: list[dict]) -> float:
    """The median step of some runs after warm-up, in ms."""
    return statistics.median(ms for run in of for ms in run["milliseconds"][min(WARM_UP, len(run["losses"]) // 2) :])


def apart(pairs) -> float | None:
    """The largest difference between the losses of two runs at one step; None without a pair."""
    differences = [abs(a - b) for one, two in pairs for a, b in zip(one["losses"], two["losses"], strict=True)]
    return max(differences, default=None)


def compared(made: list[dict], recipe: Recipe) -> dict:
    """The medians of each program, and how far their losses lie apart, beside what repeating a program does to them."""
    by_program = {name: [run for run in made if run["program"] == name] for name in (OURS, NVIDIA, TORCHRUN)}
    tokens = recipe.batch.global_batch_size * recipe.model.sequence_length
    found = {"step_milliseconds": {name: round(median(of), 2) for name, of in by_program.items()}}
    speeds = {name: tokens / ms * 1e3 for name, ms in found["step_milliseconds"].items()}
    found["tokens_per_second"] = {name: round(speed) for name, speed in speeds.items()}
    found["speed_of_ours"] = {name: round(speeds[OURS] / speeds[name], 4) for name in (NVIDIA, TORCHRUN)}
    theirs = by_program[NVIDIA] + by_program[TORCHRUN]
    found["largest_loss_difference"] = {
        "ours to nvidia": apart(product(by_program[OURS], theirs)),
        "ours to ours": apart(combinations(by_program[OURS], 2)),
        "nvidia to nvidia": apart(combinations(theirs, 2)),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megatron", type=Path, required=True, help=f"clone of Megatron-LM, or {FILES}")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON file")
    parser.add_argument("--rounds", type=int, default=2, help="of ours and theirs, in turn")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    recipe = recipe_of(options.smoke)
    data = corpus.prepare("sotu", tokenizer=recipe.tokenizer)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        for name in ("nvidia", "runs"):
            (folder / name).mkdir()
        script = laid_out(options.megatron, folder / "nvidia")
        order = [OURS, NVIDIA] * options.rounds
        order.insert(2, TORCHRUN)
        made = [measured(program, recipe, data, folder / "runs", script) for program in order]
        blobs = {name: blob(script.parent / name) for name in FILES}
    flags = made[0]["flags"]
    if any(run.pop("flags") != flags for run in made):
        sys.exit("The flags are not the same: this compares nothing.")
    environment = run_directory.provenance(here(), recipe.command(data).environment)
    content = environment | {"nvidia's files": blobs, **compared(made, recipe), "runs": made}
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "against_nvidia.json"
    target.write_text(records.without_paths(json.dumps(content, indent=1), folder) + "\n")
    for name in ("tokens_per_second", "speed_of_ours", "largest_loss_difference"):
        print(f"{name.replace('_', ' ')}: " + ", ".join(f"{key} {value}" for key, value in content[name].items()))
    print(target)


if __name__ == "__main__":
    main()
