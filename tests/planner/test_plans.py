"""The search: what it returns can run, ranks by speed, says why the others lose, and tells what fits nowhere."""

import random
import time
from dataclasses import replace

import pytest
from machines import TWO_H200

from helpers import planner, recipes
from helpers.machine import CPU, described
from helpers.recipes import costs, preflight
from helpers.recipes.costs import exchange
from helpers.recipes.layout import Layout

HGX = described("8 × H100 80GB")
EIGHT = recipes.llama3_8b().with_(global_batch_size=128)
MOE = recipes.gpt3_345m().with_(num_experts=8, linear_bias=False, dropout=0.0, cuda_graph=False, global_batch_size=64)


@pytest.mark.parametrize("recipe", [EIGHT, MOE, recipes.gpt3_345m()], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("machine", [HGX, TWO_H200, described("4 × A100 40GB")], ids=lambda machine: machine.name)
def test_every_plan_passes_preflight_and_they_come_fastest_first(recipe, machine):
    if recipe.precision.fp8_format and not machine.supports_fp8:
        recipe = recipe.with_(fp8_format=None, fp8_param_gather=False)
    found = planner.search(recipe, machine)
    seconds = [plan.step.seconds for plan in found.plans]
    assert seconds == sorted(seconds)
    for plan in found.plans:
        errors = [p for p in preflight.check(plan.recipe, None, machine) if p.severity == "error"]
        assert not errors, (plan, errors)
        assert (
            plan.recipe.model == recipe.model and plan.recipe.batch.global_batch_size == recipe.batch.global_batch_size
        )


def test_the_best_is_a_recipe_that_keeps_model_batch_and_format():
    best = planner.best(EIGHT, HGX)
    assert (best.model, best.precision, best.schedule) == (EIGHT.model, EIGHT.precision, EIGHT.schedule)
    assert best.layout.world_size == 8 and best.scaled_for == HGX.name
    assert planner.search(EIGHT, HGX).best.recipe.layout == best.layout


def test_a_table_says_why_the_next_ten_lose():
    found = planner.search(EIGHT, HGX)
    table = found.table()
    assert len(table) == 11 and table["why slower"].iloc[0] == "–"
    assert all(table["why slower"].iloc[1:].str.len() > 5)
    assert "layouts fit 8 × NVIDIA H100 80GB" in repr(found) and "tokens/s/GPU" in found._repr_html_()


def test_the_parts_of_a_step_add_up():
    plan = planner.predict(EIGHT.with_(processes=8, tensor_parallel=2, pipeline_parallel=2), HGX)
    assert plan.step.seconds == pytest.approx(sum(plan.step.parts.values()))
    assert all(part >= 0 for part in plan.step.parts.values()) and set(plan.step.parts) == set(costs.PARTS)
    assert plan.step.parts["TP collectives"] > 0 and plan.step.parts["pipeline bubble"] > 0


def faster(machine, rates, name):
    """The rates of a machine with one of them twice as good."""
    if name == "links":
        links = {size: replace(link, bandwidth=2 * link.bandwidth) for size, link in rates.links.items()}
        return replace(rates, links=links)
    if name == "products":
        products = {key: replace(one, flops=2 * one.flops) for key, one in rates.products.items()}
        return replace(rates, products=products)
    return replace(rates, bandwidth=2 * rates.bandwidth)


@pytest.mark.parametrize("name", ["links", "products", "bandwidth"])
def test_more_of_anything_never_makes_a_plan_slower(name):
    rates = costs.of(HGX)
    better = faster(HGX, rates, name)
    plans = planner.search(EIGHT, HGX).plans
    for plan in random.Random(1).sample(plans, 60):
        assert costs.step(plan.recipe, HGX, better).seconds <= plan.step.seconds * (1 + 1e-9), plan


def test_memory_never_falls_with_a_larger_micro_batch():
    plans = planner.search(recipes.gpt3_345m().with_(global_batch_size=64, cuda_graph=False), HGX).plans
    by_layout: dict = {}
    for plan in plans:
        key = (plan.recipe.layout, plan.recipe.batch.recompute)
        by_layout.setdefault(key, []).append((plan.recipe.batch.micro_batch_size, plan.gigabytes))
    assert len(by_layout) > 20
    for sizes in by_layout.values():
        memory = [gigabytes for _, gigabytes in sorted(sizes)]
        assert memory == sorted(memory)


def test_what_cannot_run_has_no_prediction_and_what_does_not_fit_says_so():
    for refused in (
        lambda: planner.predict(EIGHT.with_(tensor_parallel=3), HGX),
        lambda: planner.predict(EIGHT, described("4 × A100 40GB")),
        lambda: planner.search(EIGHT, described("4 × A100 40GB")),
        lambda: planner.predict(EIGHT.with_(processes=16), HGX),
    ):
        with pytest.raises(preflight.PreflightError):
            refused()
    assert "do not fit in its 85.5 GB" in repr(planner.predict(EIGHT.with_(micro_batch_size=8), HGX))
    assert "fit" not in repr(planner.predict(EIGHT.with_(layout=Layout(8, distributed_optimizer=True)), HGX))


def test_a_group_that_leaves_a_node_has_the_network_cards_of_its_ranks_there():
    fast, slow = (described("8 × H100", nodes=2, between_nodes_gbps=gbps) for gbps in (400, 5))
    wide = EIGHT.with_(layout=Layout(16, distributed_optimizer=True))
    narrow = EIGHT.with_(layout=Layout(16, tensor_parallel=8, distributed_optimizer=True, sequence_parallel=True))
    for recipe in (wide, narrow):
        assert planner.predict(recipe, slow).step.seconds > planner.predict(recipe, fast).step.seconds
    link = exchange.link_of(slow, costs.of(slow), 16, 1)
    assert link.bandwidth == pytest.approx(8 * 0.9 * 5e9 / 8)
    assert exchange.link_of(slow, costs.of(slow), 2, 8).bandwidth == pytest.approx(0.9 * 5e9 / 8)
    assert exchange.link_of(fast, costs.of(fast), 8, 1) == costs.of(fast).link(8)


def test_rates_of_ones_own_are_taken():
    slower = replace(costs.of(HGX), bandwidth=costs.of(HGX).bandwidth / 2)
    assert planner.predict(EIGHT, HGX, slower).step.seconds > planner.predict(EIGHT, HGX).step.seconds
    assert planner.search(EIGHT, HGX, slower).best.step.seconds > planner.search(EIGHT, HGX).best.step.seconds


def test_a_model_that_fits_nowhere_is_told_with_what_is_missing():
    large = EIGHT.with_(num_layers=80, hidden_size=8192, num_attention_heads=64, ffn_hidden_size=28672)
    with pytest.raises(ValueError) as told:
        planner.search(large, HGX)
    said = str(told.value)
    assert (
        "fits in no layout of 8 × NVIDIA H100 80GB" in said
        and "more than the 95%" in said
        and "such GPUs would hold it" in said
    )


def test_a_batch_that_no_layout_divides_is_told():
    with pytest.raises(ValueError, match="No layout over|fits in no layout"):
        planner.search(recipes.gpt3_345m().with_(num_attention_heads=7, hidden_size=7 * 100_003), described("H100"))


def test_an_unknown_gpu_has_no_prediction():
    unknown = replace(TWO_H200, gpus=tuple(replace(gpu, name="NVIDIA Unheard Of") for gpu in TWO_H200.gpus))
    with pytest.raises(ValueError, match="No data sheet here describes"):
        planner.predict(recipes.gpt3_345m(), unknown)


def test_a_cpu_that_nobody_measured_is_told_how_to(monkeypatch, tmp_path):
    monkeypatch.setattr(costs.rates, "RECORDED", tmp_path)
    costs.rates.recorded.cache_clear()
    with pytest.raises(ValueError, match=r"planner\.calibrate\(\) measures this one"):
        costs.of(CPU)
    costs.rates.recorded.cache_clear()


def test_a_gpu_is_known_by_its_data_sheet_whatever_the_driver_calls_it():
    assert costs.of(described("H200")) is costs.of(TWO_H200)
    carried = costs.of(described("H100"))
    assert "carried over from NVIDIA H200" in carried.sources[0]
    assert carried.bandwidth == pytest.approx(costs.of(TWO_H200).bandwidth * 3.35 / 4.8)
    assert "fp8" not in costs.of(described("A100 80GB")).products


def test_a_search_for_a_thousand_gpus_ends():
    """Some seconds on two cores; the limit is for a search that does not prune."""
    machine = described("8 × H100 80GB", nodes=128, between_nodes_gbps=400)
    began = time.perf_counter()
    found = planner.search(recipes.llama3_8b().with_(global_batch_size=1024), machine)
    assert found.best.recipe.layout.world_size == 1024 and time.perf_counter() - began < 300
    assert found.best.recipe.layout.tensor_parallel <= 8, "tensor parallelism stays in a node"
