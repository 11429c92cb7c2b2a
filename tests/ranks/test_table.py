"""Every change to Megatron stands in one table, is made only where it was asked for, and the log says so."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from machines import TWO_H200
from real_runs import PROJECT, environment
from records import DATA

from helpers import recipes, runs
from helpers.ranks.repairs import gradient_fusion, repair, table
from helpers.ranks.repairs.__main__ import told
from helpers.recipes.changes import ACTS_ON

RECIPE = recipes.gpt3_345m().with_(stock=False)
GELU = next(row for row in table.REPAIRS if row.name == "gelu")

# Says what each repair would replace; `apply()` runs as on a GPU, but no change touches Megatron: their modules tell.
SPY = """
import importlib, json, os, sys, types
import torch
torch.cuda.is_available = lambda: True
os.environ.pop("MEGATRON_CPU", None)
from helpers.ranks.repairs import repair, table
made = []
for row in table.REPAIRS:
    if row.module:
        importlib.import_module(f"helpers.ranks.repairs.{row.module}").apply = lambda name=row.name: made.append(name)
table.installed = lambda package: "2.20.2"
repair.Repair.standing = lambda self: "as seen"
table.apply()
print(json.dumps(made))
"""


def applied(changes: str) -> tuple[list[str], str]:
    """Which repairs `apply()` makes on a GPU machine for MEGATRON_TOUR_CHANGES, and what it says first."""
    given = environment() | {table.VARIABLE: changes}
    done = subprocess.run([sys.executable, "-c", SPY], cwd=PROJECT, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, made = done.stdout.splitlines()
    return json.loads(made), "\n".join(said)


def test_without_the_variable_nothing_but_the_needed_is_made():
    made, said = applied("")
    assert made == ["compile_helpers", "adamw_resume", "fsdp_checkpoint"]
    assert "Changes to Megatron: none, this is stock." in said


@pytest.mark.parametrize("change", table.CHANGES)
def test_each_change_can_be_made_alone(change):
    made, said = applied(change)
    assert sorted(made) == sorted(["compile_helpers", "adamw_resume", "fsdp_checkpoint", change])
    assert f"Changes to Megatron: {change}." in said


def test_all_of_them_together_in_the_order_of_the_table():
    made, said = applied(" ".join(reversed(table.CHANGES)))
    assert made == [row.name for row in table.REPAIRS if row.module]
    assert f"Changes to Megatron: {', '.join(table.CHANGES)}." in said


def test_megatron_finds_the_stand_in_of_apexs_kernel_when_it_is_imported():
    """It looks once, when its layers are imported: what else is applied must not import them before."""
    program = SPY.split("made = []")[0] + (
        "table.installed = lambda package: '2.20.2'\n"
        "repair.Repair.standing = lambda self: 'as seen'\n"
        "table.apply()\n"
        "from megatron.core.tensor_parallel import layers\n"
        "assert layers._grad_accum_fusion_available"
    )
    given = environment() | {table.VARIABLE: "gradient_fusion"}
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_name_that_is_none_is_refused_before_anything_is_made(monkeypatch):
    monkeypatch.setenv(table.VARIABLE, "gelu glue")
    with pytest.raises(SystemExit, match="names glue. There are: gradient_fusion, gelu, placement"):
        table.apply()


def test_a_recipe_asks_for_what_acts_in_it():
    def asked(recipe):
        return recipe.command(DATA, TWO_H200).environment.get(table.VARIABLE, ("",))[0].split()

    assert asked(RECIPE) == ["gradient_fusion", "gelu", "split", "loss_kernel"]
    assert asked(RECIPE.with_(use_cpu_initialization=True))[1:3] == ["gelu", "placement"]
    assert asked(RECIPE.with_(without=("gelu", "split"))) == ["gradient_fusion", "loss_kernel"]
    assert asked(recipes.llama3_8b().with_(processes=2, stock=False)) == [
        "gradient_fusion",
        "split",
        "cast",
        "loss_kernel",
    ]
    assert asked(RECIPE.with_(stock=True)) == []


@pytest.mark.parametrize("row", [row for row in table.REPAIRS if row.records], ids=lambda row: row.name)
def test_what_a_change_is_worth_is_what_its_two_records_say(row):
    """With it and without it, in one session on one host."""
    speeds = [runs.recorded("h200", name).figures()["tokens/s/GPU"] for name in row.records]
    assert row.speed.startswith(f"{speeds[0] / speeds[1] - 1:.1%}".replace("%", " %"))


def test_the_rows_are_whole():
    assert set(ACTS_ON) == set(table.CHANGES) and len({row.name for row in table.REPAIRS}) == len(table.REPAIRS)
    for row in table.REPAIRS:
        assert row.kind in (repair.NEEDED, repair.CHANGE)
        assert row.why.endswith(".") and row.numbers and row.speed and row.seen
        assert all(len(seen) == 12 for seen in row.replaces.values()) and (row.replaces or row.name == "cpu")
        assert callable(row.load().apply) if row.module else row.kind == repair.NEEDED
        assert row.kind == repair.NEEDED or row.name in told(row, {}) and row.why.split()[0] in told(row, {})


@pytest.mark.parametrize("row", [row for row in table.REPAIRS if not row.only_with], ids=lambda row: row.name)
def test_what_it_replaces_is_still_there(row):
    """For the versions that are pinned; those that need Transformer Engine are looked at where it is installed."""
    assert row.standing() == repair.AS_SEEN


@pytest.mark.parametrize("row", [row for row in table.REPAIRS if row.only_with], ids=lambda row: row.name)
def test_what_it_replaces_in_transformer_engine_is_still_there(row):
    if repair.installed(row.only_with) is None:
        pytest.skip(f"{row.only_with} is not installed")
    assert row.standing() == repair.AS_SEEN


def test_an_unknown_version_with_the_same_source_keeps_its_repair():
    newer = replace(GELU, seen={"megatron-core": "0.20.0"})
    assert table.why_off(newer, on_cpu=False, wanted=("gelu",)) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replaces": {"megatron.core.fusions.fused_bias_gelu:bias_gelu": "0" * 12}}, "changed since"),
        ({"replaces": {"megatron.core.fusions.fused_bias_gelu:no_such_function": "0" * 12}}, "gone"),
        ({"replaces": {"no_such_package.module:function": "0" * 12}}, "gone"),
    ],
)
def test_an_unknown_version_that_reads_otherwise_stays_off_and_is_named(changes, says):
    newer = replace(GELU, seen={"megatron-core": "0.20.0"}, **changes)
    off = table.why_off(newer, on_cpu=False, wanted=("gelu",))
    assert off == f"what it replaces is {says} in megatron-core 0.19.2"
    assert f"Left out: gelu ({off})." in table.said(
        False, {row.name: off if row == GELU else None for row in table.REPAIRS}
    )


def test_upstreams_mending_is_noticed(monkeypatch):
    monkeypatch.setattr(GELU.load(), "mended", lambda: True)
    assert GELU.standing() == repair.MENDED


@pytest.fixture
def no_kernel():
    """No module of the name of apex's kernel, before and after."""
    sys.modules.pop(gradient_fusion.KERNEL, None)
    yield
    sys.modules.pop(gradient_fusion.KERNEL, None)


def test_apexs_own_kernel_is_never_shadowed(tmp_path, monkeypatch, no_kernel):
    (tmp_path / f"{gradient_fusion.KERNEL}.py").write_text("is_apex = True")
    monkeypatch.syspath_prepend(tmp_path)
    gradient_fusion.apply()
    assert importlib.import_module(gradient_fusion.KERNEL).is_apex


def test_without_apex_ours_stands_in(no_kernel):
    gradient_fusion.apply()
    assert importlib.import_module(gradient_fusion.KERNEL) is gradient_fusion


def test_importing_the_entry_script_changes_nothing():
    program = (
        "from megatron.core.fusions import fused_bias_gelu\n"
        "from megatron.core.datasets import utils\n"
        "before = fused_bias_gelu.bias_gelu, utils.compile_helpers\n"
        "import helpers.ranks.pretrain_gpt\n"
        "assert before == (fused_bias_gelu.bias_gelu, utils.compile_helpers)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
