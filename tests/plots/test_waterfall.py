"""The waterfall names each bar by what changed, and its numbers are the runs' own."""

import dataclasses

import pytest
from records import make_run, recorded

from helpers import machine, plots, recipes
from helpers.plots.changes import changes as told
from helpers.recipes.settings import Speed

UNFUSED = ("--no-gradient-accumulation-fusion",)
PLAIN = recipes.gpt3_345m().with_(
    name="a", speed=Speed(), extra_flags=UNFUSED, micro_batch_size=1, global_batch_size=32, dtype="fp16"
)
TOKENS = 32 * 1024


def changed(**changes) -> str:
    return told(dataclasses.asdict(PLAIN), dataclasses.asdict(PLAIN.with_(**changes)))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dtype": "bf16"}, "bf16 instead of fp16"),
        ({"fp8_format": "hybrid", "dtype": "bf16"}, "fp8 tensorwise instead of fp16"),
        ({"micro_batch_size": 32}, "micro-batch 1 → 32"),
        ({"speed": Speed(cross_entropy_fusion="native")}, "fused cross-entropy"),
        ({"extra_flags": ()}, "fused gradient accumulation"),
        ({"speed": Speed(cuda_graph=True), "dtype": "bf16"}, "bf16 instead of fp16, CUDA graph"),
        ({"dropout": 0.0}, "dropout off"),
        ({"dropout": 0.2}, "dropout 0.1 → 0.2"),
        ({"tensor_parallel": 2}, "TP2 instead of 1 rank"),
        ({"extra_flags": (*UNFUSED, "--my-flag")}, "with --my-flag"),
        ({"num_layers": 12}, "num_layers 24 → 12"),
        ({"train_iters": 7, "lr": 1.0, "name": "b"}, "the same again"),
    ],
)
def test_each_change_has_its_words(changes, words):
    assert changed(**changes) == words


def test_changes_back_are_told_as_well():
    fast = PLAIN.with_(speed=Speed(cuda_graph=True), extra_flags=(), dropout=0.0)
    words = told(dataclasses.asdict(fast), dataclasses.asdict(PLAIN))
    assert words == "no CUDA graph, no fused gradient accumulation, dropout on"


def test_a_batch_that_is_one_micro_batch_is_told_once():
    whole = PLAIN.with_(micro_batch_size=32)
    double = PLAIN.with_(micro_batch_size=64, global_batch_size=64)
    assert told(dataclasses.asdict(whole), dataclasses.asdict(double)) == "batch 32 → 64"
    assert changed(micro_batch_size=2, global_batch_size=64) == "micro-batch 1 → 2, batch 32 → 64"


@pytest.fixture
def three(tmp_path):
    bf16 = PLAIN.with_(name="b", dtype="bf16")
    slow = bf16.with_(name="c", dropout=0.2)
    return [recorded(tmp_path, r, seconds) for r, seconds in ((PLAIN, 2.0), (bf16, 0.5), (slow, 1.0))]


def test_each_step_has_a_bar_a_condition_and_the_peak_is_drawn(three):
    picture = plots.waterfall({"stock": [three[0], None, *three[1:]], "ours": three[:2]})
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "start: fp16, micro-batch 1 of 32",
        "bf16 instead of fp16",
        "dropout 0.1 → 0.2",
    ]
    first, second, third = TOKENS / 2, TOKENS / 0.5, TOKENS / 1
    assert [patch.get_width() for patch in axes.patches] == [first, second, third, first, second]
    centres = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches]
    assert centres == [pytest.approx(at) for at in (-0.2, 0.8, 1.8, 0.2, 1.2)]
    beside = [text.get_text() for text in axes.texts]
    assert beside[0].startswith("16,384  ·  MFU 3.8%") and "4.00×" in beside[1] and "0.50×" in beside[2]
    assert beside[-1] == "bf16 peak:\n435,299"
    assert "recorded on NVIDIA H200" in axes.get_title(loc="left")
    assert "dropout 0.1 → 0.2, stock: 32,768" in picture.alt and "bf16 instead of fp16, ours: 65,536" in picture.alt


def test_stock_megatron_has_its_own_fused_loss(three):
    fused = dataclasses.asdict(PLAIN.with_(cross_entropy_fusion="te", stock=True))
    assert told(dataclasses.asdict(PLAIN.with_(stock=True)), fused) == "fused cross-entropy"


def test_without_a_gpu_there_is_no_mfu_and_no_peak(tmp_path):
    run = make_run(tmp_path / "cpu", PLAIN.with_(dtype="fp32"), machine.CPU)
    (axes,) = plots.waterfall({"stock": [run]}).figure.axes
    assert len(axes.texts) == 1
    assert "MFU" not in axes.texts[0].get_text() and axes.get_xlabel() == "tokens/s per rank"


def test_no_run_is_a_sentence():
    nothing = plots.waterfall({"stock": [None]})
    assert repr(nothing) == "No run of this series is recorded yet: there is nothing to show in its place."
    assert nothing._repr_html_().startswith("<p>No run")
