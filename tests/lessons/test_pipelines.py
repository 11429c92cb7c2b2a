"""What notebook 06 asks: the schedule of the answer is right, others are told why; stages and table 401 as planned."""

import pytest
from machines import EIGHT_H200

from helpers import recipes
from helpers.lessons import pipelines
from helpers.runs import pipeline

RIGHT = [
    "F1 F2 F3 F4 B1 F5 B2 F6 B3 F7 B4 F8 B5 B6 B7 B8",
    "F1 F2 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 F8 B6 B7 B8",
    "F1 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 F8 B7 B8",
    "F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7 F8 B8",
]
GPIPE = ["F1 F2 F3 F4 F5 F6 F7 F8 B1 B2 B3 B4 B5 B6 B7 B8"] * 4
ONE_BY_ONE = ["F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7 F8 B8"] * 4
HELD_3 = ["F1 F2 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 F8 B6 B7 B8", *RIGHT[1:]]


def test_the_answer_is_right():
    assert pipelines.puzzle(RIGHT).kind == "right"
    assert pipelines.puzzle([row.lower() for row in RIGHT]).kind == "right"
    assert pipelines.puzzle(HELD_3, idle=96, held=3).kind == "right"


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        (..., "asked", "36 idle slots"),
        (GPIPE, "wrong", "8 micro-batches held"),
        (ONE_BY_ONE, "wrong", "288 idle slots"),
        (HELD_3, "wrong", "idle slots"),
        (["B1 F1 " + RIGHT[0][6:].replace("B1 ", "")] * 4, "wrong", "has no F2"),
        ([row.replace("F1 ", "", 1).replace("B1", "B1 F1", 1) for row in RIGHT], "wrong", "A deadlock"),
        (RIGHT[:3], "wrong", "a list of 4 texts"),
        ("F1 B1", "wrong", "a list of 4 texts"),
        (7, "wrong", "a list of 4 texts"),
        ([*RIGHT[:3], "F1 F1"], "wrong", "F1 twice"),
        ([*RIGHT[:3], "F1 X2"], "wrong", "'X2'"),
        ([*RIGHT[:3], RIGHT[3] + " F9"], "wrong", "an odd F9"),
        ([*RIGHT[:3], ""], "wrong", "has no B1"),
    ],
)
def test_other_schedules_are_told_why(rows, kind, words):
    told = pipelines.puzzle(rows)
    assert told.kind == kind and words in told.text, told.text


@pytest.mark.parametrize("answer", ["2", 4, -1, True, 1.5, [2]])
def test_a_stage_that_there_is_not(answer):
    told = pipelines.mend(pipeline.ideal(4, 8), answer)
    assert told.kind == "wrong" and "from 0 to 3" in told.text


def test_stages_are_planned_one_by_one():
    recipe = recipes.llama3_8b().with_(pipeline_parallel=4, cuda_graph=False, global_batch_size=32)
    table = pipelines.stages(recipe.with_(pipeline_layout="Et*8|t*9|t*8|t*7L"), EIGHT_H200)
    assert list(table["layers"]) == ["8 + E", "9", "8", "7 + L"]
    assert list(table["micro-batches held"]) == [4, 3, 2, 1]
    even = pipelines.stages(recipe, EIGHT_H200)["ms a micro-batch"]
    assert table["ms a micro-batch"].max() < even.max()


def test_table_401_has_every_row_and_says_what_was_not_run():
    table = pipelines.table_401("h100-80gb-hbm3")
    assert list(table.index) == [1, 2, 4, 8, 16, 32] and list(table["micro-batch"]) == [32, 16, 8, 4, 2, 1]
    assert set(table["PP2, measured"]) == {pipelines.NOT_RUN}
    published, planned, steady = pipelines.claim().values()
    assert min(published, key=published.get) == min(planned, key=planned.get) == 8
    assert list(steady.values()) == sorted(steady.values(), reverse=True)
