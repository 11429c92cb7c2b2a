"""What a run left in its directory, as tables."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from helpers.machine import given, given_folder, runs_root, short_path
from helpers.processes import checkpoints, control, logs, slurm
from helpers.processes.run_directory import why_no_name
from helpers.processes.run_files import FILES, read_checked, read_json, read_text, why_closed, why_damaged
from helpers.runs import events
from helpers.runs.results import Results
from helpers.show import numbers
from helpers.show.arguments import checked
from helpers.show.message import Text
from helpers.show.names import named, told
from helpers.show.numbers import as_typed


@told
@dataclass(frozen=True, repr=False)
class Run(Results):
    """A run directory; every question is answered from its files as they are now."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", given(self.path, "runs.Run({})"))

    @property
    def described(self) -> dict:
        return read_checked(self.path / "recipe.json")

    @property
    def environment(self) -> dict:
        return read_checked(self.path / "environment.json")

    @property
    def predictions(self) -> dict:
        """What the learner wrote down before the run: name → value."""
        return read_json(self.path / "predictions.json")

    @property
    def state(self) -> str:
        """ "running", "finished", "failed" or "stopped"; "never started" for a directory without a launch."""
        return control.state(self.path) if control.read_status(self.path) else "never started"

    @property
    def scalars(self):
        """TensorBoard's scalars: one row per step, one column per tag. A step that was trained twice counts once."""
        return events.scalars(self.path / "tensorboard")

    @property
    def command(self) -> str:
        """`command.sh`: the whole launch as a script that runs by itself."""
        return read_text(self.path / "command.sh")

    @property
    def wall_seconds(self) -> float | None:
        """Seconds of all launches together, imports included; None before the first."""
        status = read_checked(self.path / "status.json")
        if "started" not in status:
            return None
        now = time.time() - status["started"] if self.state == "running" else 0
        return status.get("wall_seconds", 0) + max(0, now)  # a job's first node may have a clock that is ahead

    @property
    def peak_memory_bytes(self) -> float | None:
        """The fullest rank's peak, as PyTorch's allocator counts it.

        TensorBoard has it from the last rank, the log from the first of each data-parallel group. On a CPU it is what
        the process grew by once Megatron began.
        """
        last_rank = self.series("mem-max-allocated-bytes").to_list()
        return max([*last_rank, *events.peaks_in_log(self.log_text)], default=None) or None

    @property
    def log_text(self) -> str:
        """All of `log.txt`: what every launch of the run printed."""
        return read_text(self.path / "log.txt")

    @checked
    def log(self, containing: str = "", last: int = 3) -> Text:
        """The last lines of `log.txt` that hold a text: `run.log("iteration", last=3)`.

        Raises:
            ValueError: `last` is below 0.
            FileNotFoundError: the run has had a log, and has none now.
        """
        if last < 0:
            raise ValueError(f"last={last}: it counts lines from the end of the log, so it is 0 or more.")
        if why := self.why_no_log():
            raise FileNotFoundError(why)
        found = [line for line in self.log_text.splitlines() if containing in line]
        return Text("\n".join(found[len(found) - min(last, len(found)) :]))

    @checked
    def log_tail(self, lines: int = 30) -> str:
        """The last lines of `log.txt`."""
        return self.log(last=lines)

    def why_no_log(self) -> str | None:
        """Why a run that was started has no `log.txt`, in a sentence; None where it has one, or none yet."""
        log = self.path / "log.txt"
        if log.is_dir():
            return f"{log} is a folder: what the run printed is not there."
        if log.exists() or "launch" not in control.read_status(self.path):
            return None
        return f"{log} is gone: the run wrote one, and it was removed or moved away since."

    def steps_without_scalars(self) -> tuple[int, int]:
        """How many of the steps that the log tells of TensorBoard's files lack, and how many those are in all.

        While a run is going on they come later than the log's lines.
        """
        told = {step.step for line in self.log_text.splitlines() if (step := logs.parse_step(line))}
        return len(told.difference(self.scalars.index)), len(told)

    @property
    def job(self) -> Text | None:
        """What Slurm says of the run's job now: whether it waits, and for what; None for a run without a job."""
        job = slurm.look(self.path)
        return job and Text(control.standstill(self.path) or str(job))

    def stop(self) -> str:
        """End the run, whatever state it is in; returns its state once no process of it lives (35 s at most)."""
        return control.stop(self.path)

    def checkpoints(self):
        """The whole checkpoints, oldest first: a DataFrame indexed by step, with GB on disk and path."""
        import pandas as pd

        folder = self.path / "checkpoints"
        paths = {step: checkpoints.path_of(folder, step) for step in checkpoints.saved(folder)}
        rows = [(step, checkpoints.size_bytes(path) / 1e9, path) for step, path in paths.items()]
        return pd.DataFrame(rows, columns=["step", "GB", "path"]).set_index("step")

    def delete_checkpoints(self) -> str:
        """Delete the run's checkpoints and say how much disk that freed. The curves and the log stay.

        Raises:
            RuntimeError: the run is going on, or they lie elsewhere, behind a link.
            PermissionError: some of them may not be deleted.
        """
        if self.state == "running":
            raise RuntimeError(f"{self.path} is still running. Call run.stop() first, then delete its checkpoints.")
        folder = self.path / "checkpoints"
        if folder.is_symlink():
            raise RuntimeError(f"{folder} is a link to {folder.resolve()}: delete by hand what is yours there.")
        size = checkpoints.size_bytes(folder)
        errors: list[OSError] = []
        shutil.rmtree(folder, onexc=lambda function, path, error: errors.append(error))
        refused = [error for error in errors if not isinstance(error, FileNotFoundError)]
        freed = numbers.decimal_bytes(size - checkpoints.size_bytes(folder))
        if refused:
            raise PermissionError(
                f"{freed} freed: {refused[0].filename} may not be deleted ({refused[0].strerror}). {folder} belongs to "
                f"{folder.owner()}: only they can delete it."
            )
        return f"{freed} freed."

    @property
    def headline(self) -> str:
        words = f"{self.recipe_name}, {self.path.name}: {self.state}"
        status = control.read_status(self.path)
        if self.state == "running" and (why := control.standstill(self.path)):
            words += f", but {why}"
        if self.state == "failed":
            node = f" on {status['failing_node']}" if status.get("failing_node") else ""
            who = "" if status.get("failing_rank") is None else f"rank {status['failing_rank']}{node} "
            words += f" ({who}{status.get('reason') or 'its supervisor was killed'})"
        lacking, told = (0, 0) if self.state == "running" else self.steps_without_scalars()
        if lacking:
            which = f"{lacking:,} of its {told:,} steps" if lacking < told else f"all of its {told:,} steps"
            where = short_path(self.path / "tensorboard")
            return f"{words}, but {which} stand in log.txt alone: {where}, where curves come from, lacks them"
        return words if len(self.losses) else f"{words}, without a single step"


