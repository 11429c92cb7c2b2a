"""The table and the figure of data parallelism hold the runs' own numbers."""

import pytest
from records import recorded

from helpers import plots, recipes
from helpers.plots import data_parallel


@pytest.fixture
def four(tmp_path):
    runs = []
    for ranks, split, seconds, peak in ((1, False, 0.2, 40e9), (2, False, 0.25, 40e9), (1, True, 0.2, 40e9),
                                        (2, True, 0.22, 38e9)):  # fmt: skip
        name = f"gpt3_345m_dp{ranks}_{'distopt' if split else 'plain'}"
        changes = {"processes": ranks, "global_batch_size": 32 * ranks, "distributed_optimizer": split}
        runs.append(recorded(tmp_path, recipes.gpt3_345m().with_(name=name, **changes), seconds, peak))
    return runs


def test_the_table_compares_each_with_one_rank_of_its_kind(four):
    table = plots.data_parallel_table(reversed(four))
    assert table.loc[(data_parallel.WHOLE, 2), "efficiency"] == "80%"
    assert table.loc[(data_parallel.SPLIT, 2), "efficiency"] == "91%"
    assert table.loc[(data_parallel.SPLIT, 2), "step ms"] == pytest.approx(220)
    assert table.loc[(data_parallel.SPLIT, 2), "peak memory GB"] == pytest.approx(38)
    assert plots.data_parallel_table(four[1:2])["efficiency"].tolist() == ["–"]
    other = plots.data_parallel_table([four[0], four[3]])
    assert other.loc[(data_parallel.SPLIT, 2), "efficiency"] == "91%"  # there is no other one rank


def test_the_figure_has_a_curve_for_each_way_to_keep_the_optimizer(four):
    picture = plots.data_parallel_cost(four)
    time, memory = picture.figure.axes
    drawn = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in time.lines]
    assert drawn == [([1, 2], pytest.approx([200, 250])), ([1, 2], pytest.approx([200, 220]))]
    assert memory.lines[1].get_ydata().tolist() == pytest.approx([40, 38])
    assert time.get_xlabel() == "ranks, 32 samples each"
    assert "distributed optimizer, 2 ranks: 220 ms, 38.0 GB" in picture.alt
    assert all(line.get_linestyle() == ":" for line in time.lines)
    assert picture.figure.get_suptitle() == "recorded on NVIDIA H200"  # runs on one GPU and on two


def test_nothing_recorded_is_a_sentence():
    for answer in (plots.data_parallel_table([None]), plots.data_parallel_cost([])):
        assert "No data-parallel run is recorded yet" in repr(answer)
