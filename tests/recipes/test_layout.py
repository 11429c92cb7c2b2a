import pytest

from helpers.recipes import Layout
from helpers.recipes.layout import rank_groups


def test_world_size_is_what_the_sizes_need():
    assert Layout().world_size == 1
    assert Layout(tensor_parallel=2, pipeline_parallel=2, context_parallel=2).world_size == 8
    assert Layout(expert_parallel=2).world_size == 2
    assert Layout(tensor_parallel=2, expert_parallel=2, expert_tensor_parallel=1).world_size == 2
    assert Layout(processes=8, tensor_parallel=2).data_parallel == 4


def test_names():
    assert Layout().name == "1 rank"
    assert Layout(tensor_parallel=2, pipeline_parallel=2).name == "TP2×PP2"
    assert Layout(processes=2, distributed_optimizer=True).name == "DP2+DistOpt"
    assert Layout(tensor_parallel=2, sequence_parallel=True).name == "TP2+SP"


def test_rank_groups_are_megatrons():
    groups = rank_groups(Layout(processes=8, tensor_parallel=2, pipeline_parallel=2))
    assert groups["tensor"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups["data"] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert groups["pipeline"] == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(processes=8, tensor_parallel=2, context_parallel=2),
        Layout(processes=8, expert_parallel=4),
        Layout(processes=4, tensor_parallel=2, expert_parallel=2, expert_tensor_parallel=2),
    ],
)
def test_every_rank_is_in_exactly_one_group_of_each_kind(layout):
    for groups in rank_groups(layout).values():
        assert sorted(rank for group in groups for rank in group) == list(range(layout.world_size))
