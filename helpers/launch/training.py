"""Start a training run, watch it, and bring it back: `train` and `follow`.

The notebook's kernel writes the run directory, starts a supervisor (`helpers/processes/supervisor.py`) and from then on
only reads what the run writes. Whatever happens to either, no process of the run lives on alone.
"""

import contextlib
import dataclasses
import json
import shutil
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from helpers import recipes, runs
from helpers.launch import live
from helpers.machine import PROJECT, Machine, given, given_folder, here, runs_root, short_path
from helpers.processes import control, logs, run_directory, slurm
from helpers.processes.programs import how_to_resume, raise_if_failed, why_no_script
from helpers.processes.run_directory import provenance, write_command, write_json
from helpers.recipes import accounting, preflight
from helpers.recipes.preflight import problem
from helpers.runs import records
from helpers.show import bounds, numbers
from helpers.show.arguments import checked
from helpers.show.message import quiet
from helpers.show.numbers import as_typed

POLL_SECONDS = 0.2


@checked
def train(
    recipe: recipes.Recipe,
    data,
    *,
    fresh: bool = False,
    detach: bool = False,
    predict: Mapping[str, float | str | bool | types.EllipsisType | None] | None = None,
    hang_timeout_seconds: float = 600,
    entry_script: Path | str | None = None,
    runs_dir: Path | str | None = None,
    machine: Machine | None = None,
    on=None,
) -> runs.Run:
    """Train `recipe` on `data` (a `corpus.Corpus` or `Blend`, or None for made-up tokens); return the finished run.

    The same recipe on the same corpus picks its unfinished run up where its last checkpoint is; `fresh` starts another.
    With `detach` the run goes on after the kernel ends, and this returns at once: see `follow` and `run.stop()`.
    Interrupting the cell stops every process of the run. `predict` (name → value) is kept with the run.

    Args:
        hang_timeout_seconds: how long the ranks may be silent between two steps.
        entry_script: `pretrain_gpt.py` of a Megatron-LM clone, to run that instead of `helpers/ranks/pretrain_gpt.py`.
        runs_dir: where run directories go; `runs/` of the project if not given.
        machine: what it trains on, if not on this one; with `on`, one of the nodes.
        on: several hosts, from `cluster`; None: this one. `cluster.slurm(…)` makes it a job, which goes on when this
            kernel ends. All nodes must see the project, the corpus and `runs_dir` under the paths that they have here.

    Raises:
        preflight.PreflightError: the run cannot work; nothing was started or written.
        TrainingFailed: it started and did not finish.
        SlurmRefused: Slurm does not take the job.
        KeyboardInterrupt: after every process has ended.
    """
    machine = machine or here()
    if unusable := list(_unusable(entry_script, hang_timeout_seconds, machine, on)):
        raise preflight.PreflightError(unusable)
    root = runs_root() if runs_dir is None else given_folder(runs_dir, "launch.train(runs_dir={})")
    place = root / f"{recipe.name}" / ("new" if fresh else "")  # beside the unfinished ones, or among them
    nodes, queued = None if on is None else on.nodes_of(recipe), hasattr(on, "submit")
    found = preflight.check(recipe, data, machine, place, entry_script, nodes=nodes)
    if queued:
        found += preflight.time_limit(recipe, nodes.machine(machine), on.time_seconds)
        if slurm.has_other_machines():
            found += preflight.shared(nodes, {"The runs": root, "this project": PROJECT})
    for warning in preflight.refuse(found):
        print(warning)
    identity = preflight.identity(recipe, data, entry_script)
    supervisor = None
    try:
        with run_directory.claim(root / recipe.name, identity, fresh) as (directory, lock):
            if lock is None:
                print(f"This run is going on by itself in {short_path(directory)}. fresh=True would start another.")
                return runs.load(directory) if detach else follow(runs.load(directory))
            write(directory, recipe, data, machine, identity, predict, entry_script, nodes, on)
            _say_what_it_keeps(recipe, directory)
            watched = {
                "hang_timeout_seconds": hang_timeout_seconds,
                "eval_interval": recipe.schedule.eval_interval,
                "keep": recipe.checkpoints.keep if recipe.checkpoints.save_interval else 0,
            }
            if queued:
                on.write(directory, recipe, machine, **watched)
                print(f"Slurm has it as job {_submitted(on, directory, recipe)}: {short_path(directory / 'job.sh')}.")
            else:
                supervisor = control.start(
                    directory,
                    lock,
                    processes=recipe.layout.world_size,
                    processes_per_node=nodes and nodes.processes_per_node,
                    script="command.sh" if on is None else on.script(directory),
                    detach=detach,
                    afterwards=[sys.executable, "-c", records.WRITE_RESULT, str(directory)] if detach else (),
                    **watched,
                )
        if detach:
            print(f"Training goes on in {short_path(directory)} without this notebook.")
            print("launch.follow(run) shows it, run.stop() ends it.")
        else:
            _watch(directory, interrupt_stops=True)
    finally:
        if supervisor:
            supervisor.close()
    return runs.load(directory)


