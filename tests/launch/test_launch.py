"""`launch.train`, `follow` and `ranks` from the learner's side, with real training on the CPU."""

import contextlib
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jupyter_client
import nbclient
import nbformat
import psutil
import pytest
from machines import BARE_H200
from patience import HANG_SECONDS, survivors, wait_for
from records import make_run

from helpers import launch, machine, runs
from helpers.launch import live
from helpers.machine import CPU, PROJECT
from helpers.processes import checkpoints, control, diagnosis, logs, run_directory
from helpers.recipes import preflight

STEP = (
    " [2026-11-23 09:13:20.000000] iteration {step:8d}/      20 | consumed samples:           {step:d} |"
    " elapsed time per iteration (ms): 100.0 | throughput per GPU (TFLOP/s/GPU): 0.0 | learning rate: 2.0E-04 |"
    " global batch size:     8 | lm loss: {loss:.6E} | loss scale: 1.0 | grad norm: 1.0 |\n"
)


# ---- what is shown -------------------------------------------------------------------------------------------------
def test_a_step_line_is_read():
    step = logs.parse_step("[rank 1] " + STEP.format(step=7, loss=5.25))
    assert step == logs.Step(7, 20, 100.0, 8, 5.25)
    assert logs.parse_step(STEP.format(step=7, loss=5.25).replace("lm loss: 5.250000E+00 |", "")).loss is None
    assert logs.parse_step("> building train, validation, and test datasets ...") is None


def test_progress_says_step_loss_speed_and_time_left():
    progress = live.Progress(sequence_length=64)
    assert progress.line().startswith("starting")
    progress.hear("".join(STEP.format(step=step, loss=6 - step / 10) for step in range(1, 11)))
    assert progress.line() == "step 10/20 · loss 5.000 · 5,120 tokens/s · 1 s left"
    progress.hear("saving checkpoint at iteration 10")
    assert progress.line().endswith("saving a checkpoint")


def test_progress_takes_megatrons_mean_of_the_first_two_steps_apart():
    progress = live.Progress(sequence_length=64)
    progress.hear(STEP.format(step=1, loss=6.0) + STEP.format(step=2, loss=5.5) + STEP.format(step=3, loss=4.5))
    assert progress.losses == pytest.approx([6.0, 5.0, 4.5])


def test_progress_forgets_the_steps_that_a_resumed_run_takes_again():
    progress = live.Progress(sequence_length=64)
    progress.hear("".join(STEP.format(step=step, loss=5) for step in range(1, 9)))
    progress.hear(f"{logs.LAUNCH_MARK}2 ===\n" + STEP.format(step=5, loss=4.0) + STEP.format(step=6, loss=3.5))
    assert progress.steps == [1, 2, 3, 4, 5, 6]
    assert progress.losses[-2:] == pytest.approx([4.0, 3.0])


def test_a_resumed_cell_shows_nothing_of_the_last_launch_until_its_own_first_step():
    """Until then no step is taken: it loads, and may fail before it takes one."""
    progress = live.Progress(sequence_length=64)
    progress.hear("".join(STEP.format(step=step, loss=6 - step / 10) for step in range(1, 13)))
    progress.hear(f"{logs.LAUNCH_MARK}2 of runs/x ===\n")
    assert progress.line().startswith("starting …")
    assert progress.summary().startswith("no new step: 12 had been taken before")
    assert "value=" not in live.bar(progress) and not progress.steps
    progress.hear(" loading distributed checkpoint from runs/x/checkpoints at iteration 10\n")
    assert progress.line().startswith("loading the checkpoint …")
    progress.hear(STEP.format(step=11, loss=4.0))
    assert progress.line().startswith("step 11/20 · loss 4.000")
    assert progress.steps == list(range(1, 12)) and progress.losses[9] == pytest.approx(5.0)


def test_a_stopped_supervisor_is_said_where_the_progress_stood():
    progress = live.Progress(sequence_length=64)
    progress.hear(STEP.format(step=1, loss=6.0))
    progress.standstill = control.SUSPENDED
    assert "supervisor is stopped (SIGSTOP)" in progress.line() and "left" not in progress.line()


