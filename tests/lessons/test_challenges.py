"""Exercises checked by running them: right answers, near misses, wrong types; what is measured is measured."""

import json
import math

import pytest
from machines import ONE_H200
from records import DATA, make_run

from helpers import launch, recipes
from helpers.lessons import challenges
from helpers.machine import CPU
from helpers.recipes import accounting
from helpers.runs import log_lines
from helpers.show.message import Message

WHOLE = recipes.gpt3_345m()
SMALL = WHOLE.with_(**challenges.SIZES, micro_batch_size=4)
ODD = [3, 2.5, "text", [1], {}, object(), math.nan, True, len, b"x"]


def planned(recipe) -> float:
    return sum(size for part, size in accounting.memory(recipe).items() if part != "other") / 1e9


def test_gpt3_small_and_its_memory():
    right = planned(SMALL)
    for answer in (right, 0.91 * right, 1.09 * right):
        told = challenges.gpt3_small(SMALL, answer, machine=CPU)
        assert told.kind == "right" and f"{right:.2f} GB" in told.text
    states = 18 * sum(accounting.parameter_counts(SMALL.model).values()) / 1e9
    for answer, words in ((0.85 * right, "should be larger"), (1.2 * right, "should be smaller")):
        told = challenges.gpt3_small(SMALL, answer, machine=CPU)
        assert told.kind == "wrong" and words in told.text and f"{right:.2f}" not in told.text
    assert "Activations and logits are missing" in challenges.gpt3_small(SMALL, states, machine=CPU).text
    assert "off by a thousand" in challenges.gpt3_small(SMALL, 1e3 * right, machine=CPU).text
    assert "without quotes" in challenges.gpt3_small(SMALL, "2", machine=CPU).text


def test_another_model_is_not_gpt3_small():
    assert challenges.gpt3_small(..., ...).kind == challenges.gpt3_small(SMALL, ...).kind == "asked"
    assert "look at num_layers=24, hidden_size=1024" in challenges.gpt3_small(WHOLE, 3).text
    near = SMALL.with_(num_attention_heads=16)
    assert "look at num_attention_heads=16:" in challenges.gpt3_small(near, 3).text
    assert "recipes.gpt3_345m() itself" in challenges.gpt3_small(SMALL.scaled_to("cpu"), 3).text
    assert "a recipe, not dict" in challenges.gpt3_small({}, 3).text
    assert all(challenges.gpt3_small(odd, 3).kind == "wrong" for odd in ODD)


def test_on_a_gpu_the_measured_peak_decides(monkeypatch, tmp_path):
    started = []

    def train(recipe, data, fresh, machine):
        started.append(recipe)
        scalars = {"lm loss": {1: 10.0}, "mem-max-allocated-bytes": {1: 1e9 * 1.25 * planned(SMALL)}}
        return make_run(tmp_path / f"{len(started)}", recipe, machine, scalars)

    monkeypatch.setattr(launch, "train", train)
    assert challenges.gpt3_small(SMALL, planned(SMALL), DATA, ONE_H200).kind == "wrong"
    assert started[0].schedule.train_iters == 5 and started[0].model == SMALL.model
    assert challenges.gpt3_small(SMALL, 3 * planned(SMALL), DATA, ONE_H200).kind == "wrong" and len(started) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "planned 36.7 GB of 17.2. The largest part: activations"),
        ({"micro_batch_size": 16}, "planned 22"),
        ({"micro_batch": 4}, "A recipe has no 'micro_batch'. Did you mean micro_batch_size?"),
        ({"dropout": 0.1}, "dropout changes what is learned"),
        ({"micro_batch_size": 4, "global_batch_size": 4}, "global_batch_size changes what is learned"),
        ({"num_layers": 2, "lr": 1}, "lr, num_layers changes what is learned"),
        ({"micro_batch_size": 3}, "micro"),
        ({"micro_batch_size": "4"}, "micro_batch_size"),
        ({"recompute": "all"}, "recompute"),
    ],
)
def test_what_does_not_fit_or_changes_the_loss_is_not_started(monkeypatch, changes, words):
    monkeypatch.setattr(launch, "train", lambda *_args, **_kwargs: pytest.fail("nothing is to be started"))
    told = challenges.fit_16gb(changes, None, CPU)
    assert told.kind == "wrong" and words in told.text


def test_an_answer_that_is_no_change_is_told():
    assert challenges.fit_16gb(..., None).kind == "asked"
    assert all("a dict of changes" in challenges.fit_16gb(odd, None).text for odd in ODD if odd != {})


@pytest.mark.parametrize(("off", "kind"), [(5e-4, "right"), (5e-3, "wrong")])
def test_losses_that_part_are_told(monkeypatch, tmp_path, off, kind):
    def train(recipe, data, fresh, machine):
        shift = off if recipe.name.endswith("changed") else 0
        return make_run(tmp_path / recipe.name, recipe, machine, {"lm loss": {1: 8.0, 2: 7.0 + shift}})

    monkeypatch.setattr(launch, "train", train)
    assert challenges.fit_16gb({"micro_batch_size": 4}, None, CPU).kind == kind


