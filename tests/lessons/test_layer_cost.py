"""What a layer costs under tensor parallelism, against arithmetic on paper and the recorded timelines."""

import pytest

from helpers import plots, runs
from helpers.lessons import layer_cost
from helpers.machine import described
from helpers.planner.plans import rates_of
from helpers.runs import timeline
from helpers.show.message import Absence

TWO = described("2 × H200")
RECIPE = runs.recorded("h200", "gpt_1_2b_20_tp2_sp_graph").recipe
PLAIN = timeline.recorded("h200", "gpt_1_2b_20_tp2_sp_profile")
OVERLAPPED = timeline.recorded("h200", "gpt_1_2b_20_tp2_sp_overlap_profile")


def test_the_sums_of_a_layer_on_paper():
    tokens, h, rates = 20 * 1024, 1536, rates_of(TWO)
    compute = 6 * tokens * 12 * h * h / 2 / rates.products["bf16"].flops
    link = rates.links[2]
    sent = 10 * (link.start + tokens * h * 2 / 2 / link.bandwidth)
    starts = 12 * rates.products["bf16"].start
    assert layer_cost.ratio(RECIPE, TWO) == pytest.approx(sent / (compute + starts), rel=1e-3)
    table = layer_cost.layer_cost(RECIPE, TWO)
    assert table.loc["T_comp: GEMMs", "with numbers"].endswith(f" + 12 × {1e6 * rates.products['bf16'].start:.1f} µs")
    assert table.loc["T_comp: GEMMs", "result"] == f"{1e6 * (compute + starts):,.0f} µs"
    assert table.loc["T_comm: all of them", "formula"] == "6 AG and 4 RS"
    assert table.loc["T_comm ÷ T_comp", "result"] == f"{layer_cost.ratio(RECIPE, TWO):.2f}"
    whole = RECIPE.with_(sequence_parallel=False)
    assert layer_cost.layer_cost(whole, TWO).loc["T_comm: all of them", "formula"] == "4 AR"
    alone = RECIPE.with_(tensor_parallel=1, sequence_parallel=False)
    assert layer_cost.ratio(alone, TWO) == 0 and len(layer_cost.layer_cost(alone, TWO)) == 1


def test_another_link_takes_the_place_of_the_machines():
    known = rates_of(TWO).links[2].bandwidth
    assert layer_cost.ratio(RECIPE, TWO, bandwidth=known) == layer_cost.ratio(RECIPE, TWO)
    assert layer_cost.ratio(RECIPE, TWO, bandwidth=known / 10) > 5 * layer_cost.ratio(RECIPE, TWO)
    assert "25 GB/s" in layer_cost.layer_cost(RECIPE, TWO, bandwidth=25e9).loc["one collective", "with numbers"]
    with pytest.raises(TypeError, match="above 0"):
        layer_cost.ratio(RECIPE, TWO, bandwidth=0)


def test_a_format_without_a_rate_is_told():
    with pytest.raises(ValueError, match="FP32 GEMMs"):
        layer_cost.layer_cost(RECIPE.with_(dtype="fp32"), TWO)


def test_the_share_falls_with_the_width_and_grows_with_tp():
    node = described("8 × H100 80GB")
    table = layer_cost.ratios(RECIPE, {"one node": (node, (2, 8))})
    assert list(table) == ["TP2, one node", "TP8, one node"]
    assert table["TP2, one node"].is_monotonic_decreasing
    assert table.loc[4096, "TP2, one node"] == pytest.approx(2 * table.loc[8192, "TP2, one node"], rel=0.1)
    assert (table["TP8, one node"] > 4 * table["TP2, one node"]).all()
    picture = plots.communication_share(table)
    assert "TP8, one node" in picture.alt
    with pytest.raises(ValueError, match="a table of layer_cost.ratios"):
        plots.communication_share(table.T)


def test_predicted_boxes_are_as_long_as_the_measured_ones():
    table = layer_cost.boxes(PLAIN, RECIPE, TWO)
    assert table.index.get_level_values("collective").value_counts().to_dict() == {"AG": 6, "RS": 4}
    assert (table["predicted µs"] / table["measured µs"]).between(0.9, 1.1).all()
    beside = table["runs beside"].tolist()
    assert beside == ["nothing"] * 5 + ["fc1 dgrad", "fc1 wgrad", "nothing", "qkv dgrad", "qkv wgrad"]
    assert layer_cost.boxes(Absence("none"), RECIPE, TWO) == Absence("none")


def test_a_gemm_beside_a_collective_takes_longer_than_alone():
    table = layer_cost.boxes(PLAIN, RECIPE, TWO).set_index("runs beside")
    hidden = table.drop(index="nothing")
    assert (hidden["GEMM µs"] > 1.05 * hidden["GEMM alone"]).all()
    assert set(table.loc[["nothing"], "GEMM µs"]) == {"–"}


def test_fp8_gemms_of_one_kernel_are_told_by_their_order():
    """FP8's dgrad and wgrad of a matrix are one kernel, called twice."""
    eight = timeline.recorded("h200", "llama3_8b_profile")
    row = layer_cost.overlap_price({"FP8": eight}).loc["FP8"]
    gemms = [k.duration for k in eight.backward.kernels if k.part]
    assert row["dgrad"] + row["wgrad"] == pytest.approx(sum(gemms), abs=2) and row["dgrad"] > 2500 < row["wgrad"]
    assert row["fprop"] == pytest.approx(sum(k.duration for k in eight.forward.kernels if k.part), abs=2)


def test_a_layer_that_no_rank_shares_has_no_boxes():
    run = runs.recorded("h200", "llama3_8b_profile")
    with pytest.raises(ValueError, match="tensor_parallel=1"):
        layer_cost.boxes(timeline.recorded("h200", "llama3_8b_profile"), run.recipe, TWO)


def test_two_all_gathers_of_an_overlapped_layer_are_still_nccls():
    table = layer_cost.overlap_price({"plain": PLAIN, "overlapped": OVERLAPPED, "gone": Absence("none")})
    assert table["NCCL collectives"].to_dict() == {"plain": 10, "overlapped": 2}
    assert table["copies"].to_dict() == {"plain": 0, "overlapped": 8}
    assert table.loc["overlapped", "exposed"] < 0.2 * table.loc["plain", "exposed"]
    assert table.loc["overlapped", "wgrad"] < table.loc["plain", "wgrad"] and table.loc["overlapped", "dgrad"] > 900
    assert layer_cost.overlap_price({"gone": Absence("none")}) == Absence("none")
