"""A timeline drawn: each layer's kernels in their lanes, and shares that fill the step."""

import pytest
from colour_blindness import confused

from helpers import plots
from helpers.plots import timeline as drawn
from helpers.runs import timeline
from helpers.runs.timeline import CATEGORIES, IDLE, Kernel, Timeline, Window


def test_pieces_of_a_product_that_follow_each_other_have_one_name():
    pieces = [(0, "a"), (20, "a"), (60, "a"), (80, "b")]  # two, one after a gap, another product
    kernels = tuple(Kernel("matrix products", start, 20, 7, name, "fc2") for start, name in pieces)
    named = drawn._names(Window(100, kernels), "computed", backward=False)
    assert [(start, end) for _, _, start, end in named] == [(0, 40), (60, 100)]


def small(step_ms=2.0, usual=None) -> Timeline:
    kernels = (Kernel("matrix products", 0, 600, 7, "gemm", "qkv"), Kernel("collectives", 500, 300, 20, "nccl"))
    parts = dict.fromkeys(CATEGORIES, 0.0) | {"matrix products": 1.2, "collectives": 0.4, IDLE: step_ms - 1.6}
    return Timeline("NVIDIA H200", step_ms, usual, parts, 0.2, 2, 3, Window(1000, kernels), Window(1000, kernels[:1]))


def test_collectives_of_a_layer_have_a_lane_of_their_own():
    picture = plots.layer_timeline({"eager": small(), "missing": timeline.recorded("h200", "none")})
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["eager, forward", "collectives", "eager, backward"]
    boxes = [(p.get_x(), round(p.get_width(), 9), round(p.get_y() + 0.35)) for p in axes.patches if p.get_width() != 1]
    assert boxes == [(0, 0.6, 0), (0.5, 0.3, 1), (0, 0.6, 2)]
    words = [text.get_text() for text in axes.texts]
    assert words.count("qkv") == 2
    assert {"1.00 ms,\n40% no compute, 20% idle", "1.00 ms,\n40% no compute, 40% idle"} < set(words)
    assert axes.get_title(loc="left") == "layer 2 of 3, recorded on NVIDIA H200"
    assert "eager, forward: 1.00 ms, 40% no compute, 20% idle" in picture.alt
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["GEMMs", "collectives", "nothing computed"]


@pytest.mark.parametrize("second", ["b", "a"], ids=["two kernels", "one kernel twice"])
def test_a_matrix_has_its_dgrad_before_its_wgrad_backward(second):
    pair = tuple(Kernel("matrix products", start, 400, 7, name, "fc2") for start, name in ((0, "a"), (405, second)))
    one = Timeline("NVIDIA H200", 2.0, None, {}, 0.0, 2, 3, Window(1000, pair[:1]), Window(1000, pair))
    (axes,) = plots.layer_timeline({"eager": one}).figure.axes
    words = [text.get_text() for text in axes.texts if "ms" not in text.get_text()]
    assert words == ["fc2", "fc2\ndgrad", "fc2\nwgrad"]


def test_what_a_copy_engine_sends_has_a_lane_of_its_own():
    sent = tuple(Kernel("collectives", 100, 300, 7, name) for name in ("ncclDevKernel_AllGather", "Memcpy PtoP"))
    one = Timeline("NVIDIA H200", 2.0, None, {}, 0.0, 2, 3, Window(1000, sent), Window(1000, ()))
    (axes,) = plots.layer_timeline({"overlapped": one}).figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["collectives", "copies"]


def test_shares_fill_the_step():
    picture = plots.time_shares({"eager": small(usual=1.8), "graph": small(step_ms=1.7)})
    (axes,) = picture.figure.axes
    ends = [p.get_x() + p.get_width() for p in axes.patches]
    assert max(ends) == pytest.approx(2.0) and ends[-1] == pytest.approx(1.7)
    words = [text.get_text() for text in axes.texts]
    assert words[:3] == ["60%", "20%", "20%"] and "2 ms\n2 ms without profiler" in words
    assert "graph, 2 ms: GEMMs 71%, collectives 24%, idle 6%" in picture.alt


def test_no_timeline_is_its_sentence():
    for drawing in (plots.layer_timeline, plots.time_shares):
        assert "No timeline of none is recorded yet" in repr(drawing({"a": timeline.recorded("h200", "none")}))


def test_kinds_of_kernels_stay_apart_for_colour_blind_readers():
    assert set(drawn.KERNEL_COLOURS) == {*CATEGORIES, IDLE}
    assert confused(drawn.KERNEL_COLOURS) == []
