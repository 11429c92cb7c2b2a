"""Two hosts and the wire between them: what each layout sends over it in a step, and what a narrow one costs."""

import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers import cluster, launch
from helpers.machine import here, runs_root
from helpers.processes import logs
from helpers.recipes import Recipe, costs
from helpers.runs import records
from helpers.show import message
from helpers.show.arguments import checked

RECORD = records.RECORDED / "cpu" / "wires.json"
RATES = (None, 1000, 100)  # Mbit/s; None: as fast as the machine copies
STEPS = 5  # at each rate; the first one of them is not counted: the wire changed in its midst
STARTS = 2  # steps that come before any of them
POLL_SECONDS = 0.02


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
                    self.steps[step.step] = (_logged(line), step.milliseconds)
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
                launch.train(one, data, on=hosts, runs_dir=folder)
            finally:
                wire.over.set()
                wire.join()
        found[name] = wire.found() | {
            "expected_bytes": sum(costs.crossing_bytes(one, one.layout.world_size // 2).values())
        }
    return {"measured_on": here().kind, "layouts": found}


def schedule(rates: Sequence[float | None] = RATES) -> dict:
    """What of a recipe is set for a measurement: its steps."""
    return {"train_iters": STARTS + STEPS * len(rates), "lr_warmup_iters": 2, "save_interval": None}


def recorded() -> dict:
    """What `measure` found when it was recorded; no layouts where nothing is."""
    return json.loads(RECORD.read_text()) if RECORD.is_file() else {"measured_on": "nothing", "layouts": {}}


@checked
def table(measured: Mapping[str, Any]):
    """A row a layout: MB a step counted at the interfaces and by formula, milliseconds a step at each rate (pandas)."""
    import pandas as pd

    if not measured["layouts"]:
        return message.nothing_recorded("measurement of a wire between two hosts")
    rows = {}
    for name, one in measured["layouts"].items():
        rows[name] = {"MB a step, counted": f"{one['sent_bytes'] / 1e6:.1f}"}
        rows[name]["by formula"] = f"{one['expected_bytes'] / 1e6:.1f}"
        rows[name] |= {f"ms a step, {rate}": f"{ms:,.0f}" for rate, ms in one["step_ms"].items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"on {measured['measured_on']}")


def _named(megabits: float | None) -> str:
    if megabits is None:
        return "free"
    return f"{megabits / 1000:g} Gbit/s" if megabits >= 1000 else f"{megabits:g} Mbit/s"


def _logged(line: str) -> float:
    """When Megatron wrote a line, in seconds since 1970: "[2026-11-26 15:34:52.072593]"."""
    start = line.index("[20") + 1
    return datetime.strptime(line[start : line.index("]", start)], "%Y-%m-%d %H:%M:%S.%f").timestamp()
