"""`stock` and `without`: what a recipe asks of Megatron, what is refused, and which run a stock launch picks up."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from machines import H100, ONE_3090, TWO_H200
from real_runs import PROJECT, environment
from records import DATA, make_run

from helpers import launch, recipes, runs
from helpers.machine import CPU, Machine
from helpers.machine.switches import STOCK
from helpers.processes import control, run_directory
from helpers.processes.run_directory import provenance, write_command
from helpers.ranks.repairs import table
from helpers.recipes import accounting, preflight
from helpers.recipes.changes import acting

GPT, LLAMA = (recipe.with_(stock=False) for recipe in (recipes.gpt3_345m(), recipes.llama3_8b()))
TWO_H100 = Machine(gpus=(H100, H100), transformer_engine=True)
ON_TWO = LLAMA.with_(tensor_parallel=2, sequence_parallel=True)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(STOCK, raising=False)


def flags(recipe, machine=TWO_H200):
    return recipe.flags(DATA, machine)


def test_stock_makes_none_of_the_changes_and_says_so_in_its_flags():
    assert acting(GPT.with_(stock=True), TWO_H200) == ()
    stock = flags(GPT.with_(stock=True))
    assert "--no-gradient-accumulation-fusion" in stock and "--no-gradient-accumulation-fusion" not in flags(GPT)
    assert stock[stock.index("--cross-entropy-fusion-impl") + 1] == "native"


def test_the_variable_does_what_the_field_does(monkeypatch):
    monkeypatch.setenv(STOCK, "1")
    by_variable = recipes.gpt3_345m()
    assert by_variable == GPT.with_(stock=True) and "stock: none of our changes" in str(by_variable)
    assert not by_variable.with_(stock=False).stock
    recorded = runs.recorded("h200", "gpt3_345m_8_batch_128")
    assert not recorded.recipe.stock, "a record stays what it was"


def test_one_change_alone_by_name():
    without = GPT.with_(without=("gelu",))
    assert acting(without, TWO_H200) == ("gradient_fusion", "split", "loss_kernel")
    assert flags(without) == flags(GPT)
    assert "--no-gradient-accumulation-fusion" in flags(GPT.with_(without=("gradient_fusion",)))


def test_they_are_part_of_what_a_run_is():
    seen = {r.fingerprint(DATA) for r in (GPT, GPT.with_(stock=True), GPT.with_(without=("gelu",)))}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("recipe", "machine", "words"),
    [
        (GPT.with_(without=("glue",)), TWO_H200, ["without=('glue',)", "gelu", "loss_kernel"]),
        (GPT.with_(without="gelu"), TWO_H200, ["without='gelu'", "tuple"]),
        (GPT.with_(stock="yes"), TWO_H200, ["stock='yes'"]),
        (GPT.with_(stock=True, use_cpu_initialization=True), TWO_H200, ["use_cpu_initialization", "first broadcast"]),
        (GPT.with_(without=("placement",), use_cpu_initialization=True), TWO_H200, ["use_cpu_initialization"]),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_words(recipe, machine, words):
    with pytest.raises(preflight.PreflightError) as refused:
        preflight.refuse(preflight.check(recipe, None, machine))
    assert all(word in str(refused.value) for word in words)


def test_on_a_cpu_the_stand_in_stays_and_preflight_says_so():
    (told,) = preflight.check(GPT.scaled_to("cpu").with_(stock=True), None, CPU)
    assert told.severity == "warning" and "ranks/cpu" in told.why


def test_what_the_shell_has_exported_changes_no_run(tmp_path, monkeypatch):
    """By its changes a run is known, so that the script names them itself: a stock run stays one."""
    monkeypatch.setenv(table.VARIABLE, "gelu")
    for recipe, changes in ((GPT.with_(stock=True), ""), (GPT, "gradient_fusion gelu split loss_kernel")):
        asked = recipe.command(DATA, TWO_H200)
        script = write_command(tmp_path, "run", ["true"], asked.environment, {}).read_text()
        assert f'export {table.VARIABLE}="{changes}"  #' in script
        assert provenance(TWO_H200, asked.environment)["variables"][table.VARIABLE] == changes


def test_a_change_that_would_stay_off_is_not_counted_on(monkeypatch):
    """Or its flag would be left out for a GEMM that is not there."""
    monkeypatch.setattr(table, "would_be_made", lambda name: name != "gradient_fusion")
    assert "gradient_fusion" not in acting(GPT, TWO_H200) and "--no-gradient-accumulation-fusion" in flags(GPT)


def test_several_runs_are_named_by_it(tmp_path):
    one = make_run(tmp_path / "a" / "1", GPT)
    other = make_run(tmp_path / "a" / "2", GPT.with_(stock=True))
    assert runs.labels([one, other]) == ["ours", "stock"]


# ---- the plan counts what a CUDA graph keeps -----------------------------------------------------------------------
def gigabytes(recipe) -> float:
    return sum(accounting.memory(recipe, TWO_H100).values()) / 1e9


def test_a_cuda_graphs_pool_is_planned():
    """Measured on two H100s: eager 72.1 GB; with the graph out of memory, 15.5 to 19.4 GB in its pools. bf16, whose
    optimizer lays nothing out for its step, ran with the graph in the 60.6 GB of its eager step."""
    eager = gigabytes(ON_TWO.with_(cuda_graph=False))
    assert eager == pytest.approx(73.3, abs=0.1)
    assert 15.5 <= gigabytes(ON_TWO) - eager <= 19.4
    bf16 = ON_TWO.with_(fp8_format=None)
    assert gigabytes(bf16) == gigabytes(bf16.with_(cuda_graph=False)) == pytest.approx(60.6, abs=0.1)


def test_preflight_refuses_that_graph_and_names_the_way_out():
    with pytest.raises(preflight.PreflightError, match=r"cuda_graph=False \(saves 17.0 GB, which fits\)"):
        preflight.refuse(preflight.check(ON_TWO, None, TWO_H100))
    assert not [p for p in preflight.check(ON_TWO.with_(cuda_graph=False), None, TWO_H100) if p.severity == "error"]


def test_scaled_to_leaves_the_graph_out_by_itself():
    scaled = ON_TWO.scaled_to(TWO_H100)
    assert scaled.model == LLAMA.model and scaled.name == "llama3_8b" and not scaled.speed.cuda_graph


@pytest.mark.parametrize("machine", [ONE_3090, "cpu"])
def test_a_model_made_smaller_does_not_bear_the_whole_ones_name(machine):
    assert LLAMA.scaled_to(machine).name == "llama3_8b_small"
    assert GPT.scaled_to(ONE_3090).name == "gpt3_345m"  # whole


# ---- every flag is Megatron's --------------------------------------------------------------------------------------
PARSE = """
import argparse, json, sys
from helpers.ranks.cpu import device
device.switch_on()
from megatron.training.arguments import add_megatron_arguments
parser = add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False))
for words in json.load(sys.stdin):
    parser.parse_args(words)
