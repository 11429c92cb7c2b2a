"""Predictions are kept and compared; checks know right from wrong, give hints, and meet every wrong type with words."""

import html
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.lessons import answers, exercises
from helpers.lessons.exercises import check, number, predict
from helpers.machine import PROJECT


@pytest.fixture
def live(monkeypatch):
    """A notebook with a person before it, who has predicted nothing yet."""
    monkeypatch.delenv("MEGATRON_TOUR_HEADLESS", raising=False)
    monkeypatch.setattr(exercises, "predictions", exercises.Predictions())
    return exercises.predictions


def box_of(asked):
    return asked.widget.children[1].children[0]


def reply_to(asked) -> str:
    return asked.widget.children[2].value


def test_a_typed_number_is_kept_and_compared(live):
    asked = predict("final loss", "What will the loss be after 100 steps?", unit="nats")
    box_of(asked).value = "5.2"
    assert live == {"final loss": 5.2}
    assert "Written down: 5.2 nats" in reply_to(asked)
    told = str(live.compare("final loss", 4.0))
    assert "Measured, final loss: 4 nats" in told and "You predicted 5.2 nats, 30% more." in told
    assert json.loads(json.dumps(live)) == {"final loss": 5.2}, "launch.train writes it into the run directory"


def test_a_typed_word_gets_words_and_keeps_the_last_good_number(live):
    asked = predict("speed", "How fast?")
    box_of(asked).value = "12,500"
    box_of(asked).value = "fast"
    assert "is not a number" in reply_to(asked) and live == {"speed": 12500.0}
    box_of(asked).value = ""
    assert live == {"speed": 12500.0}
    assert box_of(predict("speed", "How fast?")).value == "12500", "asked again, the box shows what was predicted"


def test_a_choice_is_kept(live):
    asked = predict("winner", "Which layout is fastest?", choices=("TP2", "DP2"))
    assert box_of(asked).value is None and live == {}
    box_of(asked).value = "DP2"
    assert live == {"winner": "DP2"}
    assert live.compare("winner", "DP2").kind == "right"
    assert str(live.compare("winner", "TP2")).endswith("You predicted DP2.")


def test_each_of_several_that_are_equally_good_is_right(live):
    live["best"] = "blockwise"
    told = live.compare("best", ("blockwise", "mxfp8"))
    assert told.kind == "right" and "Measured, best: blockwise and mxfp8. You predicted blockwise: right." in str(told)
    live["best"] = "delayed"
    assert live.compare("best", ("blockwise", "mxfp8")).kind == "plain"


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (lambda: check("mine", 1, 1, tolerance=-1), "(tolerance=-1): it takes a number from 0 to 1."),
        (lambda: check("mine", 1, 1, tolerance=math.nan), "(tolerance=nan): it takes a number from 0 to 1."),
        (lambda: check("mine", True, 1), "the answer is one number, not bool"),
        (lambda: check("all-reduces", 1), "There is no exercise called “all-reduces”. Did you mean “all-reduce”?"),
        (lambda: check(None, 1), "(name=None): it takes a text, not None"),
    ],
)
def test_an_odd_question_is_answered_in_words(answered, words):
    assert answered().kind == "wrong" and words in str(answered())


def test_a_saved_page_keeps_the_question_and_an_empty_box_and_no_remark(live, monkeypatch):
    monkeypatch.setenv("MEGATRON_TOUR_HEADLESS", "1")
    asked = predict("final loss", "What will the loss be?", unit="nats")
    assert set(asked._repr_mimebundle_()) == {"text/plain", "text/html"} and live == {}
    words = html.unescape(re.sub(r"<[^>]+>", "", asked._repr_html_()))
    assert " ".join(words.split()) == "Predict: What will the loss be? nats"
    either = predict("winner", "Which?", choices=("TP2", "DP2"))
    assert "☐ TP2&emsp;☐ DP2" in either._repr_html_()
    assert str(live.compare("final loss", 4.5)) == "· Measured, final loss: 4.5 nats."


def test_with_a_kernel_the_box_is_shown_and_a_saved_page_has_the_question(live):
    shown = predict("final loss", "What will the loss be?")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown and "What will the loss be?" in shown["text/html"]


def test_a_terminal_says_how_to_answer(live):
    words = repr(predict("final loss", "What will the loss be?", unit="nats"))
    assert "VBox" not in words and words.splitlines() == [
        "Predict: What will the loss be?",
        "[          ] nats",
        "Write it down: exercises.predictions['final loss'] = …",
    ]


def test_predictions_written_down_by_hand_get_words_whatever_they_are(live):
    """`predict` says in a terminal: exercises.predictions["loss"] = …"""
    live["loss"] = ...
    assert live.compare("loss", 4.5).text == "Measured, loss: 4.5."
    for typed in ("4,5", "4.5", 4.5):
        live["loss"] = typed
        assert live.compare("loss", 4.5).text.endswith("You predicted 4.5: exactly that.")
    for odd in ("about 4", [4.5], math.nan, math.inf, {"loss": 4}, True):
        live["loss"] = odd
        assert live.compare("loss", 4.5).text.endswith("is no number: write it like 4.8 or 12500.")
        assert box_of(predict("loss", "The loss?")).value == "" or math.isinf(odd) or math.isnan(odd)
    assert check(["loss"], 1).text == "exercises.check(name=list): it takes a text, not a list."


