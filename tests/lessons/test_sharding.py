"""What data parallelism keeps and sends, heard on real ranks; what a learner may answer wrongly."""

import pandas as pd
import pytest

from helpers import launch, plots, recipes, runs
from helpers.lessons import experiments, sharding
from helpers.machine import CPU
from helpers.processes import control
from helpers.recipes import accounting, preflight

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
    count = sum(accounting.parameter_counts(recipe.model).values())
    for stage, name in enumerate(list(VARIANTS)[:3]):  # FSDP's last: what lies outside the layers goes once a step
        sent = sum(plots.sharding.sent(heard[name])) / count
        assert sent == pytest.approx(sharding.sent(stage, 2, 2, 4, 4), rel=0.02), name
    assert sum(plots.sharding.sent(heard["FSDP"])) / count < sharding.sent(3, 2, 2, 4, 4)
    gathered = [c["phase"] for c in heard["FSDP"]["collectives"] if c["collective"] == "all-gather"]
    assert {"forward", "backward"} <= set(gathered)


@pytest.mark.train
def test_optim_splits_the_optimizer_alone(recipe):
    """A weight and a gradient, 4 bytes each, and of main weight and moments a half."""
    assert "Measured: 14.0 bytes" in str(sharding.bytes_held(recipe, None, 4 + 4 + (4 + 8) / 2, CPU))


@pytest.mark.train
def test_a_run_whose_plug_was_pulled_goes_on_where_it_saved_under_fsdp_too(tiny_recipe, small_corpus, capsys):
    """Every rank is gone after the kill, and the second half has the losses of the run that nobody disturbed."""
    fsdp = tiny_recipe.with_(**FSDP, global_batch_size=8, save_interval=10, name="tiny_fsdp")
    whole = launch.train(fsdp.with_(name="tiny_fsdp_whole"), small_corpus, fresh=True)
    capsys.readouterr()
    cut = experiments.pull_the_plug(fsdp, small_corpus, step=14)
    assert cut.state == "failed" and not control.members(cut.path)
    told = capsys.readouterr().out
    assert "killed: " in told, "the run is shown while it waits for its step"
    assert "Killed after step " in told and "nothing had time to save" in told
    again = launch.train(fsdp, small_corpus)
    assert again.path == cut.path and "Picking up the unfinished run" in capsys.readouterr().out
    assert again.state == "finished" and list(again.losses.index) == list(range(1, 31))
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


@pytest.fixture(scope="module")
def of_gpus():
    """The recorded runs of both tables, by the name of the record, which two machines may have."""
    tables = [sharding.recorded(model).reset_index().set_index("record") for model in ("gpt2_xl", "llama3_8b")]
    return pd.concat(tables)


def test_the_tables_of_gpus_name_what_a_layout_costs(of_gpus):
    """The sentences under them on the page: tokens/s and memory against the distributed optimizer."""
    speed = of_gpus["tokens/s/GPU"].str.replace(",", "").astype(float)
    memory = of_gpus["peak GB"].astype(float)
    assert speed["gpt2_xl_32_fsdp2"] / speed["gpt2_xl_32_distopt2"] == pytest.approx(1 - 0.16, abs=0.005)
    assert memory["gpt2_xl_32_fsdp2"] / memory["gpt2_xl_32_distopt2"] == pytest.approx(1 - 0.09, abs=0.005)
    assert speed["gpt2_xl_32_distopt2"] / speed["gpt2_xl_30_ddp2"] == pytest.approx(1 - 0.045, abs=0.0005)
    assert speed["gpt2_xl_16_dp1_distopt"] / speed["gpt2_xl_15_dp1"] == pytest.approx(1.11, abs=0.002)
    held = of_gpus["bytes a parameter"].astype(float)
    xl = held[["gpt2_xl_30_ddp2", "gpt2_xl_32_distopt2", "gpt2_xl_32_fsdp2"]]
    assert list(xl) == [18.1, 12.1, 10.8]
    assert list(held[["llama3_8b_100_bf16", "llama3_8b_bf16_fsdp2"]]) == [7.2, 6.5]
    assert memory["llama3_8b_bf16_fsdp2"] > 85.5 > memory["llama3_8b_bf16_fsdp2_recompute"]  # GB of an H100


@pytest.mark.parametrize(
    ("machine", "suffix", "faster"),
    [("2 × H100", "_recompute", {"bf16": 1.21, "FP8": 1.13}), ("2 × H200", "", {"bf16": 1 / 1.06, "FP8": 1 / 1.24})],
)
def test_tensor_parallelism_stands_beside_fsdp_with_the_same_batch_and_launches(machine, suffix, faster):
    table = sharding.recorded("llama3_8b").loc[machine].reset_index()
    table = table[table["CUDA graph"] == "–"].set_index(["layout", "precision"])
    assert len(table) == 4 and all(table.loc["DP2+FSDP", "record"].str.endswith(f"fsdp2{suffix}"))
    speed = table["tokens/s/GPU"].str.replace(",", "").astype(float)
    tp, fsdp = speed["TP2+SP+DistOpt"], speed["DP2+FSDP"]
    assert dict(tp / fsdp) == pytest.approx(faster, abs=0.005)
    assert list(table.loc["TP2+SP+DistOpt", "bytes a parameter"]) == ["5.1", "8.1"]
    memory = table["peak GB"].astype(float)
    if not suffix:
        assert memory["TP2+SP+DistOpt", "bf16"] / memory["DP2+FSDP", "bf16"] == pytest.approx(2 / 3, abs=0.02)


