"""Schedules: Megatron's order, with passes of one length, waits as the formula says; a record is read as written."""

import json

import pytest

from helpers import plots, runs
from helpers.runs import pipeline, pipeline_order
from helpers.runs.pipeline_order import Stuck, Work
from helpers.show.message import Absence


@pytest.mark.parametrize(
    ("stages", "count", "chunks"), [(2, 1, 1), (2, 8, 1), (4, 8, 1), (8, 32, 1), (4, 8, 2), (3, 9, 3)]
)
def test_the_ideal_schedule_waits_as_the_formula_says(stages, count, chunks):
    drawn = pipeline.ideal(stages, count, chunks)
    assert (drawn.stages, drawn.micro_batches, drawn.chunks) == (stages, count, chunks)
    assert drawn.bubble == pytest.approx((stages - 1) / (count * chunks)) == pytest.approx(drawn.formula)
    assert len(drawn.passes) == 2 * stages * count * chunks
    if chunks == 1:
        assert [drawn.held(stage) for stage in range(stages)] == [min(stages - s, count) for s in range(stages)]


def test_stages_never_overlap_and_wait_for_what_they_need():
    drawn = pipeline.ideal(4, 8, 2)
    for stage in range(4):
        own = [one for one in drawn.passes if one.stage == stage]
        assert all(one.end <= other.start + 1e-9 for one, other in zip(own, own[1:], strict=False))
    ends = {(one.direction, one.micro_batch, one.chunk * 4 + one.stage): one.end for one in drawn.passes}
    for one in drawn.passes:
        piece = one.chunk * 4 + one.stage
        before = piece - 1 if one.direction == "forward" else piece + 1
        assert one.start >= ends.get((one.direction, one.micro_batch, before), 0.0) - 1e-9


def test_lists_that_wait_for_each_other_are_told():
    order = [[Work("backward", 0), Work("forward", 0)], [Work("forward", 0), Work("backward", 0)]]
    with pytest.raises(Stuck, match="stage 0 waits to take 0 backward; stage 1 waits to take 0 forward"):
        list(pipeline_order.timed(order, 1, lambda stage, work: 1))


def write(folder, rank, stage, steps):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step, late in steps.items():
        start = 1000.0 * step
        passes = [["forward", 0, 0, start + stage * 0.01, start + 0.01 + stage * 0.01]]
        passes.append(["backward", 0, 0, start + 0.04 - stage * 0.02, start + 0.06 - stage * 0.02 + late])
        lines.append(json.dumps({"stage": stage, "step": step, "start": start, "end": start + 0.07, "passes": passes}))
    (folder / f"rank-{rank}.jsonl").write_text("\n".join(lines) + '\n{"stage": 0, "st')  # killed while it wrote


def test_of_several_ranks_of_a_stage_the_first_counts_and_of_steps_the_whole_ones(tmp_path):
    for rank, stage, last in ((0, 0, 4), (1, 0, 4), (2, 1, 3), (3, 1, 3)):
        write(tmp_path, rank, stage, dict.fromkeys(range(1, last + 1), 0.0))
    schedule = pipeline.replayed(tmp_path, "two of each")
    assert schedule.step == 3 and schedule.stages == 2 and len(schedule.passes) == 4
    assert [round(one.start) for one in schedule.passes] == [0, 10, 20, 40]


def test_a_run_without_a_schedule_says_how_to_record_one():
    with pytest.raises(FileNotFoundError, match="record_schedule=True"):
        pipeline.of_run(runs.recorded("h200", "gpt3_345m_2_bf16"))


def test_a_record_is_read_as_it_was_written(tmp_path, monkeypatch):
    drawn = pipeline.ideal(2, 4)
    monkeypatch.setattr(pipeline, "of_run", lambda run: drawn)
    monkeypatch.setattr(pipeline.records, "RECORDED", tmp_path)
    run = type("Run", (), {"environment": {"machine": {"label": "h100"}}})()
    pipeline.record(run, "two", tmp_path)
    assert pipeline.recorded("h100", "two").passes == drawn.passes
    assert isinstance(pipeline.recorded("h100", "three"), Absence)


def test_figures_say_what_is_measured_and_what_is_not():
    drawn = pipeline.ideal(4, 8)
    picture = plots.pipeline_schedule(drawn, pipeline.ideal(4, 8, 2), Absence("none"))
    assert "drawn" in picture.alt and "waiting is 37.5%" in picture.alt and picture.png
    assert plots.pipeline_schedule(Absence("none")) == Absence("none")
    run = plots.pipeline_schedule(pipeline.recorded("h200", "gpt_8_3b_quarter_pp2_m8_v3"))
    assert "PP2, m = 8, v = 3 · measured on 2 × NVIDIA H200: 2 stages" in run.alt
    assert "v=1: 0 0 1 1 2 2 3 3; v=2: 0 1 2 3 0 1 2 3" in plots.layers_on_stages(8, 4).alt
    table = pipeline.bubbles([drawn])
    assert list(table.index) == ["P=4, m=8 (drawn)"] and table["most held, stage 0"].iloc[0] == "4"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pipeline.ideal(0, 8), "from 1 to 128"),
        (lambda: pipeline.ideal(4, 10**9), "from 1 to 128"),
        (lambda: pipeline.ideal(4, 6, 2), "groups of 4"),
        (lambda: pipeline.ideal(4, 8, 1, -1.0), "above 0"),
        (lambda: pipeline.of_run("x"), "it takes a run"),
        (lambda: pipeline.bubbles([]), "one or more"),
        (lambda: plots.pipeline_schedule(3), "a schedule, from runs.pipeline"),
        (lambda: plots.against_micro_batches({}), "no series to draw"),
        (lambda: plots.against_chunks({}, {}), "no series to draw"),
        (lambda: plots.layers_on_stages(16, 3), "16 layers do not go into 3 stages"),
        (lambda: plots.layers_on_stages(16, 4, (1, 3)), "4 stages × 3 chunks"),
        (lambda: plots.layers_on_stages(0, 4), "from 1 to 64"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_words(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
