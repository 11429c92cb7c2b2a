"""The napkin's sums, by hand."""

import pytest

from helpers import recipes
from helpers.lessons import napkin
from helpers.machine import described
from helpers.recipes import Layout, costs

HGX = described("8 × H100 80GB")


def test_the_work_is_six_operations_a_parameter_and_token():
    recipe = recipes.llama3_8b().with_(global_batch_size=128, layout=Layout(8, distributed_optimizer=True))
    table = napkin.step(recipe, HGX)
    matrices = 8_030_261_248 - 128256 * 4096 - 65 * 4096  # all but the embedding and the norms
    seconds = 6 * matrices * 128 * 8192 / 8 / costs.of(HGX).products["fp8"].flops
    assert float(table.loc["GEMMs", "a step"].removesuffix(" ms").replace(",", "")) == pytest.approx(
        1e3 * seconds, 0.01
    )
    assert list(table.index) == ["GEMMs", "weights, gradients, Adam", "DP: gradients, and weights back"]


def test_every_axis_has_its_row_and_experts_count_once_a_token():
    dense = recipes.gpt3_345m().with_(layout=Layout(8, tensor_parallel=2, pipeline_parallel=2), micro_batch_size=4)
    rows = list(napkin.step(dense, HGX).index)
    assert rows[2:] == ["TP: 4 AR a layer", "DP: gradients, and weights back", "pipeline bubble"]
    sparse = dense.with_(num_experts=8, layout=Layout(8), linear_bias=False)
    once, twice = (napkin.step(sparse.with_(moe_router_topk=k), HGX).loc["GEMMs", "a step"] for k in (2, 4))
    assert float(once.split()[0]) < float(twice.split()[0])
