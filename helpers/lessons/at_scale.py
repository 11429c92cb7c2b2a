"""Jobs of many nodes that others ran: what a GPU holds, what it sends inside its node and to others, and the step."""

from helpers import planner
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
