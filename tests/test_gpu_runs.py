"""The planned runs of `tests/benchmarks/gpu_runs.py` would start on the GPUs that they are planned for."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from test_recipes import DATA, H200

from helpers import diagnosis, preflight, runs
from helpers.machine import Machine

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import gpu_runs

PLANNED = gpu_runs.planned()
EIGHT = Machine(gpus=(H200,) * 8, transformer_engine=True)


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_run_passes_preflight(name):
    found = preflight.check(PLANNED[name], None, EIGHT)
    assert [problem for problem in found if problem.severity == "error"] == []


def test_megatron_knows_every_flag_of_them():
    words = {word for recipe in PLANNED.values() for word in recipe.flags(DATA, EIGHT) if word.startswith("--")}
    assert words - set(diagnosis.megatron_flags()) == set()


@pytest.mark.parametrize("run", runs.recorded("h200"), ids=lambda run: run.path.stem)
def test_a_record_can_be_made_again(run):
    """All but the schedule, which decides what is learned, is as the list has it now."""
    planned = json.loads(json.dumps(asdict(PLANNED[run.path.stem])))
    for part in ("model", "layout", "precision", "batch", "speed", "extra_flags"):
        assert run.recipe[part] == planned[part]


def test_a_run_says_how_many_gpus_it_takes():
    sizes = {name: recipe.layout.world_size for name, recipe in PLANNED.items()}
    assert sizes["gpt3_345m_7_one_loss_kernel"] == 1 and sizes["llama3_8b_bf16_dp2"] == 2
    assert sizes["llama3_8b_tensorwise_dp8"] == 8 and sizes["gpt_8_3b_20_tp8_sp_graph"] == 8


def test_runs_are_dealt_to_the_gpus_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f6c")
    assert gpu_runs.devices() == ["2", "GPU-8f6c"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpu_runs, "here", lambda: EIGHT)
    assert gpu_runs.devices() == list("01234567")
