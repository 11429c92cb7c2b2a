"""Moving a slider redraws the picture; a headless run and a saved page show the picture alone."""

import nbformat
import pytest
import torch
from widget_makers import MAKERS, MOVES, TENSORS

from helpers import recipes
from helpers.plots import widgets
from helpers.recipes import Layout


@pytest.fixture(params=MAKERS)
def widget(request, monkeypatch):
    monkeypatch.delenv("MEGATRON_TOUR_HEADLESS", raising=False)
    made = MAKERS[request.param]()
    made.widget  # noqa: B018 - built here, as Jupyter does when it shows it
    return request.param, made


def test_every_move_of_a_slider_redraws_the_picture(widget):
    """How long that takes: tests/benchmarks/widget_redraw.py."""
    name, made = widget
    control, values = MOVES[name]
    for value in values:
        before = made.output.value
        made.controls[control].value = value
        assert made.output.value != before and "<img alt=" in made.output.value


def test_live_shows_the_widget_and_keeps_the_picture_for_a_saved_page(widget):
    _, made = widget
    shown = made._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/html"].startswith("<img alt=") and shown["text/plain"] == made.picture.alt


def test_headless_shows_the_picture_alone(widget, monkeypatch):
    monkeypatch.setenv("MEGATRON_TOUR_HEADLESS", "1")
    _, made = widget
    assert set(made._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_saved_page_without_the_widget_s_state_shows_the_picture(widget):
    from nbconvert import HTMLExporter

    _, made = widget
    output = nbformat.v4.new_output("display_data", data=made._repr_mimebundle_())
    cell = nbformat.v4.new_code_cell("widget", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    image = made.picture._repr_html_().split("base64,")[1].split('"')[0]
    assert image in page
    assert "application/vnd.jupyter.widget-view+json" not in page.split("<body")[1]


# ---- parameters and memory ---------------------------------------------------------------------------------------
def test_the_counter_counts_what_its_sliders_say():
    counter = widgets.parameter_counter(recipes.gpt3_345m())
    assert counter.picture.alt.startswith("354.9M parameters")
    counter.controls["num_layers"].value = 12
    counter.controls["hidden_size"].value = 512
    assert 'alt="64.' in counter.output.value, "the model that upstream's README labels 345M"


def test_the_counter_keeps_the_ratio_of_the_mlp():
    counter = widgets.parameter_counter(recipes.llama3_8b())
    small = widgets._resized(recipes.llama3_8b(), **{name: c.value for name, c in counter.controls.items()})
    assert small.model == recipes.llama3_8b().model
    counter.controls["hidden_size"].value = 2048
    small = widgets._resized(recipes.llama3_8b(), **{name: c.value for name, c in counter.controls.items()})
    assert small.model.ffn_hidden_size == 7168


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("num_attention_heads", 12, "12 heads cannot share a hidden size of 4,096"),
        ("num_attention_heads", 4, "4 heads cannot share 8 groups of keys and values"),
    ],
)
def test_what_does_not_divide_is_told(control, value, words):
    counter = widgets.parameter_counter(recipes.llama3_8b())
    counter.controls[control].value = value
    assert words in counter.output.value
    counter.controls[control].value = 32
    assert "<img alt=" in counter.output.value, "and back again"


def test_heads_that_tensor_parallelism_cannot_split_are_told():
    counter = widgets.parameter_counter(recipes.gpt3_345m().with_(num_attention_heads=4))
    counter.controls["tensor_parallel"].value = 8
    assert "4 heads cannot be split over 8 tensor-parallel ranks" in counter.output.value


# ---- ranks -------------------------------------------------------------------------------------------------------
def test_the_rank_slider_follows_the_layout():
    grid = widgets.rank_grid(Layout(tensor_parallel=2), rank=1)
    assert "Rank 1 is tensor parallel with rank 0" in grid.picture.alt
    rank = grid.controls["rank"]
    assert rank.max == 1
    grid.controls["pipeline_parallel"].value = 4
    assert rank.max == 7
    rank.value = 7
    assert "Rank 7 is tensor parallel with rank 6; pipeline parallel with ranks 1, 3, 5" in grid.output.value
    grid.controls["pipeline_parallel"].value = 1
    assert rank.value == 1 and "Grid of 2 ranks" in grid.output.value


def test_experts_that_do_not_fit_are_told():
    grid = widgets.rank_grid(Layout(tensor_parallel=2, expert_parallel=2, processes=4))
    grid.controls["data_parallel"].value = 1
    assert "multiple of 4 ranks, and these are 2" in grid.output.value


# ---- numbers -----------------------------------------------------------------------------------------------------
def test_the_number_line_has_the_tensor_the_format_and_the_scaling_chosen():
    line = widgets.number_line(TENSORS, format="E5M2")
    assert "weight (first 64 of 1,024 rows)" in line.picture.alt and "zero in E5M2" in line.picture.alt
    line.controls["tensor"].value = "activation"
    line.controls["scaling"].value = "mxfp8"
    line.controls["format"].value = "E4M3"
    assert "activation (first 128 of 300 rows) under mxfp8 scaling" in line.output.value
    line.controls["format"].value = "bf16"
    assert "under unscaled scaling" in line.output.value, "16-bit formats need no scale"


def test_one_tensor_needs_no_name():
    assert set(widgets.number_line(torch.ones(4, 4)).controls) == {"format", "scaling"}
