"""What notebook 06 asks: the schedule of the answer is right, others are told why; stages and table 401 as planned."""

import pytest
from machines import EIGHT_H200

from helpers import recipes
from helpers.lessons import pipelines
from helpers.recipes.accounting.activations import micro_batches_held
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
    assert list(table["micro-batches held"]) == ["4", "3", "2", "1"]
    even = pipelines.stages(recipe, EIGHT_H200)["ms a micro-batch"]
    assert table["ms a micro-batch"].max() < even.max()


def test_stages_with_chunks_say_how_many_micro_batches_they_hold():
    """As the drawn schedule of Megatron's order holds them, and never more than there are."""
    recipe = recipes.llama3_8b().with_(pipeline_parallel=4, cuda_graph=False, global_batch_size=32)
    for v in (1, 2, 4):
        drawn = pipeline.ideal(4, 16, v)
        assert [micro_batches_held(recipe.with_(virtual_pipeline_chunks=v).layout, 16, r) for r in range(4)] == [
            drawn.held(r) for r in range(4)
        ]
    table = pipelines.stages(recipe.with_(virtual_pipeline_chunks=2), EIGHT_H200)
    assert list(table["micro-batches held"]) == ["5.5", "4.5", "3.5", "2.5"]
    assert micro_batches_held(recipe.with_(virtual_pipeline_chunks=2).layout, 4, 0) == 4


def test_layouts_are_compared_in_a_row_each():
    recipe = recipes.llama3_8b().with_(layout=recipes.Layout(processes=8), fp8_format=None, fp8_param_gather=False)
    recipe = recipe.with_(cuda_graph=False, moments_in_bf16=False, overlap_communication=False, global_batch_size=32)
    wide, deep = {"tensor_parallel": 8}, {"tensor_parallel": 2, "pipeline_parallel": 4}
    table = pipelines.compare(recipe, EIGHT_H200, wide, deep, deep | {"virtual_pipeline_chunks": 2})
    assert list(table.index) == ["TP8", "TP2×PP4", "TP2×PP4×VPP2"] and list(table["m"]) == [32, 32, 32]
    assert list(table["bubble of the step"]) == ["0%", "9%", "4%"]
    with pytest.raises(recipes.preflight.PreflightError, match="32 / 12 is not whole"):
        pipelines.compare(recipe, EIGHT_H200, deep | {"virtual_pipeline_chunks": 3})


class Begun:
    """A run of which only the recipe is asked."""

    recipe = recipes.gpt3_345m().with_(pipeline_parallel=2, micro_batch_size=4, global_batch_size=8)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (..., "asked", "it begins with Et*6|t*18L"),
        ({"num_layers": 2}, "wrong", "all else stays"),
        ("Et*12|t*12L", "wrong", "a dict with some of"),
        ({"pipeline_layout": "Et*12|t*13L"}, "wrong", "It deals out 25 layers"),
    ],
)
def test_what_balance_says_before_it_trains(changes, kind, words):
    told = pipelines.balance.__wrapped__(Begun(), changes, None, EIGHT_H200)
    assert told.kind == kind and words in told.text, told.text
