"""Jobs of many nodes that others ran: what a GPU holds, what it sends inside its node and to others, and the step."""

from helpers import planner, runs
from helpers.recipes import costs
from helpers.show import message

INSIDE, BETWEEN = "sent in the node", "sent to other nodes"


def table():
    """NVIDIA's Llamas on 64 and 1,024 H100s: planned memory and step, their step, bytes a GPU and step (pandas)."""
    import pandas as pd

    rows = {}
    for row in planner.elsewhere.nvidia():
        gpus, recipe = len(row.machine.gpus), row.recipe
        if row.machine.nodes == 1:
            continue
        plan = planner.predict(recipe, row.machine)
        sent = sum(costs.sent_bytes(recipe).values()) / gpus
        crossing = sum(costs.crossing_bytes(recipe, gpus // row.machine.nodes).values()) / gpus
        seconds = row.milliseconds / 1e3
        rows[f"{row.name}, {gpus:,} GPUs"] = {
            "GB a GPU, planned": f"{plan.gigabytes:.0f}",
            "step, planned": f"{plan.step.seconds:.1f} s",
            "step, NVIDIA's": f"{seconds:.1f} s",
            INSIDE: f"{(sent - crossing) / 1e9:,.0f} GB",
            BETWEEN: f"{crossing / 1e9:,.0f} GB",
            "which is, all step long": f"{8 * crossing / 1e9 / seconds:.0f} Gbit/s",
        }
    if not rows:
        return message.nothing_recorded("job of many nodes")
    return pd.DataFrame.from_dict(rows, orient="index")


def without_nvlink():
    """Two GPUs of one host that talk through NVLink, and through TCP as two nodes of one GPU each would: milliseconds a
    step of GPT 1.2B by layout, and MB that both send in it (pandas); a sentence where nothing is recorded."""
    import pandas as pd

    rows = {}
    for layout in ("pp2", "dp2", "tp2"):
        pair = [runs.recorded_anywhere(f"two_nodes/gpt_1_2b_{layout}_{way}") for way in ("nvlink", "tcp")]
        if None in pair:
            continue
        nvlink, tcp = pair
        rows[nvlink.layout.name] = {
            "MB a step": f"{sum(costs.sent_bytes(nvlink.recipe).values()) / 1e6:,.0f}",
            "ms a step, NVLink": f"{nvlink.step_milliseconds:,.0f}",
            "TCP": f"{tcp.step_milliseconds:,.0f}",
            "times as long": f"{tcp.step_milliseconds / nvlink.step_milliseconds:.1f}",
            "measured on": nvlink.measured_on,
        }
    if not rows:
        return message.nothing_recorded("run of two GPUs over TCP (tests/benchmarks/gpu_runs.py --only 'two_nodes/*')")
    return pd.DataFrame.from_dict(rows, orient="index")
