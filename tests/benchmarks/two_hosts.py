"""What notebook 11 shows where two hosts or a Slurm cannot be had: run by hand on quiet cores, as root.

    uv run python tests/benchmarks/two_hosts.py [wires] [slurm]

`notebooks/recorded/cpu/wires.json` and `slurm_node_dies.json` are the result.
"""

import sys
import time
from dataclasses import replace

from helpers import cluster, corpus, launch, machine, recipes
from helpers.lessons import node_dies, wires
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