@named
def load(path) -> Run:
    """The run of a run directory.

    Raises:
        FileNotFoundError: there is no such directory.
        PermissionError: it is another user's, and not to be read.
        ValueError: no launch wrote it, or one of its files is damaged; the message names it.
        TypeError: that is no path.
    """
    path = given(path, "runs.load({})")
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no run directory {path}. runs.latest(name) finds the newest of a recipe.")
    _refuse_what_is_closed(path)
    if any(path.iterdir()) and not any((path / name).exists() for name in FILES):
        raise ValueError(f"{path} is no run directory: no launch wrote into it. runs.latest(name) finds a recipe's.")
    run = Run(path.resolve())
    try:
        why = why_damaged(path) or run.recipe and None
    except ValueError as odd:
        why = f"{path / 'recipe.json'} is damaged: {odd}."
    if why:
        log = f"Its log may be whole ({path / 'log.txt'}); t" if os.path.isfile(path / "log.txt") else "T"
        raise ValueError(f"{why} {log}he run cannot be shown or picked up.")
    return run


@named
def latest(name: str, runs_dir: Path | str | None = None) -> Run:
    """The newest run of a recipe in `runs_dir` (the project's `runs/` if not given).

    Raises:
        ValueError: no recipe can have that name.
        FileNotFoundError: that recipe was never trained here.
        PermissionError: it is another user's, and not to be read.
    """
    if why := why_no_name(name):
        raise ValueError(f"runs.latest({as_typed(name)}): it takes the name of a recipe. {why}")
    root = runs_root() if runs_dir is None else given_folder(runs_dir, "runs.latest(runs_dir={})")
    if os.path.isfile(root / name):
        raise FileNotFoundError(
            f"{root / name} is a file, where a folder with the runs of {name} belongs. Move it away."
        )
    _refuse_what_is_closed(root / name)
    found = sorted(path.parent for path in (root / name).glob("*/recipe.json"))
    if not found:
        for closed in sorted((root / name).glob("*/"), reverse=True):
            _refuse_what_is_closed(closed)
        raise FileNotFoundError(f"No run of {name} lies under {root}. Make one: launch.train(recipe, data).")
    return load(found[-1])


def _refuse_what_is_closed(folder: Path) -> None:
    if why := why_closed(folder):
        raise PermissionError(f"{why} They can open it: chmod -R a+rX {folder}.")
