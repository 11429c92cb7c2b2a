"""Llama3-8B by layout and format: each FP8 run against its own bf16 run, beside NVIDIA's figures."""

import pytest
from records import recorded

from helpers import plots, recipes
from helpers.recipes.settings import Speed

LLAMA = recipes.llama3_8b().with_(processes=2, global_batch_size=4, speed=Speed(cuda_graph=True))
TOKENS = 4 * 8192 / 2


@pytest.fixture
def several(tmp_path):
    tensor_parallel = {"tensor_parallel": 2, "sequence_parallel": True}
    steps = {
        LLAMA.with_(name="a"): 1.0,
        LLAMA.with_(name="b", fp8_format=None): 1.25,
        LLAMA.with_(name="c", fp8_recipe="blockwise"): 1.125,
        LLAMA.with_(name="d", **tensor_parallel): 2.0,
        LLAMA.with_(name="e", fp8_format=None, speed=Speed()): 4.0,
        LLAMA.with_(name="profiled", extra_flags=("--profile",)): 1.0,
    }
    return [recorded(tmp_path, recipe, seconds, peak=120e9) for recipe, seconds in steps.items()]


def test_ratios_are_within_a_layout_and_a_kind_of_launch(several):
    table = plots.format_speeds_table([None, *several])
    together = table.loc["DP2+DistOpt, CUDA graph, batch 4"]
    assert together["× bf16"].to_dict() == {"bf16": "–", "fp8 tensorwise": "1.25", "fp8 blockwise": "1.11"}
    assert together.index.tolist() == ["bf16", "fp8 tensorwise", "fp8 blockwise"]
    assert together.loc["fp8 tensorwise", "tokens/s/GPU"] == TOKENS
    assert table.loc["TP2+SP+DistOpt, CUDA graph, batch 4"]["× bf16"].tolist() == ["–"]
    assert table.loc["DP2+DistOpt, eager, batch 4"].index.tolist() == ["bf16"]


def test_an_overlapped_layout_is_a_layout_of_its_own(tmp_path):
    split = LLAMA.with_(tensor_parallel=2, sequence_parallel=True)
    overlapped = split.with_(name="overlapped", overlap_tensor_parallel=True)
    pair = [recorded(tmp_path, split, 2.0), recorded(tmp_path, overlapped, 1.0)]
    groups = plots.format_speeds_table(pair).index.get_level_values("layout")[:2]
    assert groups.tolist() == [
        "TP2+SP+DistOpt, CUDA graph, batch 4",
        "TP2+SP+DistOpt, CUDA graph, overlapped, batch 4",
    ]


def test_a_layouts_batches_stand_together_the_smallest_first(tmp_path):
    split = LLAMA.with_(name="split", tensor_parallel=2, sequence_parallel=True)
    batches = [LLAMA.with_(name=f"batch_{size}", global_batch_size=size) for size in (8, 32, 4)]
    several = [recorded(tmp_path, recipe, 1.0) for recipe in (*batches[:1], split, *batches[1:])]
    groups = plots.format_speeds_table(several).index.get_level_values("layout")[:4]
    assert [group.split(", batch ") for group in groups] == [
        *[["DP2+DistOpt, CUDA graph", size] for size in ("4", "8", "32")],
        ["TP2+SP+DistOpt, CUDA graph", "4"],
    ]


def test_nvidias_figures_carry_their_source(several):
    table = plots.format_speeds_table(several)
    given = table[table["measured on"].str.contains("NVIDIA DGX|NVIDIA Megatron")]
    assert given["tokens/s/GPU"].tolist() == [10682, 14048, 14451]
    assert given["measured on"].iloc[2] == "8 × H100, NVIDIA Megatron-Bridge 25.11"
    assert given["peak memory GB"].tolist() == ["–"] * 3


def test_bars_speeds_and_memory(several):
    picture = plots.format_speeds(several)
    left, right = picture.figure.axes
    speeds = [TOKENS / seconds for seconds in (1.25, 1.0, 1.125, 2.0, 4.0)]
    assert [patch.get_width() for patch in left.patches] == pytest.approx(speeds)
    assert [patch.get_width() for patch in right.patches] == pytest.approx([120] * 5)
    assert not any(patch.get_hatch() for patch in (*left.patches, *right.patches)), "the title says where"
    assert [line.get_xdata()[0] for line in left.lines] == [10682, 14048, 14451]
    assert [line.get_xdata()[0] for line in right.lines] == pytest.approx([150.75], abs=0.01)
    assert {line.get_linestyle() for line in (*left.lines, *right.lines)} == {"--"}
    words = [text.get_text() for text in left.texts]
    assert "16,384  ·  1.25× bf16" in words and "DGX Cloud 25.04, bf16: 10,682" in words
    assert "fp8 tensorwise: 16,384  ·  1.25× bf16, 120 GB" in picture.alt
    assert left.get_title(loc="left") == "8.0B parameters, recorded on NVIDIA H200"


def test_no_run_is_a_sentence():
    for nothing in (plots.format_speeds([]), plots.format_speeds_table([None])):
        assert repr(nothing) == "No run of Llama3-8B is recorded yet: there is nothing to show in its place."


def test_mfu_is_given_against_both_peaks(several):
    table = plots.format_speeds_table(several).loc["DP2+DistOpt, CUDA graph, batch 4"]
    whole, half = (float(table.loc["fp8 tensorwise", f"MFU, {peak} peak"].rstrip("%")) for peak in ("bf16", "FP8"))
    assert half == pytest.approx(whole / 2, abs=0.06) and table.loc["bf16", "MFU, FP8 peak"] == "–"


def test_stock_stands_beside_changed(tmp_path):
    changed = {LLAMA.with_(name="a"): 1.0, LLAMA.with_(name="b", fp8_format=None): 1.5}
    stock = {recipe.with_(name=f"{recipe.name}_stock", stock=True): 2 * s for recipe, s in changed.items()}
    slower = {LLAMA.with_(name="c", stock=True): 1.25, LLAMA.with_(name="d", without=("cast",)): 9.0}
    several = [recorded(tmp_path, recipe, s) for recipe, s in (changed | stock | slower).items()]
    (row,) = plots.stock_formats_table([None, *several]).to_dict("records")
    assert row["FP8 ÷ bf16, changed"] == "1.50" and row["FP8 ÷ bf16, stock"] == "2.40"
    assert row["bf16, changed"] == f"{TOKENS / 1.5:,.0f}"
    alone = plots.stock_formats_table(several[:1]).to_dict("records")[0]
    assert alone["FP8 ÷ bf16, stock"] == alone["FP8, stock"] == "–"
