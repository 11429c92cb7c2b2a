"""Pictures show what was measured: data on the axes, words in the alt text, the marks of the picture language."""

import io
import math

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from machines import TWO_H200
from records import RECIPE, curves, make_run

from helpers import machine, plots, recipes, runs
from helpers.show import style

SMALL = recipes.gpt3_345m().scaled_to("cpu").with_(train_iters=20)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "live", SMALL, machine.CPU)


@pytest.fixture
def recorded(tmp_path):
    live = make_run(tmp_path / "gpu", RECIPE, TWO_H200, curves(seconds=0.02, start=11.0))
    return runs.read_result(runs.record(live, "gpt", tmp_path / "recorded"))


def series(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def drawn(axes, label: str):
    return next(line for line in axes.lines if line.get_label().startswith(label))


def test_loss_draws_the_losses_and_the_line_of_guessing(run):
    picture = plots.loss(run)
    (axes,) = picture.figure.axes
    steps, losses = series(axes.lines[0])
    assert steps == list(range(1, 21)) and losses == pytest.approx(run.losses.tolist())
    guessing = axes.lines[1]
    assert guessing.get_ydata() == [math.log(4096)] * 2 and guessing.get_linestyle() == "--"
    assert [text.get_text() for text in axes.texts] == ["ln V = 8.32 (guessing)"]
    assert axes.get_xlabel() == "step" and "nats" in axes.get_ylabel()
    assert "from 10.700 to 8.800" in picture.alt and "ln V = 8.32" in picture.alt
    assert len(plots.loss(run, reference=False).figure.axes[0].lines) == 1


def test_of_a_restless_run_the_mean_of_some_steps_is_drawn_before_each(run):
    picture = plots.loss(run, reference=False, mean_of=5)
    mean, each = picture.figure.axes[0].lines
    assert series(mean)[1] == pytest.approx([run.losses.iloc[end - 5 : end].mean() for end in range(5, 21)])
    assert len(series(each)[1]) == 20 and each.get_alpha() < 1
    assert f"means of 5 steps: gpt3_345m_small from {run.losses.iloc[:5].mean():.3f}" in picture.alt
    with pytest.raises(ValueError, match=r"mean_of=21\).*took 20"):
        plots.loss(run, mean_of=21)


def test_recorded_runs_are_dotted_and_named_with_their_machine(run, recorded):
    (axes,) = plots.loss(run, recorded, None).figure.axes
    dotted = drawn(axes, "gpt3_345m, 24 × 1024 (recorded on 2 × NVIDIA H200)")
    assert dotted.get_linestyle() == ":" and dotted.get_marker() not in ("", "None")
    assert [line.get_linestyle() for line in axes.lines][0] == "-"
    assert {text.get_text() for text in axes.texts} == {"ln V = 8.32 (guessing)", "ln V = 10.83 (guessing)"}


def test_runs_without_a_step_are_named_not_drawn(run, tmp_path):
    (tmp_path / "20260101-000000").mkdir()
    empty = runs.load(tmp_path / "20260101-000000")
    assert len(plots.loss(run, empty, reference=False).figure.axes[0].lines) == 1
    with pytest.raises(ValueError, match="never started, without a single step"):
        plots.loss(empty)
    with pytest.raises(ValueError, match="no run was given"):
        plots.loss(None)


def test_loss_difference_names_the_largest(run, tmp_path):
    other = curves()
    other["lm loss"][7] += 3e-4
    other["lm loss"][9] -= 1e-5
    picture = plots.loss_difference(run, make_run(tmp_path / "other", SMALL.with_(seed=1), machine.CPU, other))
    above, below = picture.figure.axes
    assert below.get_yscale() == "log" and above.get_shared_x_axes().joined(above, below)
    steps, distances = series(below.lines[0])
    assert steps == [7, 9] and distances == pytest.approx([3e-4, 1e-5], rel=0.1)
    assert "largest: 0.0003, at step 7; 18 of 20 steps exactly equal (not drawn)" in picture.alt
    assert any("at step 7" in text.get_text() for text in below.texts)


def test_differences_of_one_size_get_a_scale_that_can_be_read(run, tmp_path):
    other = curves()
    other["lm loss"][7] += 4.8e-2
    other["lm loss"][9] += 4.8e-2
    picture = plots.loss_difference(run, make_run(tmp_path / "other", SMALL, machine.CPU, other))
    picture.figure.canvas.draw()
    scale = picture.figure.axes[1].yaxis
    named = [label.get_text() for label in (*scale.get_majorticklabels(), *scale.get_minorticklabels())]
    assert any(named) and not any("times" in name for name in named), named


def test_equal_losses_are_said_to_be_equal(run, tmp_path):
    picture = plots.loss_difference(run, make_run(tmp_path / "other", SMALL, machine.CPU))
    assert "the same to the last digit, all 20 steps" in picture.alt
    assert not picture.figure.axes[1].lines


def test_memory_stacks_the_parts_in_their_order(recorded):
    from helpers.recipes import accounting

    picture = plots.memory(RECIPE, recorded)
    (axes,) = picture.figure.axes
    expected = accounting.memory(RECIPE, TWO_H200)
    patches = list(axes.patches)
    assert [patch.get_width() for patch in patches[:5]] == pytest.approx(list(expected.values()))
    assert [matplotlib.colors.to_hex(p.get_facecolor()).upper() for p in patches[:5]] == list(
        style.MEMORY_PARTS.values()
    )
    assert list(expected) == list(style.MEMORY_PARTS)
    measured = patches[5]
    assert measured.get_width() == pytest.approx(recorded.peak_memory_bytes) and measured.get_hatch()
    assert "2 × NVIDIA H200" in axes.get_title(loc="left") and "measured: 1.0 GB" in picture.alt
    assert any(text.get_text().endswith(" other") and " + " in text.get_text() for text in axes.texts)
    assert len(plots.memory(RECIPE).figure.axes[0].patches) == 5


def test_parameters_side_by_side():
    picture = plots.parameters(recipes.gpt3_345m(), recipes.upstream_345m_label())
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["gpt3_345m", "upstream_345m_label"]
    assert sum(p.get_width() for p in axes.patches[:5]) == 354_871_296
    assert "gpt3_345m 354,871,296" in picture.alt and "64.1M" in [text.get_text() for text in axes.texts]


def test_scaling_tells_strong_from_weak(tmp_path):
    def trained(name, seconds, **changes):
        return make_run(tmp_path / name, SMALL.with_(**changes), machine.CPU, curves(seconds=seconds))

    one = trained("one", 1.0)
    strong = trained("tp2", 0.8, tensor_parallel=2)
    weak = trained("dp2", 1.0, processes=2, global_batch_size=16)
    picture = plots.scaling([weak, strong, one])
    (axes,) = picture.figure.axes
    assert series(drawn(axes, "ideal")) == ([1, 2], pytest.approx([1024, 2048]))
    split = drawn(axes, "tensor parallel, strong")
    assert split.get_color() == style.COLOURS["tensor"] and series(split)[1] == pytest.approx([1024, 1280])
    assert series(drawn(axes, "data parallel, weak"))[1] == pytest.approx([1024, 2048])
    assert {text.get_text() for text in axes.texts} >= {"62%", "100%"}
    assert "tensor parallel, strong, 2 ranks: 1,280 tokens/s, 62%" in picture.alt


def test_document_lengths(small_corpus):
    picture = plots.document_lengths(small_corpus)
    lengths = np.asarray(small_corpus.document_lengths())
    words = f"Lengths of 80 documents: {lengths.min():,} to {lengths.max():,} tokens, median {np.median(lengths):,.0f}."
    shorter = int((lengths < 1024).sum())
    assert picture.alt == f"{words} A sample has 1,024: {shorter} documents are shorter than that."
    assert sum(patch.get_height() for patch in picture.figure.axes[0].patches) == 80


def test_pictures_are_small_and_carry_their_words(run, recorded):
    from PIL import Image

    pictures = [
        plots.loss(run, recorded),
        plots.memory(RECIPE, recorded),
        plots.parameters(recipes.llama3_8b()),
    ]
    for picture in pictures:
        assert len(picture.png) < 40_000
        image = Image.open(io.BytesIO(picture.png))
        assert image.text["Description"] == picture.alt and image.width > 500
        shown = picture._repr_html_()
        assert shown.count("<img") == 1 and 'src="data:image/png;base64,' in shown
        assert f'alt="{picture.alt[:20]}' in shown
    assert not hasattr(pictures[0], "_repr_png_")


def test_nothing_is_left_open_and_no_setting_leaks(run):
    import matplotlib
    import matplotlib.pyplot

    before = dict(matplotlib.rcParams)
    plots.loss(run).png  # noqa: B018
    assert matplotlib.pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: plots.loss([run]), "it takes a run"),
        (lambda run: plots.scaling(run), "One alone is put in brackets"),
        (lambda run: plots.strong_scaling({"a": run}), "'a' in it is a str"),
        (lambda run: plots.waterfall({"a": run}), "it takes a dict, each key a text, each value a list"),
        (lambda run: plots.data_parallel_table("runs"), "it takes a list"),
        (lambda run: plots.format_speeds(run), "One alone is put in brackets"),
        (lambda run: plots.memory(run), "it takes a recipe"),
        (lambda run: plots.parameters(run), "it takes a recipe"),
        (lambda run: plots.loss(run, data="text"), "it takes a corpus"),
        (lambda run: plots.layer_timeline(run), "it takes a dict"),
        (lambda run: plots.shards([]), "no rank said what it holds"),
        (lambda run: plots.rank_grid(run.recipe), "it takes a layout"),
        (lambda run: plots.rank_grid(recipes.Layout(tensor_parallel=0)), "tensor_parallel=0"),
        (lambda run: plots.memory(run.recipe.with_(num_layers="24")), "num_layers='24'"),
        (lambda run: plots.micro_batches(run), "not a run"),
        (lambda run: plots.number_line([1.0]), "it takes a Tensor"),
        (lambda run: plots.parameters(), "there is no model"),
        (lambda run: plots.parameters(run.recipe.with_(num_layers="24")), "num_layers='24'"),
        (lambda run: plots.outlier(pd.DataFrame()), "it takes a table of formats.outlier_errors"),
    ],
)
def test_another_kind_than_is_drawn_is_refused(call, words, run):
    with pytest.raises((TypeError, ValueError)) as refused:
        call(run)
    assert words in str(refused.value)


def test_figures_of_nothing_are_sentences():
    for picture in (plots.layer_timeline({}), plots.time_shares({}), plots.micro_batches()):
        assert "recorded yet" in repr(picture)


def test_losses_that_are_no_numbers_are_left_out_of_a_difference(run, tmp_path):
    scalars = curves() | {"lm loss": {1: 10.5, 2: math.inf, 3: math.nan}}
    picture = plots.loss_difference(run, make_run(tmp_path / "diverged", scalars=scalars))
    assert "over 1 common steps" in picture.alt
    with pytest.raises(ValueError, match="no step in common at which both losses are numbers"):
        plots.loss_difference(run, make_run(tmp_path / "lost", scalars={"lm loss": {1: math.inf}}))
