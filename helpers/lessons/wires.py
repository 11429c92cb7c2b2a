"""Two hosts and the wire between them: what each layout sends over it in a step, and what a narrow one costs."""

import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers import cluster, launch
from helpers.lessons.exercises import told
from helpers.machine import Machine, here, runs_root
from helpers.machine.variables import device_environment
from helpers.processes import logs
from helpers.recipes import Nodes, Recipe, costs, preflight
from helpers.runs import Run, records
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.message import Message

RECORD = records.RECORDED / "cpu" / "wires.json"
LAYOUTS = {"PP 2": {"pipeline_parallel": 2}, "DP 2": {"processes": 2}, "TP 2": {"tensor_parallel": 2}}
RATES = (None, 1000, 100)  # Mbit/s; None: as fast as the machine copies
STEPS = 5  # at each rate; the first one of them is not counted: the wire changed in its midst
STARTS = 2  # steps that come before any of them
POLL_SECONDS = 0.02
PRINTED = re.compile(r"iteration +(\d+)/.*?lm loss: (\S+) .*?grad norm: (\S+)")
SHOWN_STEPS = 4  # of a comparison: the first ones, and the last
MOST_MEGABYTES = 7.0  # of the puzzle
RANKS = 4
MEET_SECONDS = 180  # a busy machine takes a minute to import torch four times