def _unusable(entry_script, hang_timeout_seconds, machine: Machine, on) -> Iterator[preflight.Problem]:
    if on is not None and not hasattr(on, "nodes_of"):
        change = 'on=cluster.slurm(nodes=2, time="1:00:00"), say; None, the default, is this machine.'
        yield problem.error(f"on={as_typed(on)}", "It names no hosts to train on.", change)
    if hasattr(on, "submit") and (why := slurm.why_not()):
        change = "Call it on a login node, or start a Slurm of your own: cluster.OwnSlurm().start()."
        yield problem.error("on=cluster.slurm(…)", why, change)
    if not hasattr(on, "submit") and len(machine.gpus) > len(here().gpus):
        why = f"It is described, and not here: this is {here().name}."
        yield problem.error(f"machine={machine.name}", why, "machine=machine.here(), or leave it out.")
    if entry_script is not None and (why := why_no_script(given(entry_script, "launch.train(entry_script={})"))):
        change = "The whole path of a script like pretrain_gpt.py of a Megatron-LM clone."
        yield problem.error(f"entry_script={str(entry_script)!r}", why, change)
    if hang_timeout_seconds not in bounds.SECONDS:
        why = f"It is how many seconds the ranks may be silent between two steps, a number {bounds.SECONDS}."
        yield problem.error(f"hang_timeout_seconds={hang_timeout_seconds}", why, "hang_timeout_seconds=600, say.")


def _submitted(on, directory: Path, recipe: recipes.Recipe) -> int:
    """The number of the job. A directory in which nothing has begun does not stay if Slurm refuses it."""
    try:
        return on.submit(directory, recipe)
    except slurm.SlurmRefused:
        if not control.read_status(directory):
            shutil.rmtree(directory, ignore_errors=True)
        raise


@checked
def follow(run: runs.Run, kill_at: Annotated[int, bounds.STEPS] | None = None) -> runs.Run:
    """Show a run that is going on, from its first step, until it ends; interrupting the cell does not stop the run.

    With `kill_at`, every process of the run is killed, without warning (SIGKILL), once that step is logged; here an
    interrupt stops the run.

    Raises:
        TrainingFailed: the run failed.
        RuntimeError: it ended by itself, before it could be killed, or nothing was ever started there.
        ValueError: the run directory is damaged, or the run has no such step to be killed at, or is on Slurm.
        TypeError: this is no run.
    """
    runs.load(run.path)  # its files may have been damaged since
    if "model" not in run.described:
        raise RuntimeError(f"{run.path} has no recipe.json, so nothing was started there: launch.train does that.")
    if kill_at is not None and slurm.number_of(run.path):
        why = "its processes are on Slurm's nodes, not here. cluster.OwnSlurm().kill_node(…) kills one of your own."
        raise ValueError(f"launch.follow(kill_at={kill_at}): {why}")
    if kill_at is not None:
        require_step(run.recipe, kill_at, "launch.follow(kill_at={})")
    _watch(Path(run.path), interrupt_stops=kill_at is not None, kill_at=kill_at)
    return runs.load(run.path)


def require_step(recipe, step: int, asked: str) -> None:
    """Raises ValueError where a run of the recipe ends before a step; `asked` as in `machine.given`."""
    last = recipe.schedule.last_step
    if step > last:
        why = f"the run ends after step {last:,}, and nothing is left to kill"
        raise ValueError(f"{asked.format(step)}: {why}. Give a step below {last:,}, or another train_iters.")


