"""Runs on a real Slurm of two nodes on this machine: what holds on one machine holds there."""

import time

import pytest
from patience import wait_for

from helpers import cluster, launch, runs
from helpers.machine import CPU
from helpers.processes import control, logs, slurm
from helpers.processes.programs import TrainingFailed

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(cluster.why_no_slurm() is not None, reason=str(cluster.why_no_slurm())),
]


@pytest.fixture(scope="module")
def own():
    with cluster.OwnSlurm() as own:
        yield own


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """Two ranks; a checkpoint every 10 steps; more steps than a failure needs to strike among them."""
    return tiny_recipe.with_(name="two-nodes", processes=2, train_iters=60, eval_interval=60, save_interval=10)


def series(run) -> dict[str, dict[int, float]]:
    """What a run's last rank wrote for each step, to the last bit."""
    return {tag: run.series(tag).to_dict() for tag in ("lm loss", "grad-norm")}


def test_a_run_whose_node_dies_goes_on_by_itself_and_equals_one_of_one_machine(recipe, small_corpus, own, capsys):
    undisturbed = launch.train(recipe.with_(name="one-node"), small_corpus, machine=CPU)
    on = cluster.slurm(nodes=2, time="10")
    run = launch.train(recipe, small_corpus, machine=CPU, on=on, detach=True)
    assert run.state == "running" and "job" in run.job
    own.kill_node("n2", run=run, step=13)
    struck = logs.last_step(run.path / "log.txt")
    wait_for(lambda: (job := slurm.look(run.path)).waits and job.reason == "BeginTime", "a place in the queue")
    assert not control.members(run.path)  # on either node
    assert "node n2 failed" in run.job and "expected to start at" in run.job and run.state == "running"
    own.start_node("n2")
    own.hurry(run)
    capsys.readouterr()
    again = launch.train(recipe, small_corpus, machine=CPU, on=on)  # the same cell again follows it
    assert again.path == run.path and "going on by itself" in capsys.readouterr().out
    assert run.state == "finished" and control.read_status(run.path)["launch"] == 2
    assert f"queued again, to go on after step {struck // 10 * 10}: node n2 failed" in run.log_text
    assert series(run) == series(undisturbed) and len(run.losses) == 60
    assert {"[rank 0] ", "[rank 1] "} <= {line[:9] for line in run.log_text.splitlines()}
    assert len(runs.read_result(run.path / "result.json").losses) == 60  # the batch node wrote it


def test_a_killed_rank_is_named_and_the_same_cell_again_goes_on_until_it_is_stopped(recipe, small_corpus, own):
    endless = recipe.with_(name="stopped", train_iters=5000, eval_interval=5000)
    on = cluster.slurm(nodes=2, time="10", starts=1)
    run = launch.train(endless, small_corpus, machine=CPU, on=on, detach=True)
    wait_for(lambda: logs.last_step(run.path / "log.txt") >= 12, "step 12")
    killed = next(p for p in own.processes("n2") if is_rank(p))
    started = time.monotonic()
    killed.kill()
    with pytest.raises(TrainingFailed, match="failed: rank 1 on n2 was killed by SIGKILL") as failed:
        launch.follow(run)
    assert time.monotonic() - started < 35 and not control.members(run.path)
    assert failed.value.rank == 1 and "picks the run up after step" in str(failed.value)

    picked_up = launch.train(endless, small_corpus, machine=CPU, on=on, detach=True)
    assert picked_up.path == run.path
    wait_for(lambda: control.read_status(run.path)["launch"] == 2 and steps_of_launch(run) > 3, "steps of the second")
    saved = run.checkpoints().index[-1]
    assert run.stop() == "stopped" and not control.members(run.path)
    assert run.checkpoints().index[-1] > saved and run.checkpoints().index[-1] % 10  # one of its own, between the usual
    assert slurm.look(run.path).is_going is False
    assert {process.name() for process in own.processes()} <= {"munged", "slurmctld", "slurmscriptd", "slurmd"}


@pytest.mark.parametrize("split", [{"pipeline_parallel": 2}, {"tensor_parallel": 2}], ids=["PP2", "TP2"])
def test_a_model_split_between_two_nodes_trains_as_on_one_machine(tiny_recipe, small_corpus, own, split):
    short = tiny_recipe.with_(train_iters=12, eval_interval=12, eval_iters=1, save_interval=None, **split)
    alone = launch.train(short.with_(name="split-alone"), small_corpus, machine=CPU)
    run = launch.train(short.with_(name="split"), small_corpus, machine=CPU, on=cluster.slurm(nodes=2, time="10"))
    assert series(run) == series(alone) and len(run.losses) == 12


def steps_of_launch(run) -> int:
    log = run.log_text
    return sum(logs.parse_step(line) is not None for line in log[log.rfind(logs.LAUNCH_MARK) :].splitlines())


def is_rank(process) -> bool:
    return "RANK" in process.environ() and "RANK" not in process.parent().environ()
