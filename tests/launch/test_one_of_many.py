"""`launch.one_of_many` against the job itself: what the rank holds is what it holds among the others, to the byte."""

import json
import re

import pytest

from helpers import launch
from helpers.machine import CPU, PROJECT
from helpers.recipes import Layout, preflight
from helpers.recipes.command import run_variables


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return tiny_recipe.with_(
        layout=Layout(processes=4, pipeline_parallel=2, distributed_optimizer=True),
        dtype="bf16",
        sequence_length=32,
        micro_batch_size=1,
        global_batch_size=4,
        tensorboard=False,
        eval_iters=0,
    )


@pytest.mark.train
def test_a_rank_alone_holds_what_it_holds_among_the_others(recipe, small_corpus, capsys):
    """The first rank of the second stage; on a corpus, whose sample index rank 0 would have built."""
    short = recipe.with_(train_iters=2, lr_warmup_iters=0)
    program, variables = PROJECT / "tests" / "real_ranks.py", run_variables(recipe, CPU)
    output = launch.ranks(program, 4, *short.flags(None, CPU), machine=CPU, variables=variables)
    told = re.findall(r"^\[rank (\d)\] ONE_RANK (.*)$", output, re.MULTILINE)
    real = {int(rank): json.loads(found)["state_bytes"] for rank, found in told}

    one = launch.one_of_many(recipe, small_corpus, stage=1, steps=2, machine=CPU)
    assert one.rank == 2 and one.state_bytes == real[2] != real[0]
    assert len(one.milliseconds) == 2 and one.wall_milliseconds > 0
    assert one.busy_milliseconds is None and one.peak_bytes > sum(one.state_bytes.values())
    assert "--fake-process-group" in one.command and one.environment["versions"]["torch"]
    shown = capsys.readouterr().out + repr(one)
    assert "rank 2 of 4, stage 1" in shown
    assert "lm loss" not in shown and "grad norm" not in shown


def test_the_number_of_steps_is_looked_at(recipe):
    with pytest.raises(TypeError, match=r"\(steps=0\): it takes a whole number from 1"):
        launch.one_of_many(recipe, steps=0, machine=CPU)
    with pytest.raises(TypeError, match="it takes a whole number"):
        launch.one_of_many(recipe, stage="last", machine=CPU)


def test_what_takes_the_others_is_refused_before_anything_starts(recipe):
    with pytest.raises(preflight.PreflightError, match="all ranks together"):
        launch.one_of_many(recipe.with_(extra_flags=("--load", "elsewhere")), machine=CPU)
    with pytest.raises(preflight.PreflightError, match="2 stages, 0 to 1"):
        launch.one_of_many(recipe, stage=2, machine=CPU)
