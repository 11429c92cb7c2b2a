"""Pipelines that train: their schedule is recorded as Megatron has it, a killed stage is named, resumed is exact."""

import threading

import pytest
from patience import survivors, wait_for

from helpers import launch, runs
from helpers.lessons import pipelines
from helpers.machine import CPU
from helpers.processes import control, logs
from helpers.runs import pipeline
from helpers.runs.pipeline_order import Work, orders

pytestmark = pytest.mark.train
STEPS, SAVED = 24, 8
ROUNDING = 9.6e-7  # the last digit of a loss between 4 and 8, twice


@pytest.fixture(scope="module")
def staged(tiny_recipe):
    """Four layers in two stages, four micro-batches a step, the schedule recorded."""
    changes = {"num_layers": 4, "pipeline_parallel": 2, "micro_batch_size": 2, "global_batch_size": 8}
    steps = {"train_iters": STEPS, "save_interval": SAVED, "eval_iters": 0, "record_schedule": True}
    return tiny_recipe.with_(name="staged", **changes, **steps)


@pytest.fixture(scope="module")
def whole(staged, small_corpus, tmp_path_factory):
    return launch.train(staged, small_corpus, machine=CPU, runs_dir=tmp_path_factory.mktemp("whole"))


def order(schedule: pipeline.PipelineSchedule) -> list[list[Work]]:
    return [
        [Work(one.direction, one.micro_batch, one.chunk) for one in schedule.passes if one.stage == stage]
        for stage in range(schedule.stages)
    ]


def test_what_is_recorded_is_megatrons_order(whole):
    for step in (1, STEPS):
        schedule = pipeline.of_run(whole, step)
        assert schedule.kind == "measured" and schedule.step == step
        assert order(schedule) == orders(2, 4)
        assert [schedule.held(stage) for stage in (0, 1)] == [2, 1]
        assert 0 < schedule.span_ms < schedule.step_ms
        ends = {(one.stage, one.direction, one.micro_batch): one.end for one in schedule.passes}
        for one in (one for one in schedule.passes if (one.stage, one.direction) == (1, "forward")):
            assert one.start > ends[0, "forward", one.micro_batch]
    with pytest.raises(ValueError, match=f"steps 1 to {STEPS}"):
        pipeline.of_run(whole, STEPS + 1)
    assert len(pipeline.work_ms(whole)) == 2


def test_a_killed_stage_is_named_and_the_run_picked_up_is_the_undisturbed_one(staged, whole, small_corpus, tmp_path):
    seen = []

    def kill_the_last_stage():
        log = wait_for(lambda: next(iter(tmp_path.glob("*/*/log.txt")), None), "the log")
        wait_for(lambda: _steps(log) > SAVED + 2, "a step after the checkpoint")
        members, torchrun = control.members(log.parent), control.read_status(log.parent)["torchrun_pid"]
        seen.extend(members)
        next(one for one in members if one.ppid() == torchrun and one.environ()["RANK"] == "1").kill()

    threading.Thread(target=kill_the_last_stage, daemon=True).start()
    with pytest.raises(launch.TrainingFailed) as failed:
        launch.train(staged, small_corpus, machine=CPU, runs_dir=tmp_path)
    assert failed.value.rank == 1 and "rank 1 was killed by SIGKILL" in str(failed.value)
    assert len(seen) >= 4 and survivors(seen) == []
    assert control.members(runs.latest("staged", tmp_path).path) == []

    resumed = launch.train(staged, small_corpus, machine=CPU, runs_dir=tmp_path)
    assert resumed.state == "finished" and len(resumed.losses) == STEPS
    assert (resumed.losses == whole.losses).all()
    assert order(pipeline.of_run(resumed, STEPS)) == orders(2, 4)


def _steps(log) -> int:
    found = (logs.parse_step(line) for line in log.read_text().splitlines())
    return max((one.step for one in found if one), default=0)


def test_one_rank_and_uneven_stages_go_on_alike_from_its_weights(staged, whole, small_corpus, tmp_path):
    begun = staged.with_(pretrained=whole.path, train_iters=6, save_interval=None, lr_warmup_iters=2)
    layouts = {
        "one": {"pipeline_parallel": 1},
        "uneven": {"pipeline_parallel": 2, "pipeline_layout": "Ettt|tL"},
    }
    one, uneven = (
        launch.train(begun.with_(name=name, **changes), small_corpus, machine=CPU, runs_dir=tmp_path)
        for name, changes in layouts.items()
    )
    assert one.losses.iloc[0] < whole.losses.iloc[0] - 0.5  # they begin where it ended
    apart = pipelines.differences(one, {"uneven": uneven})["largest difference"].astype(float)
    assert (apart <= ROUNDING).all(), apart
    first, last = pipeline.work_ms(uneven)
    assert min(first, last) > 0  # which is larger is seen on a quiet machine alone