print("parsed")
"""


def test_every_flag_of_every_recipe_is_taken_by_megatrons_own_parser():
    every = [GPT, recipes.gpt3_857m(), recipes.upstream_345m_label(), LLAMA, ON_TWO]
    every += [LLAMA.with_(processes=2, fp8_recipe=recipe) for recipe in ("delayed", "blockwise", "mxfp8")]
    every += [
        GPT.with_(wandb_project="w", recompute="full"),
        GPT.with_(tensor_parallel=2, overlap_tensor_parallel=True),
    ]
    every += [GPT.with_(pipeline_parallel=2, num_experts=4, expert_parallel=2)]
    every += [recipe.scaled_to("cpu") for recipe in every]
    bare = replace(TWO_H200, transformer_engine=False)
    asked = [
        recipe.with_(stock=stock).flags(data, machine)
        for recipe in every
        for stock in (False, True)
        for data in (None, DATA)
        for machine in (CPU, TWO_H200, bare)
    ]
    program = [sys.executable, "-c", PARSE]
    done = subprocess.run(
        program, input=json.dumps(asked), cwd=PROJECT, env=environment(), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["parsed"], done.stderr[-2000:]


# ---- a stock line is a stock line ----------------------------------------------------------------------------------
FILES = ("pretrain_gpt.py", "gpt_builders.py", "model_provider.py")
VERSION = "core_v0.19.0"


@pytest.fixture(scope="module")
def nvidias_script(tmp_path_factory) -> Path:
    """NVIDIA's own three files, alone in a folder: their clone's `megatron/` would stand before the wheel's."""
    clone = os.environ.get("MEGATRON_LM")
    if not clone:
        pytest.skip(
            "MEGATRON_LM names no clone of Megatron-LM (or bare git directory) to take its pretrain_gpt.py from"
        )
    folder = tmp_path_factory.mktemp("nvidia")
    for name in FILES:
        shown = subprocess.run(["git", "-C", clone, "show", f"{VERSION}:{name}"], capture_output=True, check=True)
        (folder / name).write_bytes(shown.stdout)
    return folder / FILES[0]


