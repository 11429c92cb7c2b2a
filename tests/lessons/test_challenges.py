"""Exercises that change a launch judge by the plan and by real runs, and tell what is wrong in words."""

from itertools import product
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers import recipes
from helpers.lessons import challenges
from helpers.machine import CPU
from helpers.recipes import accounting

REAL = recipes.gpt3_345m().with_(stock=False)
SMALL = REAL.with_(name="mine", **challenges.SMALL_GPT, micro_batch_size=8)
PLANNED = sum(accounting.memory(SMALL).values()) / 1e9


def test_the_small_models_memory_is_right_within_a_tenth():
    assert challenges.memory(SMALL, 1.09 * PLANNED, machine=CPU).kind == "right"
    wrong = challenges.memory(SMALL, PLANNED / 2, machine=CPU)
    assert wrong.kind == "wrong" and "50% less than the plan needs" in wrong.text and "optimizer" in wrong.text


@pytest.mark.parametrize(
    "recipe, gigabytes, words",
    [
        (REAL, 10, "another model or batch: num_layers is 24"),
        (SMALL.with_(micro_batch_size=4), 10, "micro_batch_size is 4"),
        ("gpt", 10, "not str"),
        (SMALL, "10", "one number"),
        (SMALL, -1, "one number"),
    ],
)
def test_another_model_or_no_number_is_told(recipe, gigabytes, words):
    told = challenges.memory(recipe, gigabytes, machine=CPU)
    assert told.kind == "wrong" and words in told.text
    assert challenges.memory(..., ..., machine=CPU).kind == "asked"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"micro_batch_size": 32}, "GB"),
        ({"micro_batch_size": 4, "num_layers": 12}, "changes the model, and so what is learned"),
        ({"global_batch_size": 8, "micro_batch_size": 4}, "changes the global batch"),
        ({"fp8_format": "hybrid"}, "the number formats"),
        ({"tensor_parallel": 2}, "this layout has 2 ranks"),
        ({"micro_batchsize": 4}, "micro_batch_size"),
        ("micro_batch_size=4", "a dictionary"),
        ({}, "a dictionary"),
    ],
)
def test_changes_that_miss_the_point_are_told_before_anything_is_trained(changes, words):
    told = challenges.sixteen_gigabytes(changes, None, CPU)
    assert told.kind == "wrong" and words in told.text


@pytest.mark.train
def test_a_smaller_micro_batch_fits_and_leaves_the_losses(small_corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path))
    monkeypatch.setattr(challenges, "STEPS", 4)
    told = challenges.sixteen_gigabytes({"micro_batch_size": 4, "recompute": "full"}, small_corpus, CPU)
    assert told.kind == "right" and "4 steps of the small twin" in told.text


def test_each_broken_log_has_one_cause_and_shows_megatrons_lines():
    assert (
        sum(challenges.diagnose(number, cause).kind == "right" for number in (1, 2, 3) for cause in challenges.CAUSES)
        == 3
    )
    for number in (1, 2, 3):
        text = challenges.broken_log(number)
        assert " iteration        1/" in text and "commands" not in text
        assert challenges.diagnose(number, ...).kind == "asked"
        assert challenges.diagnose(number, "gremlins").kind == "wrong"
    with pytest.raises(ValueError, match="logs 1 to 3, and no log 4"):
        challenges.broken_log(4)


def test_the_learning_rate_is_the_logged_one():
    logged = pd.Series({60: 1.5e-4})
    run = SimpleNamespace(recipe=REAL.with_(train_iters=100), series=lambda name: logged)
    assert challenges.learning_rate(1.505e-4, run).kind == "right"
    wrong = challenges.learning_rate(1e-4, run)
    assert wrong.kind == "wrong" and "larger" in wrong.text and "90 steps" in wrong.text
    assert challenges.learning_rate("x", run).kind == "wrong" and challenges.learning_rate(..., run).kind == "asked"