def test_settings_are_columns_and_machines_stay_apart(of_gpus):
    recomputed = of_gpus["recomputed"].dropna()
    assert set(recomputed[recomputed == "layers"].index) == {name for name in of_gpus.index if "recompute" in name}
    assert of_gpus.loc["llama3_8b_tensorwise_fsdp2", "precision"] == "FP8"
    assert of_gpus.loc["gpt2_xl_16_dp1_distopt", "others' ms"] == "out of memory"
    assert of_gpus.loc["gpt2_xl_1_dp1", "others' GB"] == "33.3"
    assert set(of_gpus["recorded on"]) == {"H100", "2 × H100", "2 × H200"}


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("h200", "llama3_8b_100_bf16", 7),
        ("h200", "llama3_8b_bf16_tp2_sp", 5),
        ("h200", "sharded/llama3_8b_bf16_fsdp2", 6),
        ("h100-80gb-hbm3", "twins/llama3_8b_tensorwise_tp2_sp_eager", 6),
    ],
)
def test_the_napkin_of_the_llamas_bytes_is_the_plan(folder, name, expected):
    """What is kept of each parameter; FP8's copies of gradients, 2 bytes more on two ranks, are the step's."""
    run = runs.recorded(folder, name)
    kept = accounting.memory(run.recipe)
    count = sum(accounting.parameter_counts(run.model).values())
    assert sum(kept[part] for part in sharding.STATES) / count == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize("ranks", [2, 8])
def test_the_stages_of_zero_keep_what_the_plan_of_a_recipe_keeps(ranks):
    recipe = recipes.gpt3_345m()
    count = sum(accounting.parameter_counts(recipe.model).values())
    table = sharding.zero_stages(count, ranks)
    for name, change in {"DDP": {}, "distributed optimizer": DISTOPT, "FSDP": FSDP}.items():
        plan = accounting.memory(recipe.with_(**change | {"processes": ranks, "global_batch_size": 32 * ranks}))
        for part in sharding.STATES:
            assert table.loc[name, part] == pytest.approx(plan[part] / 1e9, rel=1e-3), (name, part)
    whole = table.loc["FSDP, weights whole"]
    assert whole["weights"] == table.loc["DDP", "weights"] and whole["gradients"] == table.loc["FSDP", "gradients"]


def test_a_step_of_seven_billion_on_eight_ranks_is_the_pages():
    table = sharding.zero_stages(7e9, 8)
    kept = table[list(sharding.STATES)].sum(axis=1)
    assert list(kept) == pytest.approx([126, 52.5, 26.25, 14])
    assert list(table["fp32 gradients"]) == pytest.approx([0, 0, 3.5, 3.5])
    sends = table[["sends, m = 1", "sends, m = 2", "sends, m = 4"]].to_numpy().tolist()
    assert sends == [[49, 49, 49], [36.75] * 3, [24.5, 36.75, 61.25], [36.75, 73.5, 147]]
    picture = plots.zero_stages(table)
    assert "FSDP: keeps 14 GB; sends, m = 1 36.75 GB, sends, m = 2 73.5 GB" in picture.alt
    with pytest.raises(ValueError, match="zero_stages"):
        plots.zero_stages(table[["weights"]])


def test_fsdp_and_tensor_parallelism_are_even_at_16_000_tokens_over_the_ranks():
    even = sharding.even(recipes.llama3_8b().model)["even at tokens of a micro-batch"].str.replace(",", "").astype(int)
    assert list(even * even.index) == pytest.approx([16_000] * 3, rel=0.003)
    with pytest.raises(ValueError, match="experts"):
        sharding.even(recipes.llama3_8b().with_(num_experts=8).model)


def test_a_collective_stands_in_its_pass_and_between_them_in_the_wait():
    """Of two passes and the optimizer: in the middle of backward, between the two, and after the last."""
    passes = [("forward", 0, 10), ("backward", 10, 30), ("optimizer", 50, 60)]
    phases = [{"phase": name, "start": start, "end": end} for name, start, end in passes]
    calls = [("reduce-scatter", 20, 800), ("all-reduce", 40, 400), ("all-gather", 70, 800)]
    collectives = [{"collective": kind, "milliseconds": at, "bytes": size} for kind, at, size in calls]
    run = {
        "phases": phases,
        "collectives": collectives,
        "held": [dict.fromkeys(("weights", "gradients", "optimizer"), 8)] * 2,
    }
    picture = plots.data_parallel_steps({"one": run})
    (lane,) = picture.figure.axes
    grounds, bars = lane.patches[:3], lane.patches[3:]
    ends = [(ground.get_x(), ground.get_x() + ground.get_width()) for ground in grounds]
    assert ends[0] == (0, 1) and ends[1] == (1, 2) and ends[2][0] > 2
    assert bars[0].get_x() == pytest.approx(1.5)
    assert 2 < bars[1].get_x() < ends[2][0] and ends[2][1] < bars[2].get_x() < lane.get_xlim()[1]
    assert [bar.get_height() for bar in bars] == [1, 1, 1]  # of two ranks, each sends half of 800, or all of 400
    assert len({bar.get_facecolor() for bar in bars}) == 3
    assert "1 reduce-scatter, 1 all-reduce, 1 all-gather" in picture.alt
