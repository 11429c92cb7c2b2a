"""Megatron's log line of one step, taken apart field by field.

The line is written by `training_log` in Megatron's `training/training.py`, on the last rank.
"""

import re
from functools import lru_cache
from math import isclose
from typing import NamedTuple

from helpers.machine import megatron_source
from helpers.processes.logs import LAUNCH_MARK, number
from helpers.runs.results import Results
from helpers.show.arguments import checked
from helpers.show.tables import whole_sentences

STEP_LINE = re.compile(
    r"^(?:\[rank \d+\] )?\s*\[([\d-]+ [\d:.]+)\] iteration +(\d{1,15})/ *(\d{1,15}) \|(.*)$", re.MULTILINE
)
TIME, SPEED, LOSS = "elapsed time per iteration (ms)", "throughput per GPU (TFLOP/s/GPU)", "lm loss"
SLOW = 1.2  # times the usual step: then the first one is called slow


class Meaning(NamedTuple):
    """What a field of the line says, its unit, and the words by which its place in `training_log` is found."""

    what: str
    unit: str
    source: str


FIELDS = {
    "time": Meaning("when the line was written, after the step", "", 'log_string = f" [{datetime'),
    "iteration": Meaning("optimizer step, and how many there will be", "steps", "' iteration {"),
    "consumed samples": Meaning("samples since step 1, over all ranks and launches", "samples", "' consumed samples:"),
    "skipped samples": Meaning("left out so that the batch divides evenly", "samples", "' skipped samples:"),
    TIME: Meaning("wall time of a step, mean since the last such line", "ms", "' elapsed time per iteration"),
    SPEED: Meaning(
        "FLOPs that the model needs (num_floating_point_operations) ÷ that time ÷ ranks",
        "TFLOP/s",
        "' throughput per GPU",
    ),
    "learning rate": Meaning("set after the step: what the next step will use", "", "' learning rate:"),
    "global batch size": Meaning("samples in one step, over all ranks", "samples", "' global batch size:"),
    LOSS: Meaning("mean over all tokens of the steps since the last such line", "nats a token", "' {}: {:.6E}"),
    "loss scale": Meaning("factor on the loss: keeps fp16 gradients from vanishing; 1 without", "", "' loss scale:"),
    "grad norm": Meaning("length of the whole gradient (L2), before it is clipped", "", "' grad norm:"),
    "num zeros": Meaning("entries of the gradient that are exactly 0", "", "' num zeros:"),
    "params norm": Meaning("length of all weights (L2)", "", "' params norm:"),
    "number of skipped iterations": Meaning(
        "steps since the last such line that changed no weight: the gradient was inf or NaN",
        "steps",
        "' number of skipped",
    ),
    "number of nan iterations": Meaning("of those, where the loss was inf or NaN, too", "steps", "' number of nan"),
}


@checked
def log_line(run: Results, step: int | None = None):
    """Megatron's line of one step taken apart: a row a field with value, unit, meaning, place, and remark.

    A remark names an oddity of this line where it is true of it: the time of a launch's first step holds what is done
    only once, and the second line averages over the first two steps. Lines of `iteration` come from the last rank.

    Args:
        run: a `runs.Run`, finished or going on.
        step: the last one that is logged, if not given.

    Raises:
        ValueError: the run keeps no log, as records do not, or has no line of that step.
    """
    import pandas as pd

    if run.recorded_on:
        raise ValueError("A recorded run keeps its curves and no log. Ask a run of this machine: runs.latest(name).")
    launches = [list(STEP_LINE.finditer(text)) for text in run.log_text.split(LAUNCH_MARK)]
    found = {int(match[2]): (match, launch) for launch in launches for match in launch}
    if not found:
        yet = " yet" if run.state == "running" else ""
        raise ValueError(run.why_no_log() or f"The log of {run.recipe_name} has no line of a step{yet}.")
    step = max(found) if step is None else step
    if step not in found:
        there = f"{min(found)} to {max(found)}"
        raise ValueError(f"The log of {run.recipe_name} has no line of step {step}: there are steps {there}.")
    match, launch = found[step]
    remarks = _remarks(run, launch, step)
    rows = []
    for name, value in _fields(match).items():
        meaning = FIELDS.get(name, Meaning("a loss or metric of this model", "", "' {}: {:.6E}"))
        place = f"training/training.py:{_line_of(meaning.source)}"
        rows.append((name, value, meaning.unit, meaning.what, place, remarks.get(name, "")))
    columns = ["field", "value", "unit", "what it is", "written at", "remark"]
    table = pd.DataFrame(rows, columns=columns).set_index("field")
    return whole_sentences(table if remarks else table.drop(columns="remark"))


def _fields(match: re.Match) -> dict[str, str]:
    fields = {"time": match[1], "iteration": f"{match[2]} / {match[3]}"}
    for part in match[4].split(" | "):
        name, _, value = part.strip(" |").rpartition(":")
        fields |= {name: value.strip()} if name else {}
    return fields


def _remarks(run, launch: list[re.Match], step: int) -> dict[str, str]:
    """Oddities of the first two lines of a launch, each only where the numbers show it."""
    fields = [_fields(match) for match in launch]
    place = [int(match[2]) for match in launch].index(step)
    if place == 0:
        usual = sorted(time for line in fields[2:] if (time := number(line.get(TIME))) is not None)
        median = usual[len(usual) // 2] if usual else float("inf")
        if (number(fields[0].get(TIME)) or 0) < SLOW * median:
            return {}
        return {TIME: f"later steps take {median:.0f} ms: the first one compiles, allocates and connects as well"}
    before, own = (run.losses.get(int(match[2])) for match in launch[place - 1 : place + 1])
    printed = number(fields[place].get(LOSS))
    if place > 1 or None in (before, own, printed) or not isclose(printed, (before + own) / 2, rel_tol=1e-6):
        return {}
    why = "the first line of a launch starts no new mean"
    return {
        TIME: f"mean of the first two steps: {why}",
        SPEED: "from that mean",
        LOSS: f"mean of the first two steps: {why}; this step alone had {own:.6f}, as TensorBoard says",
    }


@lru_cache(maxsize=32)
def _line_of(words: str) -> int | str:
    """The line of `training_log` that writes a field; "?" where this version of Megatron words it differently."""
    source = megatron_source("training/training.py").read_text().splitlines()
    start = next((number for number, line in enumerate(source) if line.startswith("def training_log(")), 0)
    return next((number + 1 for number in range(start, len(source)) if words in source[number]), "?")
