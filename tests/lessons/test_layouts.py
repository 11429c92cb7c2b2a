"""The layout exercises: their own answers pass, bad ones are told why."""

import pytest

from helpers import planner, recipes, runs
from helpers.lessons import layouts

GOOD = {
    1: {"context_parallel": 4, "micro_batch_size": 1},
    2: {
        "tensor_parallel": 2,
        "sequence_parallel": True,
        "pipeline_parallel": 2,
        "virtual_pipeline_chunks": 2,
        "micro_batch_size": 1,
    },
    3: {"tensor_parallel": 2, "sequence_parallel": True, "pipeline_parallel": 8, "context_parallel": 2},
}
MENDED = {
    1: {"tensor_parallel": 1, "sequence_parallel": False},
    2: {"pipeline_parallel": 2, "micro_batch_size": 4},
    3: {"recompute": None},
}


@pytest.mark.parametrize("number", GOOD)
def test_a_layout_near_the_best_is_right(number):
    answer = layouts.plan(number, GOOD[number])
    assert answer.kind == "right" and "of the best" in answer.text, answer.text


@pytest.mark.parametrize("number", MENDED)
def test_a_mended_layout_is_right_and_the_bad_one_runs(number):
    assert layouts.show(number, bad=True).step.seconds > 0
    answer = layouts.repair(number, MENDED[number])
    assert answer.kind == "right" and "times as fast" in answer.text, answer.text


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda: layouts.plan(1, ...), "asked", "32,768 tokens"),
        (lambda: layouts.plan(9, {}), "wrong", "There is no number 9"),
        (lambda: layouts.plan("x", {}), "wrong", "number"),
        (lambda: layouts.plan(1, [1]), "wrong", "a dict of changes"),
        (lambda: layouts.plan(1, {"num_layers": 2}), "wrong", "num_layers stays"),
        (lambda: layouts.plan(1, {"tensor_parallel": 3}), "wrong", "do not go into 3"),
        (lambda: layouts.plan(1, {"micro_batch_size": 2}), "wrong", "more than the GPU's"),
        (lambda: layouts.plan(3, {"tensor_parallel": 8, "pipeline_parallel": 8}), "wrong", "loses by"),
        (lambda: layouts.repair(1, ...), "asked", "5 times as fast"),
        (lambda: layouts.repair(1, {"tensor_parallel": 16}), "wrong", "1 times as fast"),
        (lambda: layouts.repair(3, {"tensor_parallel": 2, "sequence_parallel": True}), "wrong", "times as fast"),
    ],
)
def test_other_answers_are_told_in_words(answer, kind, words):
    told = answer()
    assert told.kind == kind and words in told.text, told.text


def test_a_recorded_step_stands_beside_its_plan():
    name = "gpt_1_2b_20_tp2_sp_profile"
    timeline, run = runs.timeline.recorded("h200", name), runs.recorded("h200", name)
    plan = planner.predict(run.recipe, recipes.recipe.Machine.from_json(run.environment["machine"]))
    table = layouts.beside(timeline, plan)
    assert table["measured ms"].sum() == pytest.approx(timeline.step_ms, rel=0.01)
    assert table["planned ms"].sum() == pytest.approx(plan.step.milliseconds, rel=0.01)
    worst = table["difference"].abs().idxmax()
    assert layouts.wrong_part(timeline, plan, worst).kind == "right"
    other = next(part for part in layouts.BESIDE if part != worst)
    assert layouts.wrong_part(timeline, plan, other).kind == "wrong"
    assert layouts.wrong_part(timeline, plan, "magic").kind == "wrong"
    assert layouts.wrong_part(timeline, plan, ...).kind == "asked"
