"""The planned runs of `tests/benchmarks/gpu_runs.py` would start on the GPUs that they are planned for."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import gpu_runs
import megatron_parser
import pytest
from machines import EIGHT_H200
from records import DATA, make_run

from helpers import runs
from helpers.recipes import preflight

PLANNED = gpu_runs.planned()


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_run_passes_preflight(name):
    found = preflight.check(PLANNED[name], None, EIGHT_H200)
    assert [problem for problem in found if problem.severity == "error"] == []


def test_megatron_knows_every_flag_of_them():
    words = {word for recipe in PLANNED.values() for word in recipe.flags(DATA, EIGHT_H200) if word.startswith("--")}
    assert words - megatron_parser.flags() == set()


LABELS = ("h200", "h200/twins", "h200/steps", "h200/pipeline", "h200/sharded")
LABELS += tuple(f"h100-80gb-hbm3{folder}" for folder in ("", "/twins", "/layouts", "/pipeline", "/sharded"))
RECORDED = [
    (f"{label}/{run.path.stem}".partition("/")[2], run) for label in LABELS for run in runs.recorded(label)
]  # name on the list, run


@pytest.mark.parametrize(("name", "run"), RECORDED, ids=[f"{run.machine} {name}" for name, run in RECORDED])
def test_a_record_can_be_made_again(name, run):
    """All but the schedule, which decides what is learned, is as the list has it now."""
    made, planned = (json.loads(json.dumps(asdict(one))) for one in (run.recipe, PLANNED[name]))
    for part in ("model", "layout", "precision", "batch", "speed", "extra_flags"):
        assert made[part] == planned[part]


def test_a_run_says_how_many_gpus_it_takes():
    sizes = {name: recipe.layout.world_size for name, recipe in PLANNED.items()}
    assert sizes["gpt3_345m_7_one_loss_kernel"] == 1 and sizes["llama3_8b_bf16_dp2"] == 2
    assert sizes["llama3_8b_tensorwise_dp8"] == 8 and sizes["gpt_8_3b_20_tp8_sp_graph"] == 8


def test_runs_are_dealt_to_the_gpus_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f6c")
    assert gpu_runs.devices() == ["2", "GPU-8f6c"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpu_runs, "here", lambda: EIGHT_H200)
    assert gpu_runs.devices() == list("01234567")


@pytest.fixture
def dealt(monkeypatch, tmp_path):
    """`schedule` with workers that stand in for runs: called with name=GPUs, it returns what began beside what."""
    beside, going = {}, []

    class Worker:
        def __init__(self, command, env, **_):
            self.name, self.looks, self.returncode = command[command.index("--one") + 1], 3, 0
            going.append(self.name)
            beside[self.name] = (going[:-1], len(env["CUDA_VISIBLE_DEVICES"].split(",")))

        def poll(self):
            self.looks -= 1
            if self.looks == 0:
                going.remove(self.name)
            return None if self.looks > 0 else 0

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr(gpu_runs.subprocess, "Popen", Worker)
    monkeypatch.setattr(gpu_runs.time, "sleep", lambda _: None)

    def schedule(**runs):
        planned = {name: SimpleNamespace(layout=SimpleNamespace(world_size=gpus)) for name, gpus in runs.items()}
        monkeypatch.setattr(gpu_runs, "planned", lambda: planned)
        options = argparse.Namespace(seconds=60, least_seconds=0, recorded=tmp_path, smoke=False)
        gpu_runs.schedule(list(runs), options)
        return beside

    return schedule


def test_a_run_of_several_gpus_has_the_machine_to_itself(dealt):
    assert dealt(a=1, b=1, two=2, c=1, d=1, four=4) == {
        "a": ([], 1),
        "b": (["a"], 1),
        "two": ([], 2),
        "c": ([], 1),
        "d": (["c"], 1),
        "four": ([], 4),
    }


def test_a_run_that_needs_more_gpus_than_there_are_is_left_out(dealt, capsys):
    assert list(dealt(eight=8, a=1, five=5)) == ["a"]
    assert "GPUs here: 4. Left out, for they need more: eight (8), five (5)." in capsys.readouterr().out


def test_only_what_this_machine_recorded_counts(monkeypatch, tmp_path, capsys):
    for label, name in (("h200", "a"), ("h100", "b")):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{name}.json").touch()
    monkeypatch.setattr(gpu_runs, "planned", lambda: dict.fromkeys("ab"))
    monkeypatch.setattr(gpu_runs, "here", lambda: EIGHT_H200)
    monkeypatch.setattr(sys, "argv", ["gpu_runs.py", "--list", "--recorded", str(tmp_path)])
    gpu_runs.main()
    assert capsys.readouterr().out.split() == ["recorded", "a", "missing", "b"]


def test_a_record_in_a_folder_leaves_the_one_beside_it_alone(tmp_path):
    run = make_run(tmp_path / "run", PLANNED["llama3_8b_bf16_dp2"])
    beside = gpu_runs.keep(run, "llama3_8b_bf16_dp2", tmp_path / "recorded")
    before = beside.read_bytes()
    inside = gpu_runs.keep(run, "twins/llama3_8b_bf16_dp2", tmp_path / "recorded")
    assert inside == beside.parent / "twins" / "llama3_8b_bf16_dp2.json" and beside.read_bytes() == before
    assert runs.read_result(inside).recipe_name == "llama3_8b_bf16_dp2"


def test_hiding_transformer_engine_leaves_no_folder(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/before")
    monkeypatch.setattr(gpu_runs, "here", lambda: EIGHT_H200)
    with gpu_runs.without_transformer_engine() as machine:
        folder, before = os.environ["PYTHONPATH"].split(":")
        assert not machine.transformer_engine and (Path(folder) / "transformer_engine" / "__init__.py").exists()
    assert os.environ["PYTHONPATH"] == before == "/before" and not Path(folder).exists()
