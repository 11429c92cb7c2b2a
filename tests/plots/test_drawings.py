"""The pictures say what is true, in words as well; no text leaves its figure or lies on another."""

import itertools
import json

import pytest
import torch

from helpers import corpus, formats, planner, plots, recipes
from helpers.corpus import index
from helpers.formats import number_formats
from helpers.formats.layer_tensors import Linear
from helpers.machine import described
from helpers.plots import layer, sizes
from helpers.recipes import Layout
from helpers.recipes.layout import rank_groups
from helpers.show import style
from helpers.show.style import COLOURS

LAYOUTS = {
    "one rank": (Layout(), 0),
    "TP2": (Layout(tensor_parallel=2), 0),
    "TP2 PP2 CP2 DP2": (Layout(tensor_parallel=2, pipeline_parallel=2, context_parallel=2, processes=16), 5),
    "TP8 PP4 DP4": (Layout(tensor_parallel=8, pipeline_parallel=4, processes=128), 20),
    "EP4 TP2": (Layout(tensor_parallel=2, expert_parallel=4, processes=8), 1),
    "TP4 PP8 CP2": (Layout(tensor_parallel=4, context_parallel=2, pipeline_parallel=8, processes=64), 37),
    "DP64": (Layout(processes=64), 63),
}


def texts(picture) -> list[str]:
    found = [text for axes in picture.figure.axes for text in axes.texts] + list(picture.figure.texts)
    return [text.get_text() for text in found if text.get_text()]


