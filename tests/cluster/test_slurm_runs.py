"""Runs on a real Slurm of two nodes on this machine: what holds on one machine holds there.

A node that dies is page 11's: tests/notebooks/test_11_many_nodes.py.
"""

import contextlib
import time

import psutil
import pytest
from patience import survivors, wait_for
from two_nodes import logged, needs_slurm

from helpers import cluster, launch
from helpers.machine import CPU
from helpers.processes import control, logs, slurm
from helpers.processes.programs import TrainingFailed

pytestmark = [pytest.mark.train, needs_slurm]


@pytest.fixture(scope="module")
def own():
    with cluster.OwnSlurm() as own:
        yield own


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """Matrices split in two; a checkpoint every 10 steps; no end before it is stopped."""
    steps = {"train_iters": 5000, "eval_interval": 5000, "save_interval": 10}
    return tiny_recipe.with_(name="two-nodes", tensor_parallel=2, **steps)


def test_a_killed_rank_is_named_and_the_same_cell_again_goes_on_until_it_is_stopped(recipe, small_corpus, own, capsys):
    """A model whose matrices are split between two nodes: its steps are those of one machine."""
    alone = launch.train(recipe.with_(name="one-node", exit_interval=10, eval_iters=0), small_corpus, machine=CPU)
    on = cluster.slurm(nodes=2, time="10", starts=1)
    run = launch.train(recipe, small_corpus, machine=CPU, on=on, detach=True)
    wait_for(lambda: logs.last_step(run.path / "log.txt") >= 12, "step 12")
    killed = next(p for p in own.processes("n2") if is_rank(p))
    started = time.monotonic()
    killed.kill()
    with pytest.raises(TrainingFailed, match="failed: rank 1 on n2 was killed by SIGKILL") as failed:
        launch.follow(run)
    assert time.monotonic() - started < 35 and not control.members(run.path)
    assert failed.value.rank == 1 and "picks the run up after step" in str(failed.value)
    assert logged(run, steps=10) == logged(alone) and len(alone.losses) == 10

    picked_up = launch.train(recipe, small_corpus, machine=CPU, on=on, detach=True)
    assert picked_up.path == run.path
    wait_for(lambda: control.read_status(run.path)["launch"] == 2 and steps_of_launch(run) > 3, "steps of the second")
    capsys.readouterr()
    assert launch.train(recipe, small_corpus, machine=CPU, on=on, detach=True).path == run.path
    assert "going on by itself" in capsys.readouterr().out
    assert run.stop() == "stopped" and not control.members(run.path)
    assert run.checkpoints().index[-1] == logs.last_step(run.path / "log.txt")  # told to end, it saved
    assert slurm.look(run.path).is_going is False
    assert survivors([process for process in own.processes() if not is_daemon(process)]) == []


def test_stages_on_two_nodes_train_as_on_one_machine(tiny_recipe, small_corpus, own):
    steps = {"train_iters": 12, "eval_interval": 12, "eval_iters": 1, "save_interval": None}
    short = tiny_recipe.with_(pipeline_parallel=2, **steps)
    alone = launch.train(short.with_(name="stages-alone"), small_corpus, machine=CPU)
    run = launch.train(short.with_(name="stages"), small_corpus, machine=CPU, on=cluster.slurm(nodes=2, time="10"))
    assert logged(run) == logged(alone) and len(run.losses) == 12


def steps_of_launch(run) -> int:
    log = run.log_text
    return sum(logs.parse_step(line) is not None for line in log[log.rfind(logs.LAUNCH_MARK) :].splitlines())


def is_daemon(process) -> bool:
    """One that stays when no job is left; or one that is gone by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() in ("munged", "slurmctld", "slurmscriptd", "slurmd")
    return True


def is_rank(process) -> bool:
    return "RANK" in process.environ() and "RANK" not in process.parent().environ()
