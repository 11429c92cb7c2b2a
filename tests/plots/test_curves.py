"""The curves of one run: losses of both parts with their reference lines, the planned learning rate and the logged."""

import math

import pytest
from records import DATA, curves, make_run

from helpers import machine, plots, recipes, runs
from helpers.corpus import Corpus

SMALL = recipes.gpt3_345m().scaled_to("cpu").with_(train_iters=20, lr=2e-3, min_lr=2e-4, lr_warmup_iters=4)


@pytest.fixture
def run(tmp_path):
    rates = {step: SMALL.schedule.learning_rate(step) for step in range(1, 21)}
    scalars = curves() | {"learning-rate": rates, "lm loss validation": {10: 9.9, 20: 9.1}}
    return make_run(tmp_path / "live", SMALL, machine.CPU, scalars)


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(Corpus, "unigram_entropy", 6.5)
    return DATA


def drawn(axes, label: str):
    return next(line for line in axes.lines if line.get_label().startswith(label))


def test_the_losses_of_both_parts_are_drawn_and_told(run, data):
    picture = plots.loss(run, data=data)
    (axes,) = picture.figure.axes
    marks = drawn(axes, "on the validation part: 9.10")
    assert marks.get_xdata().tolist() == [10, 20] and marks.get_ydata().tolist() == pytest.approx([9.9, 9.1])
    assert marks.get_linestyle() == "None"
    assert drawn(axes, "in training").get_xdata().tolist() == list(range(1, 21))
    shown = {text.get_text() for text in axes.texts}
    assert shown == {"ln V = 8.32 (guessing)", "6.50 (unigram entropy)"}
    assert "On the validation part gpt3_345m_small had 9.100 at step 20." in picture.alt
    assert "Knowing how often each token occurs would give 6.50." in picture.alt


def test_each_of_several_runs_has_its_validation_part_in_its_colour(run, tmp_path):
    other = make_run(tmp_path / "other", SMALL.with_(name="other"), machine.CPU)
    (axes,) = plots.loss(other, run, reference=False).figure.axes
    marks = drawn(axes, "gpt3_345m_small, on the validation part")
    assert marks.get_color() == drawn(axes, "gpt3_345m_small").get_color() != drawn(axes, "other").get_color()
    assert sum("validation" in line.get_label() for line in axes.lines) == 1


def test_the_learning_rate_that_was_logged_lies_on_the_planned_one(run):
    (axes,) = plots.learning_rate(run).figure.axes
    planned, logged = drawn(axes, "planned"), drawn(axes, "logged")
    assert planned.get_linestyle() == "--" and len(planned.get_xdata()) == 21
    on_the_plan = [planned.get_ydata()[step] for step in logged.get_xdata()]
    assert logged.get_ydata().tolist() == pytest.approx(on_the_plan) and len(on_the_plan) == 20


def test_both_stand_over_the_same_steps(run, data):
    picture = plots.curves(run, data=data)
    above, below = picture.figure.axes
    assert above.get_shared_x_axes().joined(above, below) and below.get_ylabel() == "learning rate"
    assert "ln V = 8.32" in picture.alt and "climbs to 0.002 in 4 steps" in picture.alt


def test_the_learning_rate_by_hand():
    schedule = SMALL.schedule
    assert schedule.learning_rate(0) == 0 and schedule.learning_rate(1) == 5e-4 and schedule.learning_rate(4) == 2e-3
    assert schedule.learning_rate(12) == pytest.approx(1.1e-3), "half of the cosine's way"
    assert schedule.learning_rate(8) == pytest.approx(2e-4 + 1.8e-3 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.learning_rate(20) == pytest.approx(2e-4) and schedule.learning_rate(99) == pytest.approx(2e-4)
    assert SMALL.with_(lr_warmup_iters=0).schedule.learning_rate(0) == 2e-3


@pytest.mark.train
def test_megatron_logs_that_learning_rate(tiny_run):
    logged, schedule = tiny_run.series("learning-rate"), tiny_run.recipe.schedule
    assert logged.tolist() == pytest.approx([schedule.learning_rate(step) for step in range(1, 31)], rel=1e-5)


def test_signed_differences_keep_the_sign_and_name_what_is_missing(tmp_path):
    base = make_run(tmp_path / "base", SMALL, machine.CPU, curves())
    worse = make_run(tmp_path / "worse", SMALL, machine.CPU, curves(start=10.9))
    picture = plots.signed_differences({"worse − base": (worse, base), "b": (base, worse), "gone": (None, base)})
    (axes,) = picture.figure.axes
    heights = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
    assert heights["worse − base"] == pytest.approx([0.1, 0.1]) and heights["b"] == pytest.approx([-0.1, -0.1])
    assert picture.alt.endswith("Not recorded: gone.") and "worse − base: +0.100" in picture.alt
    with pytest.raises(ValueError, match="no pair of runs"):
        plots.signed_differences({"gone": (None, base)})


def test_a_run_of_trained_weights_has_no_line_of_guessing():
    """Its loss lies so far below that the curve would be flat."""
    (run,) = runs.recorded("h200/after_training")
    picture = plots.loss(run)
    assert "ln V" not in picture.alt and not picture.figure.axes[0].texts
