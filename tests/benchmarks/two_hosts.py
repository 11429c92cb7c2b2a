"""What notebook 11 shows where two hosts or a Slurm cannot be had: run by hand on quiet cores, as root.

    uv run python tests/benchmarks/two_hosts.py [wires] [slurm] [clocks]

`notebooks/recorded/cpu/wires.json` and `slurm_node_dies.json` are the result; of clocks, which are only run when they
are asked for, it is printed.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import other_clock

from helpers import cluster, corpus, launch, machine, recipes
from helpers.lessons import node_dies, wires
from helpers.processes import logs
from helpers.runs import records

RECIPE = (
    recipes.gpt3_345m()
    .scaled_to("cpu")
    .with_(name="many_nodes", train_iters=12, lr_warmup_iters=2)
    .with_(eval_iters=0, global_batch_size=16, save_interval=4)
)
DIGITS = 6  # of a step's printed loss nothing is rounded: those are texts


def record_wires(alone, data) -> None:
    found = wires.measure(RECIPE, data, wires.LAYOUTS) | {"date": time.strftime("%Y-%m-%d")}
    with cluster.two_hosts() as hosts:
        there = launch.train(alone.recipe, data, on=hosts, fresh=True, machine=wires.on_cpu())
    found["same"] = {name: listed(wires.printed(run)) for name, run in (("one", alone), ("two", there))}
    records.keep(wires.RECORD, found, DIGITS)
    print(wires.table(found).to_string())


def record_slurm(alone, data) -> None:
    found = node_dies.happened(alone, data, cluster.slurm(nodes=2, time="10"), after_step=6)
    records.keep(node_dies.RECORD, found | {"date": time.strftime("%Y-%m-%d")})
    print(*found["told"], sep="\n")


def try_clocks(alone, data, seconds: int) -> None:
    """The second host's clock is so many seconds ahead: the same run, and what its log says of times."""
    with cluster.two_hosts() as hosts, tempfile.TemporaryDirectory() as folder:
        ahead = [f"{name}={value}" for name, value in other_clock.variables(seconds, Path(folder)).items()]
        on = hosts.on
        hosts.on = lambda host, *command: on(host, *["env", *ahead][: None if host else 0], *command)
        run = launch.train(alone.recipe, data, on=hosts, fresh=True, machine=wires.on_cpu())
    other_clock.clean()
    stamps = [(line[:8], logs.written_at(line)) for line in run.log_text.splitlines() if " [20" in line]
    print(f"{seconds:+d} s: {run.state}, {run.wall_seconds:.0f} s")
    print("the same digits:", wires.printed(run) == wires.printed(alone), len(wires.printed(run)), "steps")
    print("times in the log apart:", {rank: round(stamp - run.path.stat().st_mtime) for rank, stamp in stamps})
    print(run.log("startup-", last=20))


def listed(printed: dict) -> list:
    return [[step, *values] for step, values in printed.items()]


if __name__ == "__main__":
    asked = sys.argv[1:] or ["wires", "slurm"]
    data = corpus.prepare(tokenizer=RECIPE.tokenizer)
    alone = launch.train(RECIPE.with_(processes=2), data, fresh=True, machine=replace(machine.here(), gpus=()))
    if "wires" in asked:
        record_wires(alone, data)
    if "slurm" in asked:
        record_slurm(alone, data)
    if "clocks" in asked:
        try_clocks(alone, data, 600)
        try_clocks(alone, data, -600)
