"""Scaling tables: against the right run, by hand, beside figures of others that carry their source."""

from dataclasses import replace

import pytest
from machines import H100, TWO_H200
from records import curves, make_run, recorded

from helpers import plots, recipes, runs
from helpers.recipes import accounting
from helpers.recipes.settings import Speed
from helpers.runs import published


def gpt(name, gpus=1, batch=20, graph=False, model=1, **changes):
    num_layers, hidden_size, heads = published.WEAK_SIZES[model]
    speed = Speed(cuda_graph=graph, overlap_tensor_parallel=changes.pop("overlapped", False))
    sizes = {"num_layers": num_layers, "hidden_size": hidden_size, "num_attention_heads": heads}
    batches = {"micro_batch_size": batch, "global_batch_size": batch}
    return recipes.gpt3_345m().with_(name=name, tensor_parallel=gpus, speed=speed, **sizes, **batches, **changes)


@pytest.fixture
def several(tmp_path):
    steps = {
        gpt("tp2", 2): 0.250,
        gpt("tp1"): 0.400,
        gpt("tp1_graph", graph=True): 0.300,
        gpt("tp2_sp_graph", 2, graph=True, sequence_parallel=True): 0.200,
        gpt("tp2_overlap", 2, graph=True, sequence_parallel=True, overlapped=True): 0.160,
        gpt("grown", 2, graph=True, sequence_parallel=True, model=2): 0.320,
        gpt("tp2_small_batch", 2, batch=8): 0.100,  # nothing to compare it with
        gpt("profiled", 2, graph=True, extra_flags=("--profile",)): 0.100,  # the profiler slows what it looks at
    }
    return [recorded(tmp_path, recipe, seconds) for recipe, seconds in steps.items()]


def test_strong_scaling_compares_eager_with_eager_and_graph_with_graph(several):
    table = plots.strong_scaling_table([*several, None])
    ours = table[table["measured on"].str.startswith("recorded")]
    assert ours.loc[(20, "TP2", "eager"), ["step ms", "speed-up", "efficiency"]].tolist() == [250, 1.6, "80%"]
    assert ours.loc[(20, "TP2+SP", "CUDA graph"), "speed-up"] == 1.5
    assert ours.loc[(20, "TP2+SP", "CUDA graph, overlapped"), "efficiency"] == "94%"
    assert ours.loc[(8, "TP2", "eager"), ["speed-up", "efficiency"]].tolist() == ["–", "–"]
    assert len(ours) == 6  # the grown model is not of this table


def test_strong_scaling_stands_beside_the_published_figures(several):
    table = plots.strong_scaling_table(several)
    h100 = table[table["measured on"] == "8 × H100, github.com/vuiseng9/megatron-tutorials"]
    assert h100.loc[(20, "TP2", "eager"), ["step ms", "speed-up", "efficiency"]].tolist() == [259, 1.51, "75%"]
    assert h100.loc[(8, "TP2", "eager"), "efficiency"] == "53%"  # as it is printed there
    assert {layout for _, layout, _ in h100.index} == {"TP1", "TP2"}  # the sizes that were measured here
    v100 = table[table["measured on"] == "V100, Shoeybi et al. 2019"]
    assert v100.loc[(8, "TP2", "eager"), "speed-up"] == 1.64


def test_weak_scaling_tells_time_from_work(several):
    table = plots.weak_scaling_table(several)
    ours = table[table["measured on"].str.startswith("recorded")]
    assert [index[1:] for index in ours.index] == [("1.2B", "TP1"), ("2.5B", "TP2+SP")]
    grown = ours.loc[(20, "2.5B", "TP2+SP")]
    work = [accounting.flops_per_token(published.WEAK_MODELS[gpus]) for gpus in (1, 2)]
    assert grown["time efficiency"] == "94%" == f"{300 / 320:.0%}"
    assert grown["FLOP/s efficiency"] == f"{300 / 320 * work[1] / work[0] / 2:.0%}" == "95%"
    h100 = table[table["measured on"].str.startswith("8 × H100")]
    assert [*h100["time efficiency"]] == ["100%", "84%", "89%", "78%"]  # as they are printed there
    assert h100.loc[(20, "8.3B", "TP8"), "FLOP/s efficiency"] == "65%"


def test_the_published_models_have_the_published_sizes():
    sizes = [accounting.parameters(model)["parameters"].sum() / 1e9 for model in published.WEAK_MODELS.values()]
    assert [round(size, 1) for size in sizes] == [1.2, 2.5, 4.2, 8.3]


