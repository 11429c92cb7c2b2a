"""What data parallelism keeps and sends, heard on real ranks; what a learner may answer wrongly."""

import pytest

from helpers import launch, plots, recipes
from helpers.lessons import experiments, sharding
from helpers.machine import CPU
from helpers.processes import control
from helpers.recipes import preflight

ROUNDING = 9.5e-7
DDP = {"processes": 2}
DISTOPT = DDP | {"distributed_optimizer": True}
FSDP = DISTOPT | {"megatron_fsdp": True}
SPLIT = {"extra_flags": ("--data-parallel-sharding-strategy", "optim_grads")}
VARIANTS = {"DDP": DDP, "DistOpt": DISTOPT, "ZeRO-2": FSDP | SPLIT, "FSDP": FSDP}


@pytest.fixture(scope="module")
def recipe():
    small = recipes.gpt3_345m().scaled_to("cpu")
    sizes = {"num_layers": 2, "hidden_size": 64, "sequence_length": 32, "micro_batch_size": 2, "global_batch_size": 8}
    steps = {"train_iters": 3, "lr_warmup_iters": 1, "eval_iters": 0, "save_interval": None}
    return small.with_(**sizes, **steps, dtype="fp32", dropout=0.0, cuda_graph=False)


@pytest.mark.train
def test_each_stage_of_zero_holds_and_sends_what_it_says(recipe):
    heard = sharding.listen(recipe, None, VARIANTS, CPU)
    assert list(heard) == list(VARIANTS)
    for run in heard.values():
        assert run["losses"] == pytest.approx(heard["DDP"]["losses"], rel=0, abs=ROUNDING)
    held = sharding.per_parameter(recipe, heard)
    expected = {"DDP": [4, 4, 8], "DistOpt": [4, 4, 4], "ZeRO-2": [4, 2, 6], "FSDP": [2, 2, 6]}
    for name, parts in expected.items():
        assert list(held.loc[name, list(sharding.STATES)]) == pytest.approx(parts, rel=0.02), name
    whole = heard["DDP"]["held"][0]["weights"]  # of a model below 500 million parameters FSDP gathers all of it ahead
    gathered = {name: run["held"][0]["gathered"] for name, run in heard.items()}
    assert gathered == dict.fromkeys(list(VARIANTS)[:3], 0) | {"FSDP": pytest.approx(whole, rel=0.01)}
    drawn = plots.held(recipe, heard, sharding.planned(recipe, VARIANTS, CPU))
    assert "gathered 4" in drawn.alt and "optimizer 8; DistOpt" in drawn.alt
    plan = sharding.planned(recipe, VARIANTS, CPU)
    assert set(plan) == set(VARIANTS) - {"ZeRO-2"}
    for name, parts in plan.items():
        for part in sharding.STATES:
            assert heard[name]["held"][0][part] == pytest.approx(parts[part], rel=0.02), (name, part)
    kinds = {name: {one["collective"] for one in run["collectives"]} for name, run in heard.items()}
    assert kinds == {"DDP": {"all-reduce"}} | dict.fromkeys(list(VARIANTS)[1:], {"all-gather", "reduce-scatter"})
    gathered = [c["phase"] for c in heard["FSDP"]["collectives"] if c["collective"] == "all-gather"]
    assert {"forward", "backward"} <= set(gathered)


@pytest.mark.train
def test_optim_splits_the_optimizer_alone(recipe):
    """A weight and a gradient, 4 bytes each, and of main weight and moments a half."""
    assert "Measured: 14.0 bytes" in str(sharding.bytes_held(recipe, None, 4 + 4 + (4 + 8) / 2, CPU))


@pytest.mark.train
def test_a_killed_fsdp_run_ends_whole_and_goes_on_where_it_saved(tiny_recipe, small_corpus):
    """Every rank is gone after the kill, and the second half has the losses of the run that nobody disturbed."""
    fsdp = tiny_recipe.with_(**FSDP, global_batch_size=8, save_interval=10, name="tiny_fsdp")
    whole = launch.train(fsdp.with_(name="tiny_fsdp_whole"), small_corpus, fresh=True)
    cut = experiments.pull_the_plug(fsdp, small_corpus, step=14)
    assert not control.members(cut.path)
    again = launch.train(fsdp, small_corpus)
    assert again.path == cut.path
    assert list(again.losses[whole.losses.index > 10]) == list(whole.losses[whole.losses.index > 10])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda r: sharding.bucket(r, None, ..., CPU), "put a bucket size"),
        (lambda r: sharding.bucket(r, None, -3, CPU), "1 or more, not -3"),
        (lambda r: sharding.bucket(r, None, "many", CPU), "not 'many'"),
        (lambda r: sharding.bytes_held(r, None, ..., CPU), "put a number of bytes"),
        (lambda r: sharding.bytes_held(r, None, "twelve", CPU), "not 'twelve'"),
        (lambda r: sharding.bytes_sent(r, None, ..., CPU), "put a number"),
        (lambda r: sharding.bytes_sent(r, None, "two", CPU), "a number"),
    ],
)
def test_an_answer_of_another_kind_is_told_at_once(recipe, answer, words):
    assert words in str(answer(recipe))


def test_a_variant_that_cannot_work_starts_nothing(recipe):
    with pytest.raises(preflight.PreflightError, match="distributed_optimizer=True"):
        sharding.listen(recipe, None, {"FSDP": DDP | {"megatron_fsdp": True}}, CPU)
    with pytest.raises(ValueError, match="nothing to train"):
        sharding.listen(recipe, None, {}, CPU)
    with pytest.raises(preflight.PreflightError, match="multiple of"):
        sharding.listen(recipe, None, {"DDP": DDP | {"global_batch_size": 3}}, CPU)


def test_the_table_of_gpus_names_what_a_layout_costs():
    """The sentences under it on the page: tokens/s and memory against the distributed optimizer, and against TP."""
    table = sharding.recorded()
    speed = table["tokens/s/GPU"].str.replace(",", "").astype(float)
    memory = table["peak memory GB"].astype(float)
    assert speed["gpt2_xl_32_fsdp2"] / speed["gpt2_xl_32_distopt2"] == pytest.approx(1 - 0.16, abs=0.005)
    assert memory["gpt2_xl_32_fsdp2"] / memory["gpt2_xl_32_distopt2"] == pytest.approx(1 - 0.09, abs=0.005)
    held = table["bytes a parameter between steps"].astype(float)
    xl = held[["gpt2_xl_30_ddp2", "gpt2_xl_32_distopt2", "gpt2_xl_32_fsdp2"]]
    assert list(xl) == [18.1, 12.1, 10.8]
    assert list(held[["llama3_8b_100_bf16", "llama3_8b_bf16_fsdp2", "llama3_8b_bf16_tp2_sp"]]) == [7.2, 6.5, 5.1]
    assert memory["llama3_8b_bf16_fsdp2"] > 85.5 > memory["llama3_8b_bf16_fsdp2_recompute"]  # GB of an H100
    tensor = {"bf16": "llama3_8b_bf16_tp2_sp_eager", "tensorwise": "llama3_8b_tensorwise_tp2_sp_eager"}
    assert all(speed[tp] > speed[f"llama3_8b_{name}_fsdp2_recompute"] for name, tp in tensor.items())
    assert memory["llama3_8b_bf16_tp2_sp"] / memory["llama3_8b_bf16_fsdp2"] == pytest.approx(2 / 3, abs=0.02)
    assert set(table["samples a step"][["llama3_8b_bf16_tp2_sp", "llama3_8b_100_bf16", "llama3_8b_bf16_fsdp2"]]) == {4}