@pytest.mark.train
@pytest.mark.parametrize("model", ["gpt", "llama"])
def test_a_stock_line_trains_nvidias_own_script_to_the_same_losses(model, nvidias_script, tiny_recipe, small_corpus):
    recipe = tiny_recipe if model == "gpt" else LLAMA.scaled_to("cpu").with_(
        num_layers=2, hidden_size=64, ffn_hidden_size=96, sequence_length=64, vocab_size=512, train_iters=12
    )  # fmt: skip
    stock = recipe.with_(stock=True, name=f"{model}_stock")
    theirs = launch.train(stock, small_corpus, machine=CPU, fresh=True, entry_script=nvidias_script)
    ours = launch.train(recipe.with_(name=f"{model}_ours"), small_corpus, machine=CPU, fresh=True)
    assert len(ours.losses) == recipe.schedule.train_iters and ours.losses.equals(theirs.losses)
    assert theirs.recipe.stock and not ours.recipe.stock
    assert json.loads((theirs.path / "result.json").read_text())["recipe"]["stock"] is True


def test_a_stock_launch_never_picks_up_a_changed_run(tiny_recipe, small_corpus, tmp_path):
    both = (tiny_recipe.with_(stock=stock) for stock in (False, True))
    changed, stock = (preflight.identity(recipe, small_corpus, None) for recipe in both)
    begun = run_directory.made(tmp_path / "20260101-000000")
    (begun / "recipe.json").write_text(json.dumps(changed))
    control.write_status(begun, state="stopped", launch=1, processes=1)
    with run_directory.claim(tmp_path, stock, False) as (taken, _):
        assert taken != begun
    with run_directory.claim(tmp_path, changed, False) as (taken, _):
        assert taken == begun


def test_the_appendix_lists_every_change_with_what_it_is_worth():
    listed = recipes.changes.listed()
    assert tuple(listed.index) == table.CHANGES
    assert all(listed["why"]) and all(listed["worth"]) and all(listed["to the numbers"])
    assert "SelfAttention.get_query_key_value_tensors" in listed.loc["split", "replaces"]


def test_what_is_installed_is_looked_up_once_a_change(monkeypatch):
    """A search asks thousands of times, and where Transformer Engine is installed each answer reads its sources."""
    asked = []
    monkeypatch.setattr(table, "installed", lambda package: "2.20.2")
    monkeypatch.setattr(table, "why_off", lambda repair, **_: asked.append(repair.name))
    table.would_be_made.cache_clear()
    try:
        recipe = recipes.llama3_8b()
        assert acting(recipe, None) == acting(recipe, None)
    finally:
        table.would_be_made.cache_clear()
    assert asked
    assert len(asked) == len(set(asked))
