"""A node of a Slurm job dies while it trains, and the job comes back: what was told, and when."""

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython.display import Code

from helpers import cluster, launch
from helpers.lessons import wires
from helpers.machine import Machine, here
from helpers.processes import control, logs
from helpers.recipes import Recipe
from helpers.runs import Run, records
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.tables import whole_sentences

RECORD = records.RECORDED / "cpu" / "slurm_node_dies.json"
NODE, WAIT_SECONDS = "n2", 120
SAVED = re.compile(r"successfully saved checkpoint from iteration +(\d+)")


@checked
def job_sh(recipe: Recipe, job: cluster.slurm, machine: Machine | None = None) -> Code:
    """The batch script that `launch.train(recipe, data, on=job, machine=machine)` would submit; nothing is."""
    with tempfile.TemporaryDirectory(prefix="job-") as folder:
        text = job.write(Path(folder), recipe, machine or here()).read_text()
        return Code(records.without_paths(text, Path(folder)), language="bash")


@checked
def story(alone: Run, data, job: cluster.slurm, after_step: int) -> dict:
    """Train the recipe of a finished run as a job of an own Slurm, switch a node off after a step, and wait until the
    job has come back and ended: what `happened` returns, for `table` and `plots.two_starts`.

    Where there is no Slurm: what was recorded, and a sentence that says so.
    """
    if not (why := cluster.why_no_slurm()):
        return happened(alone, data, job, after_step)
    found = records.if_there(RECORD, "tests/benchmarks/two_hosts.py") or {"told": [], "measured_on": "nothing"}
    print(f"{why}\nShown instead: recorded on {found['measured_on']}.")
    return found


@checked
def table(story: Mapping[str, Any]):
    """A row for everything that was told of a job whose node died (pandas)."""
    import pandas as pd

    if not story["told"]:
        return message.nothing_recorded("job whose node died")
    rows = [(f"{seconds:.0f}", words) for seconds, words in story["told"]]
    return whole_sentences(pd.DataFrame(rows, columns=["second", f"on {story['measured_on']}"]).set_index("second"))


@checked
def happened(alone: Run, data, job, after_step: int) -> dict:
    """What was told of a job whose node died.

    Returns:
        "told": (seconds since the submission, words); "starts": of each start "steps" and "saved", [step, seconds];
        "node", and "dead", when it died; "equal": whether the losses are the undisturbed run's; "measured_on".
    """
    machine, told = wires.on_cpu(), []
    with cluster.OwnSlurm() as own:
        started, began = time.monotonic(), time.time()

        def tell(words) -> float:
            told.append((round(time.monotonic() - started, 1), str(words)))
            return told[-1][0]

        run = launch.train(alone.recipe, data, machine=machine, on=job, fresh=True, detach=True)
        tell(run.job)
        own.kill_node(NODE, run=run, step=after_step)
        dead = tell(f"{NODE} is switched off after step {after_step}")
        deadline = time.monotonic() + WAIT_SECONDS
        while control.members(run.path) and time.monotonic() < deadline:
            time.sleep(0.1)
        tell("no process of the run is left on either node")
        while "BeginTime" not in str(run.job) and time.monotonic() < deadline:  # Slurm holds what it requeues
            time.sleep(0.5)
        tell(run.job)
        own.start_node(NODE)
        own.hurry(run)
        tell(f"{NODE} is switched on again, and the job's two minutes of waiting are cut short")
        launch.train(alone.recipe, data, machine=machine, on=job)  # the same cell again follows it
        starts = by_start(run.log_text, began)
        if len(starts) > 1:
            told.append(came_back(*starts[:2]))
        tell(f"{run.state}, after {control.read_status(run.path)['launch']} starts")
    # TensorBoard's: Megatron prints the mean of two steps after each start (training.py, line 2594).
    equal = alone.losses.to_dict() == run.losses.to_dict()
    tell(f"its losses {'are' if equal else 'are not'} those of the run that nobody disturbed, to the last digit")
    found = {"told": told, "starts": starts, "node": NODE, "dead": dead, "equal": equal}
    return found | {"measured_on": machine.kind}


@checked
def by_start(log: str, began: float) -> list[dict]:
    """Of each start that took a step: its "steps" and the checkpoints it "saved", as [step, seconds since `began`]."""
    starts = []
    for text in log.split(logs.LAUNCH_MARK)[1:]:
        steps, saved = [], []
        for line in text.splitlines():
            if step := logs.parse_step(line):
                steps.append([step.step, round(logs.written_at(line) - began, 1)])
            elif checkpoint := SAVED.search(line):
                saved.append([int(checkpoint[1]), round(logs.written_at(line) - began, 1)])
        if steps:
            starts.append({"steps": steps, "saved": saved})
    return starts


@checked
def came_back(first: dict, second: dict) -> tuple[float, str]:
    """When the second start had done its first step, and what that says."""
    step, seconds = second["steps"][0]
    last = first["steps"][-1][0]
    again = f"step {step} is" if last == step else f"steps {step} {'and' if last == step + 1 else 'to'} {last} are"
    return seconds, f"start 2 has loaded the checkpoint of step {step - 1} and done step {step}: {again} done twice"