def _say_what_it_keeps(recipe, directory: Path) -> None:
    kept = recipe.checkpoints
    if kept.save_interval is None:
        return
    size = accounting.checkpoint_bytes(recipe)
    print(
        f"Checkpoints: one every {kept.save_interval:,} steps, the last {kept.keep} are kept. Each takes "
        f"{numbers.decimal_bytes(size)}, so up to {numbers.decimal_bytes(size * (kept.keep + 1))} "
        f"of {numbers.decimal_bytes(shutil.disk_usage(directory).free)} free on the disk."
    )


def _watch(directory: Path, interrupt_stops: bool, kill_at: int | None = None) -> None:
    """Show the run until it ends, by itself or killed at a step; raise if it failed."""
    described = json.loads((directory / "recipe.json").read_text())
    model, schedule = described["model"], described["schedule"]
    guesses = None if described.get("pretrained") else model["vocab_size"]  # a loss far above those of a trained model
    progress = live.Progress(model["sequence_length"], guesses, schedule.get("exit_interval"))
    view = live.view()
    tail = logs.Tail(directory / "log.txt")
    words, killed = "failed", False
    pause = POLL_SECONDS if kill_at is None else POLL_SECONDS / 4  # few steps are to pass until it is killed
    try:
        while True:
            going = control.state(directory) == "running"
            progress.hear(tail.read(final=not going))
            if not going:
                break
            if kill_at is not None and max(progress.steps, default=0) >= kill_at:
                control.kill(control.members(directory))
                killed = True
                continue
            progress.standstill = control.standstill(directory)
            view.update(progress)
            time.sleep(pause)
        words = "killed" if killed else control.state(directory)
        if words != "finished":
            control.bury(directory)
    except KeyboardInterrupt as interrupt:
        words = "still running, no longer shown"
        quiet(interrupt, "KeyboardInterrupt: the run goes on. launch.follow(run) shows it again.")
        if interrupt_stops:
            print("Stopping every process of the run …")
            words = "being stopped"
            try:
                control.stop(directory)
            except KeyboardInterrupt as again:
                quiet(again, "KeyboardInterrupt: the run is being stopped, and ends within 35 s without this cell.")
                raise
            print(f"Stopped. {how_to_resume(directory)}".rstrip())
            words = "stopped"
            quiet(interrupt, "KeyboardInterrupt: no process of the run is left.")
        raise
    finally:
        view.finish(progress, words)
        elsewhere = control.read_status(directory).get("detached") and not slurm.number_of(directory)
        if control.state(directory) != "running" and not elsewhere:
            with contextlib.suppress(OSError):  # the disk is full: that is told below
                runs.write_result(directory)
    if killed:
        print(f"Killed after step {progress.steps[-1]}: every process at once, nothing had time to save.")
        return
    if interrupt_stops or words == "failed":
        raise_if_failed(directory, described["name"])
    if kill_at is not None:
        raise RuntimeError(f"The run ended by itself, before it could be killed at step {kill_at}.")


def write(directory, recipe, data, machine, identity, predict=None, entry_script=None, nodes=None, on=None) -> None:
    """All that lies in a run directory before it starts."""
    command = recipe.command(data, machine, run_directory=directory, entry_script=entry_script, nodes=nodes)
    given = nodes.given() if nodes else {}
    groups = command.groups | (on.flags(recipe) if hasattr(on, "flags") else {})
    write_command(directory, recipe.name, command.program, command.environment, groups, given)
    described = dataclasses.asdict(recipe) | identity | {"corpus": getattr(data, "name", "made-up tokens")}
    if nodes is not None:
        described["nodes"] = dataclasses.asdict(nodes)
    write_json(directory / "environment.json", provenance(machine, command.environment))
    kept = {name: getattr(value, "item", lambda value=value: value)() for name, value in (predict or {}).items()}
    if kept := {name: value for name, value in kept.items() if value is not ...}:
        write_json(directory / "predictions.json", kept)
    write_json(directory / "recipe.json", described)  # last: with it the directory counts as this recipe's run
