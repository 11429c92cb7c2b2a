"""A node of a Slurm job dies while it trains, and the job comes back: what was told, and when."""

import tempfile
import time
from pathlib import Path

from IPython.display import Code

from helpers import cluster, launch
from helpers.lessons import wires
from helpers.machine import here
from helpers.processes import control
from helpers.recipes import Recipe
from helpers.runs import Run, records
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.tables import whole_sentences

RECORD = records.RECORDED / "cpu" / "slurm_node_dies.json"
NODE, WAIT_SECONDS = "n2", 120


@checked
def job_sh(recipe: Recipe, job: cluster.slurm) -> Code:
    """The batch script that `launch.train(recipe, data, on=job)` would submit; nothing is."""
    with tempfile.TemporaryDirectory(prefix="job-") as folder:
        text = job.write(Path(folder), recipe, here()).read_text()
        return Code(records.without_paths(text, Path(folder)), language="bash")


@checked
def story(alone: Run, data, job: cluster.slurm, after_step: int):
    """Train the recipe of a finished run as a job of an own Slurm, switch a node off after a step, and wait until the
    job has come back and ended: a row for everything that was told (pandas).

    Where there is no Slurm: what was recorded, and a sentence that says so.
    """
    if why := cluster.why_no_slurm():
        found = records.if_there(RECORD, "tests/benchmarks/two_hosts.py") or {"told": [], "measured_on": "nothing"}
        print(f"{why}\nShown instead: recorded on {found['measured_on']}.")
    else:
        found = happened(alone, data, job, after_step)
    if not found["told"]:
        return message.nothing_recorded("job whose node died")
    import pandas as pd

    rows = [(f"{seconds:.0f}", words) for seconds, words in found["told"]]
    return whole_sentences(pd.DataFrame(rows, columns=["second", f"on {found['measured_on']}"]).set_index("second"))


@checked
def happened(alone: Run, data, job, after_step: int) -> dict:
    """`told`: (seconds since the submission, words); `equal`: whether its losses are the undisturbed run's."""
    machine, told = wires.on_cpu(), []
    with cluster.OwnSlurm() as own:
        started = time.monotonic()

        def tell(words) -> None:
            told.append((round(time.monotonic() - started, 1), str(words)))

        run = launch.train(alone.recipe, data, machine=machine, on=job, fresh=True, detach=True)
        tell(run.job)
        own.kill_node(NODE, run=run, step=after_step)
        tell(f"{NODE} is switched off after step {after_step}")
        deadline = time.monotonic() + WAIT_SECONDS
        while control.members(run.path) and time.monotonic() < deadline:
            time.sleep(0.1)
        tell("no process of the run is left on either node")
        while "waits" not in str(run.job) and time.monotonic() < deadline:
            time.sleep(0.5)
        tell(run.job)
        own.start_node(NODE)
        own.hurry(run)
        tell(f"{NODE} is switched on again, and the job's two minutes of waiting are cut short")
        launch.follow(run)
        tell(f"{run.state}, after {control.read_status(run.path)['launch']} starts")
    # TensorBoard's: Megatron prints the mean of two steps after each start (training.py, line 2594).
    equal = alone.losses.to_dict() == run.losses.to_dict()
    tell(f"its losses {'are' if equal else 'are not'} those of the run that nobody disturbed, to the last digit")
    return {"told": told, "equal": equal, "measured_on": machine.kind}
