"""Jobs of many nodes that others ran: what a GPU holds, what it sends inside its node and to others, and the step."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from helpers import planner, runs
from helpers.machine import Machine
from helpers.recipes import Recipe, costs
from helpers.runs import records
from helpers.show import message
from helpers.show.arguments import checked

INSIDE, BETWEEN = "one GPU sends in its node, a step", "one GPU sends to other nodes, a step"
SPLITS, WAYS = ("pp2", "dp2", "tp2"), ("nvlink", "tcp")  # of GPT 1.2B over two GPUs, and how those talked
COLLECTIVES = "collectives/two_gpus.json"  # beside the recorded runs of a machine
SAMPLES_A_GPU = 4  # a step
PLAIN_BF16 = {  # Megatron's --bf16 and no more: gradients and both moments in fp32
    "fp8_format": None, "fp8_param_gather": False, "grad_reduce_in_bf16": False, "moments_in_bf16": False,
    "cuda_graph": False, "overlap_communication": True, "distributed_optimizer": True,
}  # fmt: skip


def table():
    """NVIDIA's Llamas on 64 and 1,024 H100s, a column each: planned memory and step, their step, bytes (pandas)."""
    import pandas as pd

    columns = {}
    for row in planner.elsewhere.nvidia():
        gpus, recipe = len(row.machine.gpus), row.recipe
        if row.machine.nodes == 1:
            continue
        plan = planner.predict(recipe, row.machine)
        sent = sum(costs.sent_bytes(recipe).values()) / gpus
        crossing = sum(costs.crossing_bytes(recipe, gpus // row.machine.nodes).values()) / gpus
        seconds = row.milliseconds / 1e3
        name, _, layout = row.name.partition(", ")
        columns[f"{name}, {gpus:,} GPUs"] = {
            "layout": layout,
            "GB a GPU, planned": f"{plan.gigabytes:.0f}",
            "step, planned": f"{plan.step.seconds:.1f} s",
            "step, NVIDIA's": f"{seconds:.1f} s",
            INSIDE: f"{(sent - crossing) / 1e9:,.0f} GB",
            BETWEEN: f"{crossing / 1e9:,.0f} GB",
            "average rate of that": f"{8 * crossing / 1e9 / seconds:.0f} Gbit/s",
        }
    if not columns:
        return message.nothing_recorded("job of many nodes")
    return pd.DataFrame(columns)


@checked
def predicted(models: Iterable[Recipe], machine: Machine, layouts: Iterable[Mapping[str, Any]]):
    """What the planner expects of each model in each layout on all GPUs of a machine, none of it measured (pandas).

    In bf16 with gradients and Adam's moments in fp32, SAMPLES_A_GPU samples a GPU and step, with the distributed
    optimizer, sequence parallelism where there is TP, and collectives overlapped.

    Args:
        layouts: changes for `with_`, such as {"tensor_parallel": 4, "pipeline_parallel": 2}; the rest is DP.

    Raises:
        PreflightError: a layout that the model cannot have; the message says why.
    """
    import pandas as pd

    gpus, rows = len(machine.gpus), {}
    room, layouts = min(gpu.memory_bytes for gpu in machine.gpus) / 1e9, list(layouts)
    for model in models:
        for layout in layouts:
            split = {"processes": gpus, "sequence_parallel": layout.get("tensor_parallel", 1) > 1, **layout}
            changes = PLAIN_BF16 | split | {"global_batch_size": SAMPLES_A_GPU * gpus}
            plan = planner.predict(replace(model, stock=False).with_(**changes), machine)
            crossing = sum(costs.crossing_bytes(plan.recipe, gpus // machine.nodes).values()) / gpus
            name = plan.recipe.layout.name.partition("+")[0]
            rows[plan.recipe.name, name] = {
                "GB a GPU": f"{plan.gigabytes:,.0f}",
                "step": f"{plan.step.seconds:.1f} s" if plan.fits else f"does not fit in {room:.0f} GB",
                "GB to other nodes, a GPU and step": f"{crossing / 1e9:,.1f}" if plan.fits else "–",
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", f"on {machine.name}, predicted"])


def without_nvlink():
    """Two GPUs of one host that talk through NVLink, and through TCP alone, as two nodes of one GPU each would.

    A row for an all-reduce by itself, and one a layout of GPT 1.2B: what a GPU sends, milliseconds of the step, what
    TCP adds, and what it would at the all-reduce's rate (pandas); a sentence where nothing is recorded.
    """
    import pandas as pd

    file = records.anywhere(COLLECTIVES)
    pairs = [[runs.recorded_anywhere(f"two_nodes/gpt_1_2b_{layout}_{way}") for way in WAYS] for layout in SPLITS]
    pairs = [pair for pair in pairs if None not in pair]
    if not (file and pairs):
        return message.nothing_recorded("run of two GPUs over TCP (tests/benchmarks/gpu_runs.py --only 'two_nodes/*')")
    collectives = records.of_file(file, dict, "{}", "tests/benchmarks/gpu_runs.py --collectives")
    sums = [[row for row in collectives[way] if row["step"] == "all-reduce"] for way in WAYS]
    size = max(row["bytes"] for row in sums[0])
    alone = [next(row["seconds"] for row in rows if row["bytes"] == size) for rows in sums]
    rate = size / alone[-1]  # two ranks: each sends as many bytes as it adds up
    rows = {f"an all-reduce of {size / 1e6:,.0f} MB": _by_wire(size, rate, alone)}
    for pair in pairs:
        sent = sum(costs.sent_bytes(pair[0].recipe).values()) / 2
        rows[pair[0].layout.name] = _by_wire(sent, rate, [run.step_milliseconds / 1e3 for run in pair])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(pairs[0][0].measured_on)


def _by_wire(sent: float, rate: float, seconds: list[float]) -> dict:
    nvlink, tcp = (1e3 * one for one in seconds)
    return {
        "GB a GPU sends": f"{sent / 1e9:.2f}",
        "ms, NVLink": f"{nvlink:,.0f}" if nvlink > 10 else f"{nvlink:.1f}",
        "ms, TCP": f"{tcp:,.0f}",
        "TCP adds": f"{tcp - nvlink:,.0f}",
        f"bytes ÷ {rate / 1e9:.1f} GB/s": f"{1e3 * sent / rate:,.0f}",
    }
