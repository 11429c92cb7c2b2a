"""What launching through `launch.train` costs beside a plain torchrun of the same command. Run by hand:

    uv run python tests/benchmarks/launch_overhead.py [--ranks 2] [--repeats 5] [--steps 200]

Both are started in turn, so that a busy moment of the machine meets both; an uncounted start comes first and leaves
everything compiled. The table gives seconds from the start to the end of the first step, our share of them, and the
ratio of the median step times. Two launches differ by more than 1% on their own, so the last lines look closer: how
much of a core the supervisor and the notebook take (a busy machine does not change that), and, in a run in which both
are stopped and let go again every second, how the steps of both kinds of seconds compare.
"""

import argparse
import contextlib
import datetime
import io
import os
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from helpers import corpus, launch, recipes
from helpers.machine import CPU, PROJECT
from helpers.processes import control, logs

STAMP = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\] iteration ")
START_SECONDS = 180


def recipe_for(ranks: int, steps: int) -> recipes.Recipe:
    """2 layers × 64, sequence 64, batch 8, vocabulary 1,024, on data-parallel ranks."""
    return (
        recipes.gpt3_345m()
        .scaled_to("cpu")
        .with_(
            name="overhead", num_layers=2, hidden_size=64, sequence_length=64, vocab_size=1024, processes=ranks,
            train_iters=steps, eval_interval=steps, eval_iters=1,
        )
    )  # fmt: skip


def figures(log: str, started: float) -> tuple[float, float]:
    """Seconds from `started` to the end of the first step, and the median step time in ms after ten steps."""
    lines = [line for line in log.splitlines() if logs.parse_step(line)]
    first = datetime.datetime.fromisoformat(STAMP.search(lines[0])[1]).timestamp()
    return first - started, statistics.median(logs.parse_step(line).milliseconds for line in lines[10:])


def plain(recipe, data, directory: Path) -> tuple[float, float]:
    command = recipe.command(data, CPU, run_directory=directory)
    environment = os.environ | {name: value for name, (value, _) in command.environment.items()}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as for the ranks of launch.train
    directory.mkdir()
    with open(directory / "log.txt", "wb") as log:
        started = time.time()
        subprocess.run(command.argv, cwd=PROJECT, env=environment, stdout=log, stderr=log, check=True)
    return figures((directory / "log.txt").read_text(), started)


def ours(recipe, data, directory: Path) -> tuple[float, float, float]:
    """`figures`, and our share: seconds before `command.sh` runs, and those of what it does before torchrun."""
    started = time.time()
    with contextlib.redirect_stdout(io.StringIO()):
        run = launch.train(recipe, data, runs_dir=directory, machine=CPU, fresh=True)
    first, step = figures((run.path / "log.txt").read_text(), started)
    before = control.read_status(run.path)["torchrun_started"] - started
    mending = time.time()
    subprocess.run(
        [sys.executable, "-m", "helpers.ranks.index_cache", run.path / "index_cache"], cwd=PROJECT, check=True
    )
    return first, step, before + time.time() - mending


WATCHED = """
import pickle, sys
from helpers import launch
from helpers.machine import CPU
recipe, data, where = pickle.load(open(sys.argv[1], "rb"))
launch.train(recipe, data, runs_dir=where, machine=CPU, fresh=True)
"""


def cost_of_watching(recipe, data, directory: Path, seconds: int) -> tuple[float, float]:
    """What part of a core supervisor and notebook take; and the median step time while they look on, over that while
    both are stopped (SIGSTOP). However this ends, nothing of the run stays behind.

    Raises:
        RuntimeError: the run ended, or took longer than START_SECONDS, before its first step.
    """
    directory.mkdir()
    (directory / "what").write_bytes(pickle.dumps((recipe, data, directory / "runs")))
    notebook = subprocess.Popen(
        [sys.executable, "-c", WATCHED, directory / "what"], cwd=PROJECT, stdout=subprocess.DEVNULL
    )
    try:
        log = wait_for_first_step(directory, notebook)
        watchers = [psutil.Process(notebook.pid), psutil.Process(control.read_status(log.parents[5])["pid"])]
        taken = -cpu_seconds(watchers)
        time.sleep(seconds / 4)
        taken += cpu_seconds(watchers)
        watched, alone = step_times(log, stop_in_turn(watchers, seconds))
    finally:
        notebook.kill()
        notebook.wait()
        for run in directory.glob("runs/*/*"):
            control.stop(run)
    print(f"  steps while watched: {len(watched)}, while not: {len(alone)}")
    return taken / (seconds / 4), statistics.median(watched) / statistics.median(alone)