def test_strong_scaling_bars(several):
    picture = plots.strong_scaling(several)
    (axes,) = picture.figure.axes
    *ours, other = axes.patches
    assert [patch.get_width() for patch in ours] == [pytest.approx(x) for x in (1.6, 1.5, 300 / 160)]
    assert other.get_width() == pytest.approx(390 / 259)
    assert not any(patch.get_hatch() for patch in (*ours, other)), "each name says where"
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names[0] == "batch 20, 2 GPUs:" and names[-1] == "TP2, eager, H100"
    assert names[1:-1] == [
        "TP2, eager, H200",
        "TP2+SP, CUDA graph, H200",
        "TP2+SP, CUDA graph, overlapped, H200",
    ]
    assert {line.get_xdata()[0]: line.get_linestyle() for line in axes.lines} == {2: "--"}
    assert "1.60×  ·  80%  ·  400 → 250 ms" in picture.alt and "H100: 1.51×  ·  75%  ·  390 → 259 ms" in picture.alt
    assert axes.get_title(loc="left").endswith(", each against one GPU of its own machine")


def test_each_machine_has_a_baseline_of_its_own(tmp_path):
    """Two H100s are not compared with one H200, however alike the runs are."""
    steps = {gpt("one", graph=True): 0.3, gpt("two", 2, graph=True): 0.2}
    pair = [recorded(tmp_path / "h200", recipe, seconds) for recipe, seconds in steps.items()]
    alone = gpt("two_elsewhere", 2, graph=True)
    elsewhere = make_run(tmp_path / "h100", alone, replace(TWO_H200, gpus=(H100,) * 2), curves(seconds=0.1))
    picture = plots.strong_scaling([*pair, elsewhere])
    assert "TP2, CUDA graph, H200: 1.50×" in picture.alt and "3.00×" not in picture.alt


def test_strong_scaling_groups_by_batch_and_number_of_gpus(tmp_path):
    ones = [gpt(f"one_{batch}", batch=batch, graph=True) for batch in (8, 20)]
    split = [gpt(f"tp{gpus}_{batch}", gpus, batch, graph=True) for batch in (8, 20) for gpus in (8, 2, 4)]
    picture = plots.strong_scaling([recorded(tmp_path, recipe, 0.1) for recipe in (*ones, *split)])
    (axes,) = picture.figure.axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    groups = [(batch, gpus) for batch in (20, 8) for gpus in (2, 4, 8)]
    assert [name for name in names if name.endswith(":")] == [f"batch {b}, {gpus} GPUs:" for b, gpus in groups]
    assert names.count("TP4, eager, H100") == 2 and names.count("TP8, eager, V100") == 1
    assert [line.get_xdata()[0] for line in axes.lines] == [gpus for _, gpus in groups]
    assert [*axes.get_xticks()] == [*range(9)]


def test_weak_scaling_curves(several):
    picture = plots.weak_scaling(several)
    (axes,) = picture.figure.axes
    ours, *others = axes.lines
    assert ours.get_linestyle() == ":" and ours.get_ydata().tolist() == pytest.approx([1, 300 / 320])
    assert [line.get_linestyle() for line in others] == ["--"]  # batch 20 alone was trained, and the V100s' was 8
    assert others[0].get_ydata().tolist() == pytest.approx([1, 400 / 475, 400 / 450, 400 / 512])
    assert len({line.get_marker() for line in axes.lines}) == 2
    assert "batch 20, TP+SP, CUDA graph: 1 GPU 100%, 2 GPUs 94%" in picture.alt
    assert picture.alt.startswith("Weak scaling, recorded on NVIDIA H200.")


def test_weak_scaling_has_a_panel_for_each_batch_and_one_look_for_each_way():
    picture = plots.weak_scaling(runs.recorded("h200", "gpt_*"))
    twenty, eight = picture.figure.axes
    assert [axes.get_title(loc="left") for axes in (twenty, eight)] == ["20 samples a step", "8 samples a step"]
    looks = [[(line.get_color(), line.get_marker()) for line in axes.lines[:3]] for axes in (twenty, eight)]
    assert looks[0] == looks[1] and len(set(looks[0])) == 3
    assert eight.lines[-1].get_ydata().tolist() == [1, 0.95, 0.82, 0.77]


def test_every_point_of_weak_scaling_is_in_the_picture(tmp_path):
    sizes = {gpt("one"): 0.4, gpt("four", 4, model=4): 0.3, gpt("eight", 8, model=8): 1.2}
    picture = plots.weak_scaling([recorded(tmp_path, recipe, seconds) for recipe, seconds in sizes.items()])
    (axes,) = picture.figure.axes
    low, high = axes.get_ylim()
    values = [value for line in axes.lines for value in line.get_ydata()]
    assert min(values) == pytest.approx(1 / 3) and max(values) == pytest.approx(4 / 3)
    assert low < min(values) and high > max(values)


def test_no_run_is_a_sentence(several):
    for nothing in (
        plots.strong_scaling([]),
        plots.weak_scaling([None]),
        plots.strong_scaling_table([]),
        plots.weak_scaling_table(several[:2]),
    ):
        assert repr(nothing) == "No scaling run is recorded yet: there is nothing to show in its place."