def test_a_resume_from_step_1_forgets_the_whole_old_curve():
    progress = live.Progress(sequence_length=64)
    progress.hear("".join(STEP.format(step=step, loss=5) for step in range(1, 12)))
    progress.hear(f"{logs.LAUNCH_MARK}2 of runs/x ===\n" + STEP.format(step=1, loss=6.0))
    assert progress.steps == [1] and progress.losses == [6.0]


def test_a_third_launch_after_one_without_a_step_keeps_what_the_first_took():
    progress = live.Progress(sequence_length=64)
    progress.hear("".join(STEP.format(step=step, loss=5) for step in range(1, 11)))
    progress.hear(f"{logs.LAUNCH_MARK}2 of runs/x ===\n{logs.LAUNCH_MARK}3 of runs/x ===\n")
    progress.hear(STEP.format(step=11, loss=4.0))
    assert progress.steps == list(range(1, 12))


@pytest.fixture
def drawn(monkeypatch):
    """The last step of each figure that a `JupyterView` draws, with a clock that the test moves."""
    view, clock, steps = live.JupyterView(), [0.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(view, "_show_line", lambda *_: None)
    monkeypatch.setattr(view, "_draw", lambda progress, folded: steps.append(progress.steps[-1]))
    return view, clock, steps


def test_the_first_figure_waits_for_enough_points(drawn):
    view, clock, steps = drawn
    progress = live.Progress(64, 512, last_step=20)
    for step in range(1, 12):
        clock[0] += 3
        progress.hear(STEP.format(step=step, loss=6 - step / 10))
        view.update(progress)
    assert steps == list(range(live.FIRST_FIGURE_STEPS, 12)) and live.FIRST_FIGURE_STEPS >= 5


def test_a_figure_is_drawn_again_only_for_new_steps_and_soon_when_the_ranks_do_not_train(drawn):
    view, clock, steps = drawn
    progress = live.Progress(64, 512, last_step=20)
    progress.hear("".join(STEP.format(step=step, loss=6 - step / 10) for step in range(1, 11)))
    view.update(progress)
    view.figure_seconds = 30  # drawing took two seconds
    clock[0] += 10
    progress.hear(STEP.format(step=11, loss=5.0))
    view.update(progress)
    assert steps == [10]
    progress.hear("saving checkpoint at iteration 11 to x\n")
    view.update(progress)
    clock[0] += 100
    view.update(progress)
    assert steps == [10, 11]


def test_the_live_figure_is_small_and_described():
    progress = live.Progress(64, vocab_size=512)
    progress.hear("".join(STEP.format(step=step, loss=6 - step / 10) for step in range(1, 20)))
    picture = live.LiveFigure(512).draw(progress)
    assert len(picture.png) < 40_000
    assert "ln V = 6.24" in picture.alt
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert titles == ["loss (nats per token)", "tokens/s of all ranks"]


# ---- the run directory -----------------------------------------------------------------------------------------------
@pytest.mark.train
def test_a_finished_run_left_everything(tiny_run):
    assert tiny_run.state == "finished"
    there = {path.name for path in tiny_run.path.iterdir()}
    assert there >= {
        "command.sh", "recipe.json", "environment.json", "log.txt", "status.json", "result.json", "tensorboard",
        "checkpoints",
    }  # fmt: skip
    assert list(tiny_run.losses.index) == list(range(1, 31))
    assert [path.name for path in sorted((tiny_run.path / "checkpoints").glob("iter_*"))] == [
        "iter_0000020", "iter_0000030",
    ]  # fmt: skip


@pytest.mark.train
def test_command_sh_runs_by_itself(tiny_run, tmp_path):
    """A finished run has nothing left to do: the script loads the last checkpoint and ends. In a copy, since it
    evaluates once more, and other tests read this run."""
    copy = shutil.copytree(tiny_run.path, tmp_path / "copy")
    script = copy / "command.sh"
    script.write_text(script.read_text().replace(str(tiny_run.path), str(copy)))
    done = subprocess.run([script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "successfully loaded checkpoint" in done.stdout and "at iteration 30" in done.stdout


@pytest.mark.train
def test_no_secret_is_written(tiny_recipe, small_corpus, tmp_path, monkeypatch, capsys):
    secrets = {"WANDB_API_KEY": "key-of-the-learner-0123456789", "HF_TOKEN": "hf_tokenOfTheLearner"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    recipe = tiny_recipe.with_(train_iters=2, lr_warmup_iters=0, wandb_project="tour")
    run = launch.train(recipe, small_corpus, runs_dir=tmp_path, machine=CPU, predict={"final loss": 5.5})
    assert run.predictions == {"final loss": 5.5}
    assert 'WANDB_MODE="${WANDB_MODE:-offline}"' in (run.path / "command.sh").read_text()
    assert list(run.path.glob("**/offline-run-*")), "W&B wrote its offline run"
    for path in (path for path in run.path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets.values()), path


def test_directories_of_the_same_second_differ(tmp_path):
    found = []
    gate = threading.Barrier(8)

    def make():
        gate.wait()
        found.append(run_directory.new_directory(tmp_path / "recipe"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8 and all(path.is_dir() for path in found)


def old_run(parent, name, state, **status):
    directory = run_directory.made(parent / name)
    (directory / "recipe.json").write_text(json.dumps({"fingerprint": "abc", "entry_script": None}))
    control.write_status(directory, state=state, launch=1, processes=1, **status)
    return directory


@pytest.mark.parametrize(
    ("states", "fresh", "picked"),
    [
        (["stopped"], False, 0),
        (["failed"], False, 0),
        (["running"], False, 0),  # its supervisor is gone
        (["stopped"], True, None),
        (["finished"], False, None),
        (["failed", "finished"], False, None),  # the newest counts
        (["finished", "failed"], False, 1),
    ],
)
def test_which_run_is_picked_up(tmp_path, states, fresh, picked, capsys):
    old = [old_run(tmp_path, f"2026010{day}-000000", state) for day, state in enumerate(states, 1)]
    identity = {"fingerprint": "abc", "entry_script": None}
    with run_directory.claim(tmp_path, identity, fresh) as (directory, lock):
        assert lock is not None
        assert directory == old[picked] if picked is not None else directory not in old
    assert ("Picking up" in capsys.readouterr().out) == (picked is not None)


def put(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    kinds = {"a folder": path.mkdir, "a pipe": lambda: os.mkfifo(path), "a link": lambda: path.symlink_to("/etc/hosts")}
    kinds["a dangling link"] = lambda: path.symlink_to("nowhere")
    kinds.get(content, lambda: path.write_text(content))()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("status.json", "[]", "holds '[]'"),
        ("recipe.json", "null", "holds 'null'"),
        ("recipe.json", '{"name": "recipe", "mod', "begins with"),
        ("recipe.json", "", "is empty"),
        ("recipe.json", '{"model": 5}', "is damaged"),
        ("recipe.json", '{"model": {}, "layout": {}, "batch": {}}', "lacks its schedule"),
        ("recipe.json", "[" * 99_999, "begins with '[[[["),
        ("recipe.json", "a folder", "is a folder"),
        ("recipe.json", "a pipe", "is a pipe"),
        ("recipe.json", "a link", "is a link"),
        ("recipe.json", '{"name": 5}', "holds name=5, which is no text"),
        ("log.txt", "a link", "is a link"),
        ("result.json", "a folder", "is a folder"),
        ("status.json", '{"started": "yesterday"}', "holds started='yesterday', where a number belongs"),
        ("status.json", '{"launch": "two"}', "holds launch='two', where a whole number belongs"),
        ("status.json", '{"state": "lost"}', "holds state='lost', where 'running' or"),
        ("environment.json", '{"machine": "x"}', "holds machine='x', which describes none"),
        ("environment.json", '{"machine": {"gpus": [5]}}', "which describes none"),
        ("log.txt", "a pipe", "is a pipe"),
        (".lock", "a pipe", "is a pipe"),
        (f"checkpoints/{checkpoints.TRACKER}", "a folder", "is a folder"),
        (f"checkpoints/{checkpoints.TRACKER}", "a pipe", "is a pipe"),
        ("checkpoints", "a file", "is no folder"),
        ("tensorboard", "a dangling link", "is no folder"),
        ("environment.json", '{"machine": {"name": []}}', "holds machine.name=[], where a text belongs"),
    ],
    ids=lambda value: value[:30],
)
def test_a_damaged_run_directory_is_told_in_words(name, content, words, tmp_path, capsys):
    directory = old_run(tmp_path / "recipe", "20260101-000000", "stopped")
    run = runs.load(directory)
    put(directory / name, content)
    identity = {"fingerprint": "abc", "entry_script": None}
    with run_directory.claim(tmp_path / "recipe", identity, fresh=False) as (claimed, _):
        assert claimed != directory
    said = capsys.readouterr().out
    assert f"{directory / name} is damaged" in said and words in said and "not picked up" in said
    for look in (lambda: runs.load(directory), lambda: runs.latest("recipe", tmp_path), lambda: launch.follow(run)):
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            look()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {}}, "model.num_layers is missing"),
        ({"schedule": {"train_iters": "x"}}, "schedule.train_iters is 'x', where a whole number"),
        ({"extra_flags": 5}, "extra_flags is 5, where a tuple"),
        ({"name": None}, "it holds name=None, which is no text"),
    ],
)
def test_a_value_of_another_kind_in_a_recipe_is_named(change, words, tmp_path, tiny_recipe):
    run = make_run(tmp_path / "a", tiny_recipe)
    (run.path / "recipe.json").write_text(json.dumps(run.described | change))
    with pytest.raises(ValueError, match=rf"recipe.json is damaged: {words}"):
        runs.load(run.path)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"predict": 5}, r"\(predict=5\): it takes None, or a dict"),
        ({"predict": ["loss"]}, r"\(predict=list\): it takes None, or a dict"),
        ({"hang_timeout_seconds": "x"}, r"\(hang_timeout_seconds='x'\): it takes a number"),
        ({"hang_timeout_seconds": None}, r"\(hang_timeout_seconds=None\): it takes a number"),
        ({"hang_timeout_seconds": math.nan}, "hang_timeout_seconds=nan"),
        ({"hang_timeout_seconds": -1}, "may be silent"),
        ({"on": "slurm"}, "names no hosts"),
        ({"entry_script": "x" * 300}, "There is no file"),
    ],
)
def test_odd_arguments_are_refused_before_anything_is_written(odd, words, tiny_recipe, small_corpus, tmp_path):
    with pytest.raises((TypeError, preflight.PreflightError), match=words):
        launch.train(tiny_recipe, small_corpus, runs_dir=tmp_path / "runs", machine=CPU, **odd)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("thing", [None, 5, "gpt3_345m", Path("runs"), object()])