@pytest.mark.train
def test_the_small_twin_keeps_its_loss_in_smaller_pieces(small_corpus, monkeypatch):
    launched = []
    train = launch.train
    tiny = {"vocab_size": 512, "num_layers": 2, "hidden_size": 64, "sequence_length": 64}

    def recorded(recipe, data, **keywords):
        launched.append(recipe)
        return train(recipe.with_(**tiny), data, **keywords)

    monkeypatch.setattr(launch, "train", recorded)
    told = challenges.fit_16gb({"micro_batch_size": 8, "recompute": "full"}, small_corpus, CPU)
    assert told.kind == "right" and "of the small twin" in told.text
    assert [recipe.batch.micro_batch_size for recipe in launched] == [8, 2]
    assert [recipe.batch.recompute for recipe in launched] == [None, "full"]


@pytest.mark.parametrize("number", challenges.FAULTS)
def test_a_broken_log_is_megatrons_and_does_not_tell_its_cause(number):
    log, fault = challenges.broken_log(number), challenges.FAULTS[number]
    assert len(log_lines.STEP_LINE.findall(log)) >= 40 and "{" not in log.splitlines()[0]
    header = json.loads((challenges.BROKEN / fault.file).read_text().splitlines()[0])
    assert header["commands"], "the command that made it is kept"
    assert challenges.diagnose(number, ...).kind == "asked"
    for cause in challenges.CAUSES:
        told = challenges.diagnose(number, cause.upper() + " ")
        assert told.kind == ("right" if cause == fault.cause else "wrong")
        assert (fault.why in told.text) == (cause == fault.cause)
    for odd in ODD:
        assert "is none of the names" in challenges.diagnose(number, odd).text


def test_the_explanations_are_true_of_the_logs():
    first, second, third = (
        [(int(match[2]), log_lines._fields(match)) for match in log_lines.STEP_LINE.finditer(challenges.broken_log(n))]
        for n in (1, 2, 3)
    )
    skipped = [step for step, fields in first if float(fields["learning rate"]) == 0]
    assert skipped == list(range(1, 16)) and float(first[0][1]["loss scale"]) == 2**32
    assert "lm loss" not in first[14][1] and first[-1][1]["lm loss"] == "0.000000E+00"
    losses = {step: float(fields["lm loss"]) for step, fields in second}
    assert min(losses, key=losses.get) > 4 and losses[4] < losses[3] and losses[4] < losses[5] < losses[6]
    assert max(losses, key=losses.get) == 8 and round(losses[8], 1) == 12.4
    assert max(float(fields["learning rate"]) for _, fields in second) == 0.1
    assert [step for step, _ in third] == [*range(1, 21), *range(1, 21)]
    assert [fields["lm loss"] for _, fields in third[:20]] == [fields["lm loss"] for _, fields in third[20:]]


def test_there_are_three_broken_logs():
    for odd in (0, 4, "1", True, None, [1]):
        assert "there are 1, 2, 3" in challenges.diagnose(odd, "checkpoint").text
        assert isinstance(challenges.broken_log(odd), Message)


@pytest.fixture
def run(tmp_path):
    recipe = recipes.gpt3_345m().scaled_to("cpu")
    rates = {step: recipe.schedule.learning_rate(step) for step in range(1, 101)}
    return make_run(tmp_path / "run", recipe, CPU, {"lm loss": {1: 8.0}, "learning-rate": rates})


def test_the_learning_rate_by_hand(run):
    share = (60 - 10) / (100 - 10)
    right = 2e-4 + (2e-3 - 2e-4) * (1 + math.cos(math.pi * share)) / 2
    assert challenges.learning_rate(right, run).kind == challenges.learning_rate(round(right, 6), run).kind == "right"
    assert challenges.learning_rate(2e-4, run, step=1).kind == "right", "on the way up"
    assert challenges.learning_rate(..., run).kind == "asked"
    height = 2e-3 - 2e-4
    for answer, words in {
        2e-3: "the highest one",
        2e-3 * 0.4: "a straight line",
        2e-3 * (1 + math.cos(math.pi * share)) / 2: "ends at --min-lr",
        2e-4 + height * (1 + math.cos(math.pi * 0.6)) / 2: "after the warm-up",
        height * (1 + math.cos(math.pi * share)) / 2: "still to be added",
        right / 3: "It should be larger. First a line",
    }.items():
        told = challenges.learning_rate(answer, run)
        assert told.kind == "wrong" and words in told.text, answer
        assert f"{right:.6f}" not in told.text
    assert all(challenges.learning_rate(odd, run).kind == "wrong" for odd in ODD)
    assert "logged 100 steps, and not that one" in challenges.learning_rate(1e-3, run, step=101).text


@pytest.mark.parametrize("run", [None, "run", 5])
def test_a_rate_of_no_run_is_told_in_a_message(run):
    assert challenges.learning_rate(1e-4, run).text.startswith("challenges.learning_rate(run=")


@pytest.mark.parametrize(
    "call",
    [
        lambda: challenges.fit_16gb({5: 1}, None),
        lambda: challenges.fit_16gb({"micro_batch_size": 1}, "folder"),
        lambda: challenges.fit_16gb({"micro_batch_size": 1}, None, "cpu"),
        lambda: challenges.gpt3_small(SMALL, 5, None, "cpu"),
        lambda: challenges.gpt3_small(SMALL.with_(micro_batch_size=0), 5),
        lambda: challenges.gpt3_small(SMALL.with_(tensor_parallel=5), 5),
    ],
)
def test_rough_answers_get_a_message(call):
    assert call().kind == "wrong"