def wait_for_first_step(directory: Path, notebook: subprocess.Popen) -> Path:
    """The log of the rank that writes down its steps (the last), once there is one in it."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        for log in directory.glob("runs/*/*/ranks/1/*/attempt_0/*/stdout.log"):
            if "lm loss" in log.read_text():
                return log
        if notebook.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"No step within {START_SECONDS} s, or the run failed: see what it says above.")
        time.sleep(0.1)


def stop_in_turn(watchers: list[psutil.Process], seconds: int) -> list[tuple[float, bool]]:
    """Stop both and let them go again every second; (time, whether they look on from then) of each change."""
    changes = []
    try:
        for second in range(seconds):
            for watcher in watchers:
                watcher.resume() if second % 2 else watcher.suspend()
            changes.append((time.time(), bool(second % 2)))
            time.sleep(1)
    finally:
        for watcher in watchers:
            with contextlib.suppress(psutil.NoSuchProcess):
                watcher.resume()
    return changes


def step_times(log: Path, changes: list[tuple[float, bool]]) -> tuple[list[float], list[float]]:
    """Milliseconds of the steps that lie between two changes: those looked on at, and the others."""
    found = {True: [], False: []}
    for line in log.read_text().splitlines():
        if step := logs.parse_step(line):
            end = datetime.datetime.fromisoformat(STAMP.search(line)[1]).timestamp()
            began = end - step.milliseconds / 1e3
            before = [looking for moment, looking in changes if moment < began]
            if before and sum(moment < began for moment, _ in changes) == sum(moment < end for moment, _ in changes):
                found[before[-1]].append(step.milliseconds)
    return found[True], found[False]


def cpu_seconds(watchers: list[psutil.Process]) -> float:
    return sum(sum(watcher.cpu_times()[:2]) for watcher in watchers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=120, help="for the closer look; 0 leaves it out")
    options = parser.parse_args()
    data = corpus.prepare("sotu", tokenizer="bpe-1024")
    recipe = recipe_for(options.ranks, options.steps)
    theirs, mine, watching = [], [], None
    with tempfile.TemporaryDirectory() as folder:
        plain(recipe, data, Path(folder) / "first")
        for repeat in range(options.repeats):
            theirs.append(plain(recipe, data, Path(folder) / f"plain{repeat}"))
            mine.append(ours(recipe, data, Path(folder) / f"ours{repeat}"))
            print(f"{repeat + 1}: torchrun {theirs[-1][0]:.2f} s, {theirs[-1][1]:.2f} ms a step; "
                  f"ours {mine[-1][0]:.2f} s, {mine[-1][1]:.2f} ms a step, {mine[-1][2]:.2f} s our share "
                  f"(load {psutil.getloadavg()[0]:.1f})", flush=True)  # fmt: skip
        if options.seconds:
            long = recipe.with_(train_iters=100_000, eval_interval=100_000)
            watching = cost_of_watching(long, data, Path(folder) / "watched", options.seconds)
    print_table(options.ranks, theirs, mine, watching)


def print_table(ranks: int, theirs: list[tuple], mine: list[tuple], watching: tuple[float, float] | None) -> None:
    median = statistics.median
    rows = [(f"{ranks} ranks, median of {len(mine)}", "torchrun", "launch.train", "goal")]
    if mine:
        (first, step), (our_first, our_step, share) = (map(median, zip(*runs, strict=True)) for runs in (theirs, mine))
        ratio = median(m[1] / t[1] for m, t in zip(mine, theirs, strict=True))
        rows.append(("launch to first step, s", f"{first:.2f}", f"{our_first:.2f}", "10"))
        rows.append(("our share of it, s", "", f"{share:.2f}", "0.3"))
        rows.append(("step, ms", f"{step:.2f}", f"{our_step:.2f}", ""))
        rows.append(("step, as a ratio", "1", f"{ratio:.4f}", "1.01"))
    if watching:
        rows.append(("supervisor and notebook, cores", "", f"{watching[0]:.4f}", "0.01"))
        rows.append(("step, watched / not watched", "1", f"{watching[1]:.4f}", "1.01"))
    print("\n" + "\n".join(f"{what:<32}{theirs:>10}{ours:>14}{goal:>8}" for what, theirs, ours, goal in rows))


if __name__ == "__main__":
    main()
