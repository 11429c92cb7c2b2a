from types import SimpleNamespace

import pytest
from machines import ONE_H200, TWO_H200
from records import make_run

from helpers import launch, recipes
from helpers.launch import training
from helpers.lessons import experiments
from helpers.machine import CPU
from helpers.recipes import preflight
from helpers.recipes.preflight import problem as rules


def test_a_sweep_changes_one_setting(tiny_recipe):
    with pytest.raises(TypeError, match="one setting, not 2"):
        experiments.sweep(tiny_recipe, None, lr=(1,), seed=(2,))


def test_a_sweep_ends_where_the_memory_ends(tiny_recipe, monkeypatch, tmp_path, capsys):
    full = SimpleNamespace(cause="The GPU's memory is full.", fix="Lower micro_batch_size.")

    def train(recipe, data, fresh):
        if recipe.batch.micro_batch_size > 2:
            raise launch.TrainingFailed(tmp_path, "failed", 0, "", full, "")
        return recipe.name

    monkeypatch.setattr(launch, "train", train)
    finished = experiments.sweep(tiny_recipe, None, micro_batch_size=(1, 2, 4, 8))
    assert finished == ["tiny_micro_batch_size_1", "tiny_micro_batch_size_2"]
    assert "micro_batch_size = 4 does not fit: The GPU's memory is full." in capsys.readouterr().out


def test_a_sweep_ends_where_preflight_sees_no_room(tiny_recipe, monkeypatch, capsys):
    def train(recipe, data, fresh):
        refused = rules.error("asked", f"{preflight.TOO_LARGE} 200 GB: too much.", "less")
        other = rules.error("asked", "another reason", "less")
        if recipe.batch.micro_batch_size > 4:
            raise preflight.PreflightError([refused, other])
        if recipe.batch.micro_batch_size > 2:
            raise preflight.PreflightError([refused])
        return recipe.name

    monkeypatch.setattr(launch, "train", train)
    assert len(experiments.sweep(tiny_recipe, None, micro_batch_size=(1, 2, 4))) == 2
    assert "micro_batch_size = 4 does not fit, so it was not started. One rank" in capsys.readouterr().out
    with pytest.raises(preflight.PreflightError, match="another reason"):
        experiments.sweep(tiny_recipe, None, micro_batch_size=(8,))


@pytest.mark.train
def test_the_floor_is_timed_in_one_process_at_every_size(monkeypatch, tiny_recipe):
    monkeypatch.setattr(experiments, "CPU_SIZES", (1, 64))
    found = experiments.floor(tiny_recipe.with_(save_interval=5), None, CPU)
    one, many = found.sizes
    assert (one.size, many.size, found.sequence_length, found.out_of_memory) == (1, 64, 16, None)
    assert one.launches > 100 and many.launches == pytest.approx(one.launches, rel=0.05)
    assert 0 < one.milliseconds < many.milliseconds < 64 * one.milliseconds
    assert one.busy_milliseconds is None and 0.1 < found.launch_microseconds < 1000


def test_a_repeatable_run_is_the_recipe_itself_on_a_cpu_and_deterministic_on_a_gpu():
    recipe = recipes.gpt3_345m()
    assert experiments.repeatable(recipe, CPU) == recipe
    steady = experiments.repeatable(recipe, ONE_H200)
    assert "--deterministic-mode" in steady.flags(None, ONE_H200) and not steady.speed.cuda_graph
    assert "--cross-entropy-loss-fusion" not in steady.flags(None, ONE_H200)
    assert [problem for problem in preflight.check(steady, None, ONE_H200) if problem.severity == "error"] == []


def test_the_8b_of_notebook_04_passes_preflight_on_two_h200s():
    recipe = recipes.llama3_8b().with_(processes=2, train_iters=20, lr_warmup_iters=10).scaled_to(TWO_H200)
    assert recipe.layout.data_parallel == 2 and recipe.model == recipes.llama3_8b().model
    for one in (recipe, recipe.with_(fp8_format=None)):
        assert not [problem for problem in preflight.check(one, None, TWO_H200) if problem.severity == "error"]


def test_what_is_looked_into_has_plain_kernels(monkeypatch):
    """Megatron itself refuses the loss kernel that our entry script lets in, and a recorded step says nothing."""
    asked = []
    monkeypatch.setattr(launch, "ranks", lambda *words, **_: asked.extend(words) or "")
    monkeypatch.setattr(experiments.layer, "findings", lambda output: {})
    recipe = recipes.gpt3_345m().with_(tensor_parallel=2)
    experiments.look_inside(recipe, None, {}, {"sequence_parallel": True}, machine=TWO_H200)
    assert asked.count("--and") == asked.count("--sequence-parallel") == 1
    assert asked.index("--and") < asked.index("--sequence-parallel"), "the second model's flags stand behind"
    assert "--tensor-model-parallel-size" in asked
    assert {"--cross-entropy-loss-fusion", "--cuda-graph-impl"} <= set(recipe.flags(None, TWO_H200)) - set(asked)


def test_other_failures_are_not_swallowed(tiny_recipe, monkeypatch, tmp_path):
    def train(recipe, data, fresh):
        raise launch.TrainingFailed(tmp_path, "failed", 0, "", None, "")

    monkeypatch.setattr(launch, "train", train)
    with pytest.raises(launch.TrainingFailed):
        experiments.sweep(tiny_recipe, None, micro_batch_size=(1,))


def test_an_interrupt_while_the_plug_waits_stops_the_run(tiny_recipe, monkeypatch, tmp_path):
    stopped = []

    def interrupt(_seconds):
        raise KeyboardInterrupt

    run = make_run(tmp_path / "run", tiny_recipe)
    monkeypatch.setattr(launch, "train", lambda *_args, **_kwargs: run)
    monkeypatch.setattr(training.control, "state", lambda _directory: "running")
    monkeypatch.setattr(training.control, "stop", stopped.append)
    monkeypatch.setattr(training.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        experiments.pull_the_plug(tiny_recipe.with_(save_interval=5), None, step=8)
    assert stopped == [run.path]


def test_a_run_that_ends_before_its_plug_is_pulled_is_told(tiny_recipe, monkeypatch, tmp_path):
    run = make_run(tmp_path / "run", tiny_recipe)
    monkeypatch.setattr(launch, "train", lambda *_args, **_kwargs: run)
    with pytest.raises(RuntimeError, match="ended by itself, before it could be killed at step 8"):
        experiments.pull_the_plug(tiny_recipe.with_(save_interval=5), None, step=8)


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"save_interval": 5}, 31, "(step=31): the run ends after step 30, and nothing is left to kill"),
        ({"save_interval": 5, "exit_interval": 10}, 12, "the run ends after step 10"),
        ({}, 8, "save_interval=None saves no checkpoint, so what is killed could not be picked up"),
        ({"train_iters": "30"}, 8, "train_iters='30'"),
    ],
)
def test_a_plug_that_could_not_be_pulled_is_told_before_the_start(tiny_recipe, changes, step, words, monkeypatch):
    monkeypatch.setattr(launch, "train", lambda *_args, **_kwargs: pytest.fail("it was started"))
    with pytest.raises(ValueError) as refused:
        experiments.pull_the_plug(tiny_recipe.with_(**changes), None, step)
    assert words in str(refused.value)


def test_a_run_is_not_watched_for_a_step_that_it_will_not_reach(tiny_recipe, tmp_path):
    run = make_run(tmp_path / "run", tiny_recipe)
    with pytest.raises(ValueError, match=r"launch.follow\(kill_at=31\): the run ends after step 30"):
        launch.follow(run, kill_at=31)