def test_predictions_kept_with_a_run_count_after_a_restart(live):
    run = SimpleNamespace(predictions={"final loss": 5.0})
    assert str(live.compare("final loss", 4.0, run)).endswith("You predicted 5, 25% more.")
    assert str(live.compare("speed", 4.0, run)) == "· Measured, speed: 4."
    live["final loss"] = 6.0
    assert str(live.compare("final loss", 4.0, run)).endswith("You predicted 6, 50% more."), "this kernel's goes first"


@pytest.mark.parametrize(
    ("predicted", "measured", "words"),
    [
        (4.0, 4.0, "exactly that"),
        (3.0, 4.0, "25% less"),
        (100.0, 4.0, "25 times more"),
        (1.0, 4.0, "4 times less"),
        (0.0, 4.0, "4 away"),
        (-1.0, 4.0, "5 away"),
    ],
)
def test_how_far_off(live, predicted, measured, words):
    live["x"] = predicted
    assert words in str(live.compare("x", measured))


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_was_not_measured_is_said(live, nothing):
    live["MFU"] = 40.0
    assert str(live.compare("MFU", nothing)) == "· MFU: not measured on this machine."


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("12,500", 12500),
        ("1,234,567.5", 1234567.5),
        ("12 500", 12500),
        ("1_000", 1000),
        ("4,5", 4.5),
        ("-4,5", -4.5),
        ("12,50", 12.5),
        ("0,125", 0.125),
        ("1,5e3", 1500),
        ("1,500", 1500),
        ("5e3", 5000),
        ("40%", 40),
        ("40 %", 40),
        (" 4.8 ", 4.8),
        ("-1", -1),
        ("", None),
    ],
)
def test_numbers_as_people_type_them(typed, meant):
    assert number(typed) == meant


NO_NUMBERS = ["abc", "4.8 nats", "--", "nan", "inf", "1.2.3", "1.234,5", "1,2,3", "12,34,567", "1 2", "1_0", ",5", "4,"]


@pytest.mark.parametrize("typed", NO_NUMBERS)
def test_what_is_no_number_is_told(typed):
    assert "is not a number" in number(typed).text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (354_871_296, 354_871_296),
        (355e6, 354_871_296),
        (np.float32(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (0, 0),
        ("tensor ", "Tensor"),
        (True, True),
        (np.bool_(False), False),
        ([0, 1], [0, 1]),
        ((0, 1), [0, 1]),
        ({1, 0}, [0, 1]),
        (np.array([0, 1]), [0, 1]),
        (["TP", 2], ["TP", 2]),
    ],
)
def test_right_answers(answer, expected):
    assert check("1", answer, expected).kind == "right"


@pytest.mark.parametrize(
    ("answer", "expected", "hint"),
    [
        (3, 4, "It should be larger."),
        (9, 4, "It should be smaller."),
        (8, 4, "factor of two"),
        (64e9, 64e6, "off by a thousand"),
        (32, 4, "bits for bytes"),
        ("pipeline", "tensor", "not yet"),
        (True, False, "not yet"),
        ([0, 2], [0, 1], "not yet"),
        ([0, "one"], [0, 1], "not yet"),
        (0.1, 0, "not yet"),
    ],
)
def test_wrong_answers_get_a_hint(answer, expected, hint):
    told = check("1", answer, expected, hint="Count the layers.")
    assert told.kind == "wrong" and hint in told.text and told.text.endswith("Count the layers.")


@pytest.mark.parametrize("answer", [3, 9.5, 1e9, -4, "7", [7], {}, object(), math.nan, math.inf, 7j, True, b"7", len])
def test_a_wrong_answer_of_any_type_gets_words_and_never_the_answer(answer):
    told = check("count", answer, 7123)
    assert told.kind == "wrong" and "7123" not in told.text and "7,123" not in told.text
    assert html.unescape(re.sub(r"<[^>]+>", "", told._repr_html_())) == str(told), "a page shows the same words"


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        ("64", 64, "without quotes"),
        ([64], 64, "one number, not list"),
        (64, "tensor", "text in quotes, not int"),
        (1, True, "True or False, not int"),
        (1, [1, 2], "a list, like [1, 2], not int"),
        ([1], [1, 2], "another number of entries than 1"),
        (math.inf, 64, "divided by zero"),
        (None, 64, "put your answer where the … is"),
        (..., 64, "put your answer where the … is"),
    ],
)
def test_a_wrong_type_is_told_in_words(answer, expected, words):
    assert words in check("1", answer, expected).text


def test_an_exercise_of_the_notebooks_is_asked_by_name():
    assert check("possible TP", ...).kind == "asked"
    assert check("possible TP", [2, 4, 8, 16]).kind == "right"
    told = check("possible TP", [2, 3, 4, 8]).text
    assert "whole heads" in told and "16" not in told, "a hint, never the answer"
    assert "no exercise called “possible PT”" in check("possible PT", 3).text


def test_every_notebook_asks_for_an_answer_that_is_there_and_none_shows_it():
    asked = {}
    for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and (found := re.findall(r'exercises\.check\("([^"]+)"', source)):
                asked |= dict.fromkeys(found, path.name)
                assert "answer=..." in source and "expected" not in source, f"{path.name}: {source}"
    assert set(asked) == set(answers.ANSWERS)