def test_what_is_no_run_is_not_followed(thing):
    with pytest.raises(TypeError, match="it takes a run, such as runs.latest"):
        launch.follow(thing)


def test_an_empty_run_directory_is_no_run(tmp_path):
    with pytest.raises(RuntimeError, match="nothing was started there"):
        launch.follow(runs.load(run_directory.new_directory(tmp_path / "recipe")))


def test_another_recipe_is_not_picked_up(tmp_path):
    old = old_run(tmp_path, "20260101-000000", "failed")
    for identity in ({"fingerprint": "other", "entry_script": None}, {"fingerprint": "abc", "entry_script": "mine.py"}):
        with run_directory.claim(tmp_path, identity, False) as (directory, _):
            assert directory != old


def test_a_run_of_another_kernel_is_left_alone(tmp_path):
    old = old_run(tmp_path, "20260101-000000", "running")
    identity = {"fingerprint": "abc", "entry_script": None}
    with control.held(old), run_directory.claim(tmp_path, identity, False) as (directory, lock):
        assert directory != old and lock is not None


def test_a_run_whose_supervisor_is_stopped_is_told_when_another_begins(tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        supervisor = stack.enter_context(subprocess.Popen(["sleep", "3600"]))
        stack.callback(supervisor.kill)  # before it is waited for, whatever fails
        process = psutil.Process(supervisor.pid)
        status = {"pid": process.pid, "create_time": process.create_time()}
        old = old_run(tmp_path, "20260101-000000", "running", **status)
        identity = {"fingerprint": "abc", "entry_script": None}
        for stopped in (False, True):
            if stopped:
                process.suspend()
                wait_for(lambda: control.suspended(old), "its stop")
            with control.held(old), run_directory.claim(tmp_path, identity, False) as (directory, _):
                assert directory != old
                assert ("supervisor is stopped" in runs.load(old).headline) == stopped
            shutil.rmtree(directory)
            assert (f"The run {old} does not end" in capsys.readouterr().out) == stopped


def test_a_detached_run_that_goes_on_is_followed(tmp_path):
    old = old_run(tmp_path, "20260101-000000", "running", detached=True)
    identity = {"fingerprint": "abc", "entry_script": None}
    with control.held(old), run_directory.claim(tmp_path, identity, False) as (directory, lock):
        assert directory == old and lock is None


# ---- refusals and failures -------------------------------------------------------------------------------------------
def test_what_cannot_work_leaves_nothing_behind(tiny_recipe, small_corpus, tmp_path):
    with pytest.raises(preflight.PreflightError):
        launch.train(tiny_recipe.with_(tensor_parallel=3), small_corpus, runs_dir=tmp_path / "runs", machine=CPU)
    assert not (tmp_path / "runs").exists()


@pytest.mark.train
def test_a_failure_names_rank_traceback_cause_and_fix(tiny_recipe, small_corpus, tmp_path):
    """An entry script of the learner's own, without torch's `record`, fails on rank 1."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import os, time\n"
        "def go():\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.')\n"
        "    time.sleep(3600)\n"
        "go()\n"
    )
    recipe = tiny_recipe.with_(tensor_parallel=2)
    with pytest.raises(launch.TrainingFailed) as failed:
        launch.train(recipe, small_corpus, runs_dir=tmp_path, machine=CPU, entry_script=script)
    error = failed.value
    assert error.rank == 1
    assert "in go" in error.traceback and "CUDA out of memory" in error.traceback
    assert error.cause and error.fix and "--micro-batch-size" in str(error)
    assert str(error.run_directory / "log.txt") in str(error)
    assert "site-packages/torch/distributed/run.py" not in error.traceback
    assert runs.load(error.run_directory).state == "failed"


@pytest.mark.train
def test_a_program_that_ends_without_training_has_failed(tiny_recipe, small_corpus, tmp_path):
    (tmp_path / "mine.py").write_text("print('nothing to do')")
    with pytest.raises(launch.TrainingFailed, match="before training was done"):
        launch.train(tiny_recipe, small_corpus, runs_dir=tmp_path, machine=CPU, entry_script=tmp_path / "mine.py")


@pytest.mark.train
@pytest.mark.parametrize(
    ("says", "name", "words"),
    [
        (
            "WARNING: could not find the metadata file /data/gpt/latest_checkpointed_iteration.txt",
            "started from random weights",
            "Megatron could not find the metadata file /data/gpt/latest_checkpointed_iteration.txt and started",
        ),
        (
            ">> '--exit-on-missing-checkpoint' set ... exiting. <<",
            "no checkpoint to load",
            "before training was done",
        ),
    ],
)
def test_a_checkpoint_that_megatron_did_not_find_fails_the_cell(tiny_recipe, small_corpus, tmp_path, says, name, words):
    """Megatron itself goes on from random weights, or ends with exit code 0."""
    seconds = 3600 if "WARNING" in says else 0
    (tmp_path / "mine.py").write_text(f"import time\nprint({says!r}, flush=True)\ntime.sleep({seconds})")
    with pytest.raises(launch.TrainingFailed, match=words) as failed:
        launch.train(tiny_recipe, small_corpus, runs_dir=tmp_path, machine=CPU, entry_script=tmp_path / "mine.py")
    assert failed.value.cause == diagnosis.diagnose(str(failed.value)).cause
    assert diagnosis.diagnose(str(failed.value)).name == name and "Starting the same cell" not in str(failed.value)


@pytest.mark.train
def test_ranks_that_do_not_end_after_training_do_not_fail_the_cell(tiny_recipe, small_corpus, tmp_path, capsys):
    script = tmp_path / "mine.py"
    script.write_text(
        "import os, time\n"
        "if os.environ['RANK'] == '1':\n"
        f"    print({''.join(STEP.format(step=step, loss=6 - step / 10) for step in range(1, 21))!r})\n"
        "    print('[after training is done] datetime: 2026-11-23 09:13:20')\n"
        "time.sleep(3600)\n"
    )
    recipe = tiny_recipe.with_(tensor_parallel=2)
    run = launch.train(
        recipe, small_corpus, runs_dir=tmp_path, machine=CPU, entry_script=script, hang_timeout_seconds=2
    )
    assert run.state == "finished" and (run.path / "result.json").exists()
    assert control.members(run.path) == []
    assert "finished: 20/20 steps" in capsys.readouterr().out
    assert "=== training was done, but the ranks did not end: " in (run.path / "log.txt").read_text()


# ---- interrupting, detaching, following ------------------------------------------------------------------------------
def run_with(tmp_path):
    """The newest run directory under `tmp_path` once it has taken its first step."""

    def with_a_step():
        for log in tmp_path.glob("*/*/log.txt"):
            if any(logs.parse_step(line) for line in log.read_text().splitlines()):
                return runs.load(log.parent)

    return wait_for(with_a_step, "the first step")


@pytest.mark.train
def test_interrupting_the_cell_stops_every_process(tiny_recipe, small_corpus, tmp_path, capsys):
    seen = {}

    def interrupt():
        run = run_with(tmp_path)
        seen["members"] = control.members(run.path)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    recipe = tiny_recipe.with_(train_iters=5000, tensor_parallel=2)
    with pytest.raises(KeyboardInterrupt):
        launch.train(recipe, small_corpus, runs_dir=tmp_path, machine=CPU)
    assert len(seen["members"]) >= 4  # supervisor, torchrun, two ranks
    assert survivors(seen["members"]) == []
    run = run_with(tmp_path)
    assert run.state == "stopped" and control.members(run.path) == []
    out = capsys.readouterr().out
    assert "stopped: " in out and "Stopped." in out


@pytest.mark.train
def test_an_impatient_second_interrupt_stops_the_run_as_well(tiny_recipe, small_corpus, tmp_path, capsys):
    seen = {}

    def interrupt():
        seen["members"] = control.members(run_with(tmp_path).path)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        launch.train(tiny_recipe.with_(train_iters=5000), small_corpus, runs_dir=tmp_path, machine=CPU)
    assert interrupted.value._render_traceback_() == [
        "KeyboardInterrupt: the run is being stopped, and ends within 35 s without this cell."
    ]
    out = capsys.readouterr().out
    assert "being stopped: " in out and "still running" not in out
    assert survivors(seen["members"]) == []


DETACHING = """
from helpers import corpus, launch, recipes
from helpers.machine import CPU
import pickle, sys
recipe, data, where = pickle.load(open(sys.argv[1], "rb"))
launch.train(recipe, data, detach=True, runs_dir=where, machine=CPU)
"""


@pytest.mark.train
def test_a_detached_run_survives_and_is_followed_and_stopped(tiny_recipe, small_corpus, tmp_path, capsys):
    recipe = tiny_recipe.with_(train_iters=5000, exit_interval=150)
    (tmp_path / "what").write_bytes(pickle.dumps((recipe, small_corpus, tmp_path / "runs")))
    subprocess.run([sys.executable, "-c", DETACHING, tmp_path / "what"], cwd=PROJECT, check=True)  # this kernel ends
    run = run_with(tmp_path / "runs")
    assert run.state == "running"
    again = launch.train(recipe, small_corpus, detach=True, runs_dir=tmp_path / "runs", machine=CPU)
    assert again.path == run.path
    assert launch.follow(run).state == "finished"
    assert "150/150 steps" in capsys.readouterr().out

    other = launch.train(
        recipe.with_(exit_interval=5000), small_corpus, fresh=True, detach=True, runs_dir=tmp_path / "more", machine=CPU
    )
    members = control.members(run_with(tmp_path / "more").path)
    other.stop()
    assert survivors(members) == []
    assert other.state == "stopped"


# ---- small programs on ranks -----------------------------------------------------------------------------------------
def test_ranks_returns_what_each_rank_said(tmp_path, monkeypatch):
    (tmp_path / "hello.py").write_text("import os, sys\nprint('rank', os.environ['RANK'], 'of', *sys.argv[1:])")
    monkeypatch.chdir(tmp_path)
    text = launch.ranks("hello.py", 2, 2, "a b", machine=CPU)
    assert "[rank 0] rank 0 of 2 a b" in text and "[rank 1] rank 1 of 2 a b" in text
    assert list((machine.runs_root() / ".ranks").glob("hello-*")) == []


def test_a_script_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.py for torchrun"):
        launch.ranks("nowhere.py", 2, machine=CPU)


def test_what_ranks_say_on_gpus_is_not_torchruns_talk_of_threads(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "hello.py").write_text("print('hello')\n")
    text = launch.ranks(str(tmp_path / "hello.py"), 2, machine=BARE_H200)
    assert sorted(text.split("\n")) == ["", "[rank 0] hello", "[rank 1] hello"]


def test_ranks_that_take_too_long_are_ended(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(3600)")
    with pytest.raises(launch.TrainingFailed, match="within 3 s") as failed:
        launch.ranks(str(tmp_path / "slow.py"), 2, machine=CPU, timeout_seconds=3)
    assert control.members(failed.value.run_directory) == []


# ---- in Jupyter ------------------------------------------------------------------------------------------------------
CELL = """
import pickle
from helpers import launch
from helpers.machine import CPU
recipe, data, where = pickle.load(open({what!r}, "rb"))
run = launch.train(recipe, data, runs_dir=where, machine=CPU)
"""


@pytest.mark.train
def test_in_a_notebook_one_line_and_one_small_picture_stay(tiny_recipe, small_corpus, tmp_path):
    """Executed as nbclient does it; the bar and the figure were updated in place and left their last state only."""
    (tmp_path / "what").write_bytes(pickle.dumps((tiny_recipe, small_corpus, tmp_path / "runs")))
    cell = nbformat.v4.new_code_cell(CELL.format(what=str(tmp_path / "what")))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, timeout=HANG_SECONDS, resources={"metadata": {"path": str(PROJECT)}}).execute()
    shown = [output for output in cell.outputs if output.output_type == "display_data"]
    assert len(shown) == 2 and not [output for output in cell.outputs if output.output_type == "error"]
    line, picture = (output["data"] for output in shown)
    assert line["text/plain"].startswith("finished: 30/30 steps · loss 6.")
    assert "<progress" not in line["text/html"]
    assert "ln V = 6.24" in picture["text/plain"] and 'alt="' in picture["text/html"]
    assert len(json.dumps(notebook)) < 60_000


@pytest.mark.train
def test_interrupting_and_killing_a_jupyter_kernel(tiny_recipe, small_corpus, tmp_path):
    recipe = tiny_recipe.with_(train_iters=5000, tensor_parallel=2)
    (tmp_path / "what").write_bytes(pickle.dumps((recipe, small_corpus, tmp_path / "runs")))
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(PROJECT))
    try:
        request = client.execute(CELL.format(what=str(tmp_path / "what")))
        run = run_with(tmp_path / "runs")
        members = control.members(run.path)
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=HANG_SECONDS))["parent_header"]["msg_id"] != request:
            pass  # the start's own questions and answers
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert survivors(members) == []

        client.execute(CELL.format(what=str(tmp_path / "what")))
        log = run.path / "log.txt"
        wait_for(lambda: log.read_text().count("iteration        1/") >= 2, "the second launch's first step")
        members = control.members(run.path)
        assert len(members) >= 4
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)  # SIGKILL for the kernel's process group
    assert survivors(members) == []
    assert run.state == "stopped" and control.members(run.path) == []


def test_a_picture_that_fails_never_ends_a_run_nor_hides_its_end(monkeypatch):
    """An interrupt may catch matplotlib half imported: drawing fails from then on, and the cell must not say that."""
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **_: shown.append(bundle["text/plain"]))
    monkeypatch.setattr(live.style, "new_figure", lambda *_, **__: object().figure)
    progress = live.Progress(64, 512, None)
    progress.steps, progress.losses, progress.tokens_per_second = [1, 2], [6.0, 5.9], [500.0, 500.0]
    progress.seconds, progress.last_step = [0.1, 0.1], 5
    view = live.JupyterView()
    view.update(progress)
    assert len(shown) == 1, "the line is shown without its picture"
    view.line_handle = None
    view.finish(progress, "stopped")
    assert shown[1:] == [f"stopped: {progress.summary()}"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("passwd", b"root:x:0:0", "passwd is no Python script: the name of one ends with .py."),
        ("ls.py", b"\x7fELF\0\0", "ls.py is no Python that could run"),
        ("a.py", b"def f(:\n", "a.py is no Python that could run, line 1: invalid syntax"),
        ("deep.py", b"(" * 5000, "deep.py is no Python that could run"),
        ("folder.py", None, "There is no file"),
        ("pipe.py", os.mkfifo, "There is no file"),
    ],
)
def test_only_python_is_started(name, content, words, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path / "runs"))
    script = tmp_path / name
    if isinstance(content, bytes):
        script.write_bytes(content)
    else:
        (content or os.mkdir)(script)
    with pytest.raises(preflight.PreflightError, match="entry_script=") as refused:
        launch.train(tiny_recipe, None, entry_script=script, machine=CPU)
    assert words in str(refused.value)
    if name.endswith(".py"):
        with pytest.raises((ValueError, FileNotFoundError), match="no Python|no /|no file"):
            launch.ranks(str(script), 1, machine=CPU)
    assert not (tmp_path / "runs").exists()


# ---- what cannot be a launch ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda recipe: launch.train("gpt", None), "(recipe='gpt'): it takes a recipe, such as "),
        (lambda recipe: launch.train(None, recipe), "What stands at data is one: they are swapped."),
        (
            lambda recipe: launch.train(recipe.model, None),
            "it takes a recipe, such as recipes.gpt3_345m(), not a model",
        ),
        (lambda recipe: launch.train(recipe, None, machine="cpu"), "(machine='cpu'): it takes a machine"),
        (lambda recipe: launch.train(recipe, None, fresh="no"), "(fresh='no'): it takes True or False"),
        (lambda recipe: launch.train(recipe, None, runs_dir=5), "(runs_dir=5): it takes a path, or a text"),
        (
            lambda recipe: launch.train(recipe, None, runs_dir="a\0b"),
            "runs_dir='a\\x00b'): no path has a NUL",
        ),
        (lambda recipe: launch.train(recipe, None, runs_dir="n" * 300), "at most 255 bytes"),
        (lambda recipe: launch.train(recipe, None, runs_dir="~nosuchuser/x"), "the home that ~ stands for"),
        (lambda recipe: launch.train(recipe, "folder"), "data of the type str"),
        (lambda recipe: launch.follow("gpt"), "(run='gpt'): it takes a run"),
        (lambda recipe: launch.ranks("shards", 0), "launch.ranks(count=0)"),
        (lambda recipe: launch.ranks("shards", 1, timeout_seconds=float("nan")), "timeout_seconds=nan"),
        (
            lambda recipe: launch.ranks("shards", 1, variables={"A;touch here;B": ("x", "y")}),
            "names no variable of a shell",
        ),
        (lambda recipe: launch.ranks("shards", "two"), "(count='two'): it takes a whole number"),
    ],
)
def test_what_cannot_be_a_launch_is_told_before_anything_is_written(call, words, tiny_recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path / "runs"))
    with pytest.raises((TypeError, ValueError)) as refused:
        call(tiny_recipe)
    assert words in str(refused.value) and not list(tmp_path.iterdir())
