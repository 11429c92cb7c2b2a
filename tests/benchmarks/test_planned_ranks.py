"""The ranks of `tests/benchmarks/one_of_many.py` would start on the GPU that they are planned for."""

import fnmatch

import megatron_parser
import one_of_many
import pytest
from machines import ONE_H100

from helpers.planner import elsewhere
from helpers.recipes import preflight

PLANNED = one_of_many.planned()


@pytest.mark.parametrize(("table", "pattern"), one_of_many.ROWS)
def test_each_row_is_one_that_others_measured(table, pattern):
    assert any(row.table == table and fnmatch.fnmatchcase(row.name, pattern) for row in elsewhere.rows())


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_rank_passes_preflight(name):
    recipe, stage = PLANNED[name]
    assert preflight.check(recipe, None, ONE_H100, stage=stage) == []


def test_megatron_knows_every_flag_of_them():
    words = {word for recipe, _ in PLANNED.values() for word in recipe.flags(None, ONE_H100) if word.startswith("--")}
    assert words - megatron_parser.flags() == set()


def test_both_ends_of_a_pipeline_are_planned():
    assert {stage for name, (_, stage) in PLANNED.items() if name.startswith("401_")} == {0, 7}
