"""Start a training run, watch it, and bring it back: `train`, `follow`, and `ranks` for the small programs.

The notebook's kernel writes the run directory, starts a supervisor (`helpers/supervisor.py`) and from then on only
reads what the run writes. Whatever happens to either, no process of the run lives on alone.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from helpers import (
    accounting,
    checkpoints,
    diagnosis,
    live,
    logs,
    preflight,
    processes,
    recipes,
    rules,
    run_directory,
    runs,
)
from helpers.machine import PROJECT, Machine, here, runs_root
from helpers.machine.variables import device_environment
from helpers.show import numbers

POLL_SECONDS = 0.2


class TrainingFailed(RuntimeError):
    """A run that did not finish: which rank failed, its own last traceback, the cause and the fix where known.

    Attributes:
        rank: the rank that failed first; None when torchrun itself did.
        traceback: that rank's last Python traceback, "" when it left none (it was killed, say).
        cause, fix: from `helpers.diagnosis`; None for a symptom that is not in its table.
        run_directory: where `log.txt` lies.
    """

    def __init__(self, run_directory: Path, headline: str, rank: int | None, traceback: str, found, resume: str):
        self.run_directory, self.rank, self.traceback = Path(run_directory), rank, traceback
        self.cause, self.fix = (found.cause, found.fix) if found else (None, None)
        parts = [headline]
        if found:
            parts.append(f"Cause: {found.cause}\nFix: {found.fix}")
        if traceback:
            parts.append(f"The rank's last traceback:\n{traceback}" if rank is not None else traceback)
        parts.append(f"Everything the ranks said: {self.run_directory / 'log.txt'}")
        if resume:
            parts.append(resume)
        super().__init__("\n\n".join(parts))

    def _render_traceback_(self) -> list[str]:
        """In Jupyter: the message alone, without the frames of this module."""
        return [f"{type(self).__name__}: {self}"]


def train(
    recipe: recipes.Recipe,
    data,
    *,
    fresh: bool = False,
    detach: bool = False,
    predict: dict | None = None,
    hang_timeout_seconds: float = 600,
    entry_script: Path | str | None = None,
    runs_dir: Path | str | None = None,
    machine: Machine | None = None,
) -> runs.Run:
    """Train `recipe` on `data` (a `corpus.Corpus`, or None for made-up tokens) and return the finished run.

    The same recipe on the same corpus picks its unfinished run up where its last checkpoint is; `fresh` starts another.
    With `detach` the run goes on after the kernel ends, and this returns at once: see `follow` and `run.stop()`.
    Interrupting the cell stops every process of the run. `predict` (name → value) is kept with the run.

    Args:
        hang_timeout_seconds: how long the ranks may be silent between two steps.
        entry_script: `pretrain_gpt.py` of a Megatron-LM clone, to run that instead of `helpers/ranks/pretrain_gpt.py`.
        runs_dir: where run directories go; `runs/` of the project if not given.

    Raises:
        preflight.PreflightError: the run cannot work; nothing was started or written.
        TrainingFailed: it started and did not finish.
        KeyboardInterrupt: after every process has ended.
    """
    machine = machine or here()
    if entry_script is not None and not Path(entry_script).expanduser().is_file():
        why = "There is no such file for torchrun to start."
        raise preflight.PreflightError(
            [rules.error(f"entry_script={str(entry_script)!r}", why, "Give its whole path.")]
        )
    root = (Path(runs_dir) if runs_dir else runs_root()).resolve()
    place = root / recipe.name / "new" if fresh else root / recipe.name  # beside the unfinished ones, or among them
    for problem in preflight.refuse(preflight.check(recipe, data, machine, place, entry_script)):
        print(problem)
    identity = {"fingerprint": recipe.fingerprint(data), "entry_script": entry_script and str(entry_script)}
    supervisor = None
    try:
        with run_directory.claim(root / recipe.name, identity, fresh) as (directory, lock):
            if lock is None:
                print(f"This run is going on by itself in {directory}. fresh=True would start another.")
                return runs.load(directory) if detach else follow(runs.load(directory))
            run_directory.write(directory, recipe, data, machine, identity, predict, entry_script)
            _say_what_it_keeps(recipe, directory)
            supervisor = processes.start(
                directory,
                lock,
                processes=recipe.layout.world_size,
                detach=detach,
                hang_timeout_seconds=hang_timeout_seconds,
                eval_interval=recipe.schedule.eval_interval,
                keep=recipe.checkpoints.keep if recipe.checkpoints.save_interval else 0,
            )
        if detach:
            print(f"Training goes on in {directory} without this notebook.")
            print("launch.follow(run) shows it, run.stop() ends it.")
        else:
            _watch(directory, interrupt_stops=True)
    finally:
        if supervisor:
            supervisor.close()
    return runs.load(directory)


def follow(run: runs.Run) -> runs.Run:
    """Show a run that is going on, from its first step, until it ends; interrupting the cell does not stop the run.

    Raises:
        TrainingFailed: the run failed.
    """
    _watch(Path(run.path), interrupt_stops=False)
    return runs.load(run.path)


def ranks(
    script: str,
    count: int,
    *arguments,
    machine: Machine | None = None,
    timeout_seconds: float = 300,
    variables: dict[str, tuple[str, str]] | None = None,
) -> str:
    """Run `helpers/ranks/<script>.py`, or a `.py` file of yours, in `count` processes under torchrun.

    Returns what they printed.

    The same rules of life and death as in `train` hold. `arguments` go to the script as they are; `variables` (name →
    (value, why), as `commands.environment` gives them) are set for it where the learner has not set them.

    Raises:
        FileNotFoundError: there is no such script.
        TrainingFailed: a rank failed, or `timeout_seconds` were not enough.
    """
    machine = machine or here()
    own = str(script).endswith(".py")
    path = Path(script).expanduser().resolve() if own else PROJECT / "helpers" / "ranks" / f"{script}.py"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path} for torchrun to start: give the path of a .py file that is there.")
    directory = Path(tempfile.mkdtemp(prefix=f"{path.stem}-", dir=run_directory.made(runs_root().resolve() / ".ranks")))
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    program += [str(path), *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": ("1", "what torchrun sets by itself, and warns of")}
    environment = threads | device_environment(machine) | (variables or {})
    run_directory.write_command(directory, f"{path.name} on {count} ranks", program, environment, {})
    with processes.held(directory) as lock:
        supervisor = processes.start(
            directory, lock, processes=count, hang_timeout_seconds=timeout_seconds, trains=False
        )
    try:
        deadline = time.monotonic() + timeout_seconds
        while processes.state(directory) == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        if processes.state(directory) == "running":
            processes.stop(directory)
            headline = f"{path.name} did not end within {timeout_seconds:.0f} s."
            raise TrainingFailed(directory, headline, None, "", None, "")
        _raise_if_failed(directory, path.name)
        text = (directory / "log.txt").read_text(errors="replace")
        shutil.rmtree(directory, ignore_errors=True)
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(logs.LAUNCH_MARK))
    except BaseException:
        processes.stop(directory)
        raise
    finally:
        supervisor.close()


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


def _watch(directory: Path, interrupt_stops: bool) -> None:
    """Show the run until it ends; raise if it failed."""
    described = json.loads((directory / "recipe.json").read_text())
    model, schedule = described["model"], described["schedule"]
    progress = live.Progress(model["sequence_length"], model["vocab_size"], schedule.get("exit_interval"))
    view = live.view()
    tail = logs.Tail(directory / "log.txt")
    words = "failed"
    try:
        while True:
            going = processes.state(directory) == "running"
            progress.hear(tail.read(final=not going))
            if not going:
                break
            view.update(progress)
            time.sleep(POLL_SECONDS)
        words = processes.state(directory)
        if words != "finished":
            processes.bury(directory)
    except KeyboardInterrupt:
        words = "still running, no longer shown"
        if interrupt_stops:
            print("Stopping every process of the run …")
            processes.stop(directory)
            print(f"Stopped. {_resume(directory)}".rstrip())
            words = "stopped"
        raise
    finally:
        view.finish(progress, words)
        if processes.state(directory) != "running" and not processes.read_status(directory).get("detached"):
            with contextlib.suppress(OSError):  # the disk is full: that is told below
                runs.write_result(directory)
    if interrupt_stops or words == "failed":
        _raise_if_failed(directory, described["name"])


def _raise_if_failed(directory: Path, name: str) -> None:
    status = processes.read_status(directory)
    if status["state"] == "finished":
        return
    with open(directory / "log.txt", "rb") as file:
        file.seek(status.get("log_start", 0))
        text = file.read().decode(errors="replace")
    rank = status.get("failing_rank")
    who = f"rank {rank} " if rank is not None else ""
    headline = f"{name} {status['state']}: {who}{status.get('reason') or ''}"
    found = None
    if status["state"] == "failed":
        found = diagnosis.diagnose("\n".join([text, status.get("traceback", ""), status.get("reason") or ""]))
    raise TrainingFailed(directory, headline, rank, status.get("traceback", ""), found, _resume(directory))


def _resume(directory: Path) -> str:
    step = checkpoints.latest(directory / "checkpoints")
    return "" if step is None else f"Starting the same cell again picks the run up after step {step}."