def faults(picture) -> list[str]:
    """Texts that leave the figure, or that cover more than a sliver of another."""
    import matplotlib.text

    with style.apply():
        picture.figure.draw_without_rendering()
    hidden = set()
    for axes in picture.figure.axes:  # ticks beyond the limits exist, but are not drawn
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            hidden |= {t.label1 for t in (*axis.majorTicks, *axis.minorTicks) if not low <= t.get_loc() <= high}
    everything = picture.figure.findobj(matplotlib.text.Text)
    everything = [t for t in everything if t.get_text().strip() and t.get_visible() and t not in hidden]
    boxes = [(t.get_text(), t.get_window_extent()) for t in everything]
    width, height = picture.figure.bbox.size
    wrong = [
        f"{text!r} leaves the figure"
        for text, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if min(overlap) > 3:
            wrong.append(f"{one!r} lies on {other!r}")
    return wrong


def looks_right(picture) -> bool:
    assert not faults(picture)
    assert picture.png.startswith(b"\x89PNG") and len(picture.alt) > 20
    return True


# ---- ranks -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_grid_shows_each_rank_once_and_the_chosen_one_s_partners(name):
    layout, rank = LAYOUTS[name]
    picture = plots.rank_grid(layout, rank)
    assert looks_right(picture)
    shown = [int(text) for text in texts(picture) if text.isdigit()]
    assert rank in shown and len(shown) == len(set(shown))
    for dimension, groups in rank_groups(layout).items():
        group = next(g for g in groups if rank in g)
        assert (f"{dimension} parallel with" in picture.alt) == (len(group) > 1)
        assert any(text == f"{dimension} {len(group)}" for text in texts(picture)) == (len(group) > 1)


def test_partners_wear_their_dimension_s_colour_and_no_other_rank_does():
    layout, rank = LAYOUTS["TP2 PP2 CP2 DP2"]
    axes = plots.rank_grid(layout, rank).figure.axes[0]
    from matplotlib.colors import to_hex
    from matplotlib.patches import FancyBboxPatch

    worn = {}
    for box in (p for p in axes.patches if isinstance(p, FancyBboxPatch)):
        inside = [
            t.get_text()
            for t in axes.texts
            if t.get_text().isdigit()
            and box.get_x() < t.get_position()[0] < box.get_x() + box.get_width()
            and box.get_y() < t.get_position()[1] < box.get_y() + box.get_height()
        ]
        if len(inside) == 1:
            worn[int(inside[0])] = to_hex(box.get_edgecolor()).upper()
    expected = {
        next(r for r in next(g for g in groups if rank in g) if r != rank): COLOURS[dimension]
        for dimension, groups in rank_groups(layout).items()
        if dimension != "expert"
    }
    assert {r: colour for r, colour in worn.items() if colour in COLOURS.values()} == expected


def test_a_large_layout_says_what_it_leaves_out():
    picture = plots.rank_grid(*LAYOUTS["TP8 PP4 DP4"])
    assert "64 of 128\nranks drawn" in texts(picture)
    assert not any("drawn" in text for text in texts(plots.rank_grid(*LAYOUTS["TP2"])))


def test_there_is_no_rank_beyond_the_layout():
    with pytest.raises(ValueError, match="TP2 has ranks 0 to 1: there is no rank 2"):
        plots.rank_grid(Layout(tensor_parallel=2), 2)


@pytest.mark.parametrize(
    ("sizes", "between"),
    [
        ({"tensor_parallel": 4, "pipeline_parallel": 2}, "Between nodes: data, pipeline; inside: tensor."),
        ({"tensor_parallel": 16}, "Between nodes: tensor, data; inside: nothing."),
        ({"tensor_parallel": 8}, "Between nodes: data; inside: tensor."),
        (
            {"tensor_parallel": 2, "pipeline_parallel": 4, "context_parallel": 2},
            "pipeline; inside: tensor, context, data.",
        ),
    ],
)
def test_nodes_show_every_rank_and_which_groups_leave_them(sizes, between):
    picture = plots.ranks_on_nodes(Layout(32, **sizes), ranks_per_node=8)
    assert looks_right(picture) and between in picture.alt
    assert sorted(int(text) for text in texts(picture) if text.isdigit()) == list(range(32))


def test_nodes_are_whole():
    with pytest.raises(ValueError, match="DP12 has 12 ranks, 8 on each node: it takes whole nodes"):
        plots.ranks_on_nodes(Layout(12), 8)


# ---- sizes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("recipe", [recipes.gpt3_345m(), recipes.llama3_8b(), recipes.gpt3_857m()])
def test_sizes_stack_to_the_whole(recipe):
    picture = sizes.sizes(recipe, compared_with=recipe.with_(num_layers=4))
    assert looks_right(picture)
    bars = {}
    for bar in picture.figure.axes[0].patches:
        bars.setdefault(round(bar.get_y(), 3), []).append(bar.get_width())
    parameters, memory = bars.values()
    from helpers.recipes import accounting

    for widths, parts in (
        (parameters, accounting.parameter_counts(recipe.model)),
        (memory, accounting.memory(recipe)),
    ):
        shares = [size / sum(parts.values()) for size in parts.values()]
        assert [w / sum(widths) for w in widths] == pytest.approx(shares)


# ---- one layer ---------------------------------------------------------------------------------------------------
def records(ranks: int = 2) -> list[dict]:
    """What shards.py finds in a small GPT that `ranks` ranks split."""
    shapes = {  # name -> full shape, split dimension
        "embedding.word_embeddings.weight": ([4096, 128], 0),
        "decoder.layers.0.input_layernorm.weight": ([128], None),
        "decoder.layers.0.self_attention.linear_qkv.weight": ([384, 128], 0),
        "decoder.layers.0.self_attention.linear_proj.weight": ([128, 128], 1),
        "decoder.layers.0.self_attention.linear_proj.bias": ([128], None),
        "decoder.layers.0.mlp.linear_fc1.weight": ([512, 128], 0),
        "decoder.layers.0.mlp.linear_fc2.weight": ([128, 512], 1),
        "decoder.layers.1.mlp.linear_fc2.weight": ([128, 512], 1),
    }
    found = []
    for rank, (name, (full, split)) in itertools.product(range(ranks), shapes.items()):
        local = [size // ranks if axis == split else size for axis, size in enumerate(full)]
        offset = [rank * local[axis] if axis == split else 0 for axis in range(len(full))]
        piece = {"offset": offset, "shape": local}
        found.append(
            {"name": name, "rank": rank, "full_shape": full, "local_shape": local, "partition_dim": split}
            | {"pieces": [piece]}
        )
    return found


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_shards_are_drawn_where_the_ranks_hold_them(ranks):
    picture = plots.shards(records(ranks))
    assert looks_right(picture)
    assert f"linear_fc2 128 × 512, rank 0 holds 128 × {512 // ranks}" in picture.alt
    numbers = [int(text) for text in texts(picture) if text.isdigit()]
    assert sorted(numbers) == sorted(list(range(ranks)) * 5)
    assert any(text.startswith("Whole on every rank: input_layernorm, bias of linear_proj") for text in texts(picture))


def test_a_norm_kept_with_its_product_is_called_a_norm():
    found = records() + [
        {"name": f"decoder.layers.0.self_attention.linear_qkv.layer_norm_{kind}", "rank": rank, "partition_dim": None}
        | {"full_shape": [128], "local_shape": [128], "pieces": [{"offset": [0], "shape": [128]}]}
        for kind in ("weight", "bias")
        for rank in range(2)
    ]
    (line,) = [text for text in texts(plots.shards(found)) if text.startswith("Whole on every rank")]
    assert line.count("norm of linear_qkv") == 1


def test_a_gated_matrix_shows_its_two_pieces():
    gated = records()
    for record in gated:
        if record["name"].endswith("linear_fc1.weight"):
            start = record["pieces"][0]["offset"][0] // 2
            halves = [{"offset": [at, 0], "shape": [128, 128]} for at in (start, start + 256)]
            record["pieces"] = halves
    numbers = [int(text) for text in texts(plots.shards(gated)) if text.isdigit()]
    assert sorted(numbers) == [0] * 6 + [1] * 6


HEARD = [
    {"direction": direction, "module": module, "collective": collective, "bytes": size, "ranks": [0, 1]}
    for direction, module, collective, size in (
        ("forward", "self_attention.linear_qkv", "all-gather", 131072),
        ("forward", "self_attention.linear_proj", "reduce-scatter", 262144),
        ("backward", "mlp.linear_fc1", "all-gather", 131072),
        ("backward", "mlp.linear_fc1", "reduce-scatter", 262144),
    )
]


def test_collectives_are_counted_and_named_in_order():
    picture = plots.collectives(HEARD, Layout(tensor_parallel=2, sequence_parallel=True))
    assert looks_right(picture)
    assert "4 collectives in one layer: 2 all-gather (AG), 2 reduce-scatter (RS); each rank sends 524 kB." in texts(
        picture
    )
    assert picture.alt.index("linear_qkv: all-gather") < picture.alt.index("linear_proj: reduce-scatter")
    assert looks_right(plots.collectives([]))
    assert "This layer's ranks send each other nothing." in texts(plots.collectives([]))


def test_findings_are_found_between_other_output():
    found = {"shards": records(), "collectives": HEARD}
    told = f"[default0]:SHARDS {json.dumps(found)}\n"
    assert layer.findings(f"a warning\n{told}bye\n{told}") == [found, found]
    with pytest.raises(ValueError, match="no findings"):
        layer.findings("a warning\n")


# ---- numbers and bytes -------------------------------------------------------------------------------------------
GRADIENT = torch.randn(256, 128, generator=torch.Generator().manual_seed(0)) * 2e-5


@pytest.mark.parametrize("format", number_formats.FORMATS)
@pytest.mark.parametrize("scaling", [None, number_formats.CurrentScaling(), number_formats.MXScaling()])
def test_a_number_line_tells_what_a_cast_loses(format, scaling):
    picture = plots.number_line(GRADIENT, format, scaling, name="gradient")
    assert looks_right(picture)
    lost = number_formats.errors(GRADIENT, number_formats.cast(GRADIENT, format, scaling))
    assert f"{lost.underflow:.2%} of it become zero in {format.name}" in picture.alt


def test_small_gradients_vanish_without_a_scale():
    assert "100.00% of it become zero in E4M3" in plots.number_line(GRADIENT).alt
    scaled = plots.number_line(GRADIENT, scaling=number_formats.CurrentScaling())
    assert "100.00%" not in scaled.alt and "0.0" in scaled.alt


@pytest.mark.parametrize("tensor", [torch.zeros(4, 4), torch.ones(3), torch.tensor([[1e30, 1e-30]])])
def test_odd_tensors_have_a_number_line_too(tensor):
    assert looks_right(plots.number_line(tensor))


def test_the_formats_alone():
    assert looks_right(plots.number_line())
    assert {" 448", " 57,344"} <= set(texts(plots.number_line()))


def test_the_errors_of_gemms_are_drawn_for_each_scaling():
    table = formats.outlier_errors(Linear("fc2", GRADIENT[:128], GRADIENT, GRADIENT))
    picture = plots.outlier(table)
    assert looks_right(picture)
    left, right = picture.figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    mx = table.xs("mxfp8", level="scaling")
    assert lines["mxfp8"] == mx["wgrad, quiet"].tolist()
    assert [list(line.get_ydata()) for line in right.lines[-2:]] == [mx[name].tolist() for name in mx.columns[1:]]


def test_index_bytes_are_the_file_s(small_corpus):
    picture = plots.index_bytes(small_corpus.prefix)
    assert looks_right(picture)
    raw = index.idx_path(small_corpus.prefix).read_bytes()
    shown = "".join(t.get_text() for t in picture.figure.axes[0].texts if t.get_fontfamily() == ["DejaVu Sans Mono"])
    assert shown.startswith(raw[:34].hex()), "the header, byte by byte"
    assert f"document indices = {small_corpus.documents + 1}" in picture.alt


def test_packing_shows_documents_and_their_ends(small_corpus):
    drawn = corpus.draw(small_corpus, 2048, split="90,5,5", count=4)
    picture = plots.packing(drawn)
    assert looks_right(picture)
    ends = sum(len(drawn.document_ends(i)) for i in range(4))
    assert f"with {ends} ends of documents in all" in picture.alt and ends > 0
    widths = [bar.get_width() for bar in picture.figure.axes[0].patches]
    assert sorted(widths)[ends:] == sorted(drawn.parts["tokens"].tolist()), "one bar per piece, as wide as its tokens"


def test_the_parts_of_a_step_are_drawn_to_their_sum():
    machine = described("8 × H100 80GB")
    recipe = recipes.llama3_8b().with_(global_batch_size=128, cuda_graph=False)
    plans = [
        *planner.search(recipe, machine).plans[:3],
        planner.predict(recipe.with_(processes=8, stock=True), machine),
    ]
    picture = plots.step_parts(plans, {plans[0]: 9000.0})
    assert looks_right(picture)
    times = picture.figure.axes[0]
    for place, plan in enumerate(plans):
        drawn = sum(bar.get_width() for bar in times.patches if abs(bar.get_y() + bar.get_height() / 2 - place) < 0.01)
        assert drawn == pytest.approx(plan.step.milliseconds, rel=0.02)
    assert "Predicted steps on 8 × NVIDIA H100 80GB" in picture.alt and "stock" in picture.alt


def test_predictions_beside_measurements_say_how_far_off_they_are():
    found = planner.with_records()
    picture = plots.predicted_and_measured(found)
    number = len(found.timed)
    assert f"{number} runs, median error" in picture.alt
    (points,) = [line for line in picture.figure.axes[0].lines if len(line.get_xdata()) == number]
    assert max(abs(ratio - 1) for ratio in points.get_ydata()) == pytest.approx(abs(found.worst.error))
