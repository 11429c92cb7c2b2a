"""The floor's figure draws what was measured, and its value says where the floor ends."""

import math

import pytest
from records import recorded

from helpers import plots, recipes, runs
from helpers.lessons import sums
from helpers.runs.micro_batches import MicroBatches, Size
from helpers.show.message import Absence

SIZES = (Size(1, 80.0, 1355, 10.0), Size(4, 90.0, 1355, 40.0), Size(16, 160.0, 1636, 158.0))
GPU = MicroBatches("NVIDIA H200", "gpt3_345m", True, 1024, SIZES, 9.0, 32, "NVIDIA H200")
CPU = MicroBatches("CPU", "small", False, 16, tuple(Size(s.size, s.milliseconds, 868, None) for s in SIZES), 1.5)


def test_the_floor_is_the_fastest_and_ends_where_time_grows():
    assert (GPU.floor, GPU.flat_until, GPU.launches) == (80.0, 4, 1355)
    assert GPU.launching_milliseconds == pytest.approx(12.195)
    assert GPU.times(16) == 2.0 and math.isnan(GPU.times(2))


def test_launching_alone_stands_beside_the_floor():
    table = sums.launching(CPU, GPU, Absence("none"))
    assert list(table.index) == ["CPU", "NVIDIA H200"]
    assert list(table.loc["NVIDIA H200"]) == ["1,355", 9.0, 12.2, 80.0, 59.0]


def test_a_size_has_its_row():
    table = GPU.table()
    assert list(table.index) == [1, 4, 16]
    assert table.loc[4, "tokens/s"] == "45,511" and table.loc[16, "kernels run"] == "99% of the time"
    assert set(CPU.table()["kernels run"]) == {"–"}


def test_a_panel_a_machine_and_the_graph_in_the_last(tmp_path):
    graph = recorded(tmp_path, recipes.gpt3_345m().with_(micro_batch_size=4, global_batch_size=8), 0.06)
    picture = plots.micro_batches(CPU, GPU, graphs=[graph])
    left, right = picture.figure.axes
    assert [len(axes.lines) for axes in (left, right)] == [2, 4]  # measured, floor; kernels, graph
    assert list(right.lines[1].get_ydata()) == [10.0, 40.0, 158.0]
    assert list(right.lines[2].get_ydata()) == [pytest.approx(30.0)]
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    assert "floor 80.0 ms" in picture.alt and "4: 30.0 ms" in picture.alt


def test_what_is_recorded_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.records, "RECORDED", tmp_path)
    runs.micro_batches.record(GPU, "gpt", "h200", tmp_path)
    assert runs.micro_batches.recorded("h200", "gpt") == GPU
    missing = runs.micro_batches.recorded("h200", "other")
    assert isinstance(missing, Absence) and plots.micro_batches(missing) is missing
    assert len(plots.micro_batches(CPU, missing).figure.axes) == 1


def test_the_graph_pays_where_launching_sets_the_time_and_not_where_kernels_do():
    """What notebook 02 says of the recorded runs."""
    floor = runs.micro_batches.recorded("h200", "gpt3_345m_stock")
    graphs = {run.recipe.batch.micro_batch_size: run for run in runs.recorded("h200/steps", "*graph*_stock")}
    ours = {size.size: 1e3 * size.size * floor.sequence_length / size.milliseconds for size in floor.sizes}
    gains = {size: run.figures()["tokens/s/GPU"] / ours[size] for size, run in graphs.items()}
    assert gains[1] > 5 and 3 < gains[4] < 4 and 1.1 < gains[16] < 1.3 and gains[32] < 1.05