class Wire(threading.Thread):
    """Beside a run on two hosts: counts what they send, and narrows their wire every STEPS steps."""

    def __init__(self, hosts: cluster.Hosts, folder: Path, rates: Sequence[float | None]):
        super().__init__(daemon=True)
        self.hosts, self.folder, self.rates = hosts, folder, rates
        self.steps: dict[int, tuple[float, float]] = {}  # step → when it was logged (seconds), how long it took (ms)
        self.counted: list[tuple[float, int]] = []  # (seconds, bytes) every POLL_SECONDS
        self.over = threading.Event()

    def run(self) -> None:
        tail, at = None, 0
        while not self.over.wait(POLL_SECONDS):
            if tail is None:
                logs_there = list(self.folder.glob("*/*/log.txt"))
                tail = logs.Tail(logs_there[0]) if logs_there else None
                continue
            self.counted.append((time.time(), self.hosts.sent_bytes()))
            for line in tail.read().splitlines():
                if step := logs.parse_step(line):
                    self.steps[step.step] = (logs.written_at(line), step.milliseconds)
            phase = max(0, (max(self.steps, default=0) - STARTS) // STEPS)
            if phase > at and phase < len(self.rates):
                at = phase
                self.hosts.narrow(self.rates[at])

    def found(self) -> dict:
        """Bytes a step at the first rate, and the median step at each."""
        first, last = STARTS + 1, STARTS + STEPS - 1
        sent = (self._bytes_at(self.steps[last][0]) - self._bytes_at(self.steps[first][0])) / (last - first)
        spans = [range(STARTS + STEPS * n + 2, STARTS + STEPS * (n + 1) + 1) for n in range(len(self.rates))]
        times = [statistics.median(self.steps[step][1] for step in span) for span in spans]
        return {"sent_bytes": sent, "step_ms": dict(zip(map(_named, self.rates), times, strict=True))}

    def _bytes_at(self, moment: float) -> float:
        """What had been sent then, on the straight line between two counts."""
        before = max((one for one in self.counted if one[0] <= moment), default=self.counted[0])
        after = min((one for one in self.counted if one[0] > moment), default=self.counted[-1])
        if after[0] == before[0]:
            return before[1]
        return before[1] + (after[1] - before[1]) * (moment - before[0]) / (after[0] - before[0])


@checked
def measure(
    recipe: Recipe, data, layouts: Mapping[str, Mapping[str, Any]], rates: Sequence[float | None] = RATES
) -> dict:
    """Train each of `layouts` (name → changes of the recipe) on two hosts, and narrow their wire while it trains.

    Where no two hosts can be made, the recorded measurement, and a sentence that says so.

    Returns:
        "measured_on", and "layouts": name → `sent_bytes` (of both hosts, a step), `expected_bytes` by
        `costs.crossing_bytes`, `step_ms` (rate → median).

    Raises:
        TrainingFailed: what `launch.train` raises.
    """
    if why := cluster.why_no_hosts():
        found = recorded()
        print(f"{why}\nShown instead: recorded on {found['measured_on']}.")
        return found
    found = {}
    for name, change in layouts.items():
        one = recipe.with_(**change).with_(**schedule(rates))
        folder = runs_root() / ".wires" / f"{time.time_ns()}"
        with cluster.two_hosts() as hosts:
            wire = Wire(hosts, folder, rates)
            hosts.narrow(rates[0])
            wire.start()
            try:
                launch.train(one, data, on=hosts, runs_dir=folder, machine=on_cpu())
            finally:
                wire.over.set()
                wire.join()
        found[name] = wire.found() | {
            "expected_bytes": sum(costs.crossing_bytes(one, one.layout.world_size // 2).values())
        }
    return {"measured_on": on_cpu().kind, "layouts": found}


@checked
def schedule(rates: Sequence[float | None] = RATES) -> dict:
    """What of a recipe is set for a measurement: its steps."""
    return {"train_iters": STARTS + STEPS * len(rates), "lr_warmup_iters": 2, "save_interval": None}


def recorded() -> dict:
    """What `measure` found when it was recorded; no layouts where nothing is."""
    return records.if_there(RECORD, "tests/benchmarks/two_hosts.py") or {"measured_on": "nothing", "layouts": {}}


@checked
def same(alone: Run, data):
    """Train the recipe of a finished run on two hosts, and put what Megatron printed of both side by side (pandas).

    Where no two hosts can be made: the recorded comparison, and a sentence that says so.
    """
    if why := cluster.why_no_hosts():
        found = recorded()
        print(f"{why}\nShown instead: recorded on {found['measured_on']}.")
        one, two = (dict(_by_step(found.get("same", {}).get(name, []))) for name in ("one", "two"))
    else:
        with cluster.two_hosts() as hosts:
            there = launch.train(alone.recipe, data, on=hosts, fresh=True, machine=on_cpu())
        one, two = printed(alone), printed(there)
    return side_by_side(one, two)


@checked
def printed(run: Run) -> dict[int, tuple[str, str]]:
    """Step → loss and gradient norm, with the digits that Megatron printed."""
    return dict(_by_step(PRINTED.findall((Path(run.path) / "log.txt").read_text(errors="replace"))))


@checked
def side_by_side(one: Mapping[int, Sequence[str]], two: Mapping[int, Sequence[str]]):
    """Loss and gradient norm of the first steps and of the last, and how many steps are equal in every digit."""
    import pandas as pd

    if not one:
        return message.nothing_recorded("run on two hosts")
    steps = sorted(one)
    equal = sum(one[step] == two.get(step) for step in steps)
    rows = {
        str(step): {
            "loss, one host": one[step][0],
            "two hosts": two.get(step, ("–", "–"))[0],
            "gradient norm, one host": one[step][1],
            "on two": two.get(step, ("–", "–"))[1],
        }
        for step in [*steps[: SHOWN_STEPS - 1], steps[-1]]
    }
    name = f"step ({equal} of {len(steps)} are equal in every digit)"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(name)


def _by_step(found) -> list:
    return [(int(step), (loss, norm)) for step, loss, norm in found]


@told
def puzzle(recipe: Recipe, data, change) -> Message:
    """The puzzle: four ranks, two on each host, no rank with more than half of the layers' weights, and at most
    MOST_MEGABYTES a step over the wire. Checked by counting them, where two hosts can be made."""
    if change is ...:
        return Message("asked", "The puzzle: put a dict of changes where the … is and run the cell again.")
    if not isinstance(change, dict):
        return Message("wrong", 'The answer is a dict of changes, like {"tensor_parallel": 2, "processes": 4}.')
    try:
        one = recipe.with_(**change).with_(**schedule((None,)))
        preflight.refuse(preflight.check(one, data, on_cpu(), nodes=Nodes(2, RANKS // 2)))
    except (TypeError, preflight.PreflightError) as refusal:
        return Message("wrong", str(refusal))
    if one.layout.tensor_parallel * one.layout.pipeline_parallel < 2:
        return Message("wrong", "Every rank holds the whole model: split its matrices or its layers.")
    crossing = costs.crossing_bytes(one, RANKS // 2)
    sent, how = sum(crossing.values()), "by formula"
    if not cluster.why_no_hosts():
        sent, how = measure(recipe, data, {"yours": change}, rates=(None,))["layouts"]["yours"]["sent_bytes"], "counted"
    found = f"{one.layout.name}: {sent / 1e6:.1f} MB a step cross the wire ({how}): {', '.join(crossing) or 'nothing'}."
    if sent / 1e6 <= MOST_MEGABYTES:
        return Message("right", f"{found} All else stays inside the hosts.")
    return Message("wrong", f"{found} {MOST_MEGABYTES:g} MB are allowed.")


@told
def meet(nodes) -> Message:
    """Exercise: hosts on which two ranks find each other although each host's own name stands for 127.0.1.1, as
    Debian writes it. Checked by starting torchrun on both."""
    if nodes is ...:
        return Message("asked", 'Put recipes.Nodes(2, 1, address="node0", …) where the … is and run the cell again.')
    if not isinstance(nodes, Nodes) or nodes.world_size != 2 or nodes.count != 2:
        return Message("wrong", "The answer is a recipes.Nodes of two hosts with one rank each.")
    if why := cluster.why_no_hosts():
        return Message("plain", f"{why} So it cannot be tried here.")
    settings = nodes.variables() | device_environment(on_cpu(), nodes.sockets)
    variables = [f"{name}={value}" for name, (value, _) in settings.items()]
    torchrun = [sys.executable, "-m", "helpers.ranks.torchrun", "--max-restarts", "0", "helpers/ranks/meet.py"]
    with cluster.two_hosts(debian_names=True) as hosts:
        started = [
            subprocess.Popen(
                hosts.on(host, "env", *variables, f"PET_NODE_RANK={host}", *torchrun),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for host in (1, 0)
        ]
        deadline = time.monotonic() + MEET_SECONDS
        while any(one.poll() is None for one in started) and not any(one.poll() for one in started):
            if time.monotonic() > deadline:
                return Message("wrong", f"They had not met after {MEET_SECONDS} s.")
            time.sleep(0.05)
        failed = [one for one in started if one.poll()]
    said = [last_word(one.communicate()[0]) for one in failed or started]
    return Message("wrong", said[0]) if failed else Message("right", f"They met: {'; '.join(said)}.")


@checked
def last_word(output: str) -> str:
    """What a host said in the end: its rank's sum if there is one (torchrun may go on after it), or its last line."""
    lines = output.strip().splitlines() or ["It ended without a word."]
    return next((line for line in lines if line.startswith("rank ")), lines[-1])


def on_cpu() -> Machine:
    """This machine without its GPUs: what travels between hosts is counted on CPU ranks."""
    return replace(here(), gpus=())


@checked
def table(measured: Mapping[str, Any]):
    """A column a layout: MB a step, counted at the interfaces and by formula, and ms at each rate (pandas)."""
    import pandas as pd

    if not measured["layouts"]:
        return message.nothing_recorded("measurement of a wire between two hosts")
    columns = {}
    for name, one in measured["layouts"].items():
        columns[name] = {"MB a step, counted": f"{one['sent_bytes'] / 1e6:.1f}"}
        columns[name]["MB a step, by formula"] = f"{one['expected_bytes'] / 1e6:.1f}"
        columns[name] |= {f"ms a step, {rate}": f"{ms:,.0f}" for rate, ms in one["step_ms"].items()}
    return pd.DataFrame(columns).rename_axis(f"on {measured['measured_on']}")


def _named(megabits: float | None) -> str:
    if megabits is None:
        return "free"
    return f"{megabits / 1000:g} Gbit/s" if megabits >= 1000 else f"{megabits:g} Mbit/s"
