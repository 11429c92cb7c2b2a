"""What a run left behind, as tables: a run directory here, or a recorded run of another machine."""

import json
import re
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from helpers import events
from helpers.machine import PROJECT, cache_root, runs_root
from helpers.processes import checkpoints, control
from helpers.results import Results
from helpers.results import compare as compare  # part of this module's words
from helpers.results import labels as labels
from helpers.show import numbers

__all__ = [
    "Recorded",
    "Run",
    "compare",
    "labels",
    "latest",
    "load",
    "read_result",
    "record",
    "recorded",
    "write_result",
]

RECORDED = PROJECT / "notebooks" / "recorded"
STATUS_KEPT = ("state", "exit_code", "reason", "failing_rank", "launch", "started", "ended", "processes")
MAX_POINTS = 1000  # of one series in a result.json


@dataclass(frozen=True, repr=False)
class Run(Results):
    """A run directory; every question is answered from its files as they are now."""

    path: Path

    @property
    def recipe(self) -> dict:
        return _read_json(self.path / "recipe.json")

    @property
    def environment(self) -> dict:
        return _read_json(self.path / "environment.json")

    @property
    def predictions(self) -> dict:
        """What the learner wrote down before the run: name → value."""
        return _read_json(self.path / "predictions.json")

    @property
    def state(self) -> str:
        """ "running", "finished", "failed" or "stopped"; "never started" for a directory without a launch."""
        return control.state(self.path) if control.read_status(self.path) else "never started"

    @property
    def scalars(self):
        """All scalars of TensorBoard: one row a step, one column a tag. A step that was trained twice counts once."""
        return events.scalars(self.path / "tensorboard")

    @property
    def command(self) -> str:
        """`command.sh`: the whole launch as a script that runs by itself."""
        return _read_text(self.path / "command.sh")

    @property
    def wall_seconds(self) -> float | None:
        """Seconds of all launches together, imports included; None before the first."""
        status = control.read_status(self.path)
        if "started" not in status:
            return None
        now = time.time() - status["started"] if self.state == "running" else 0
        return status.get("wall_seconds", 0) + now

    @property
    def peak_memory_bytes(self) -> float | None:
        """The fullest rank's peak, as PyTorch's allocator counts it.

        TensorBoard has it from the last rank, the log from the first of each data-parallel group. On a CPU it is what
        the process grew by once Megatron began.
        """
        last_rank = self.series("mem-max-allocated-bytes").to_list()
        return max([*last_rank, *events.peaks_in_log(_read_text(self.path / "log.txt"))], default=None) or None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of `log.txt`."""
        return "\n".join(_read_text(self.path / "log.txt").splitlines()[-lines:])

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

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk of everything in the run directory."""
        return checkpoints.size_bytes(self.path)

    def delete_checkpoints(self) -> str:
        """Delete the run's checkpoints and say how much disk that freed. The curves and the log stay.

        Raises:
            RuntimeError: the run is going on.
        """
        if self.state == "running":
            raise RuntimeError(f"{self.path} is still running. Call run.stop() first, then delete its checkpoints.")
        folder = self.path / "checkpoints"
        size = checkpoints.size_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return f"{numbers.decimal_bytes(size)} freed."

    @property
    def headline(self) -> str:
        words = f"{self.recipe_name}, {self.path.name}: {self.state}"
        status = control.read_status(self.path)
        if self.state == "failed":
            who = "" if status.get("failing_rank") is None else f"rank {status['failing_rank']} "
            words += f" ({who}{status.get('reason') or 'its supervisor was killed'})"
        return words if len(self.losses) else f"{words}, without a single step"


@dataclass(frozen=True, repr=False)
class Recorded(Results):
    """A run of a named machine, from `notebooks/recorded/<label>/<name>.json`: asked like a run of this machine."""

    path: Path
    recipe: dict = field(hash=False)
    environment: dict = field(hash=False)
    predictions: dict = field(hash=False)
    status: dict = field(hash=False)
    command: str
    wall_seconds: float | None
    peak_memory_bytes: float | None
    packed: dict = field(hash=False)

    @property
    def state(self) -> str:
        return self.status.get("state", "finished")

    @property
    def recorded_on(self) -> str:
        """The machine, such as "2 × NVIDIA H200"."""
        return self.machine

    @cached_property
    def scalars(self):
        return events.unpack(self.packed)

    @property
    def headline(self) -> str:
        day = self.environment.get("date", "")[:10]
        return f"{self.recipe_name}: recorded on {self.recorded_on}, {day}"


def load(path) -> Run:
    """The run of a run directory.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no run directory {path}. runs.latest(name) finds the newest of a recipe.")
    return Run(path.resolve())


def latest(name: str, runs_dir: Path | None = None) -> Run:
    """The newest run of a recipe in `runs_dir` (the project's `runs/` if not given).

    Raises:
        FileNotFoundError: that recipe was never trained here.
    """
    root = Path(runs_dir) if runs_dir else runs_root()
    found = sorted(path.parent for path in (root / name).glob("*/recipe.json"))
    if not found:
        raise FileNotFoundError(f"No run of {name} lies under {root}. Make one: launch.train(recipe, data).")
    return load(found[-1])


def recorded(machine_label: str, name: str | None = None) -> Recorded | None | list[Recorded]:
    """Recorded runs of a machine ("h200"): the one called `name`, or None; without a name all there are, maybe none.

    A name with "*" or "[" is a pattern, and all that fit it come back, in the order of the numbers in their names.
    """
    folder = RECORDED / machine_label
    if name is None or set("*[") & set(name):
        return [read_result(path) for path in sorted(folder.glob(f"{name or '*'}.json"), key=_by_numbers)]
    return read_result(folder / f"{name}.json") if (folder / f"{name}.json").is_file() else None


def write_result(run_directory) -> Path:
    """Write a run's `result.json`: figures, recipe, command, versions, machine, series; it names no path."""
    run = load(run_directory)
    status = control.read_status(run.path)
    content = {
        "recipe": run.recipe,
        "environment": run.environment,
        "predictions": run.predictions,
        "status": {key: status[key] for key in STATUS_KEPT if key in status},
        "command": run.command,
        "wall_seconds": run.wall_seconds,
        "peak_memory_bytes": run.peak_memory_bytes,
        "figures": run.figures(),
        "series": events.pack(run.scalars, MAX_POINTS),
    }
    target = run.path / "result.json"
    fresh = target.with_suffix(".tmp")
    fresh.write_text(without_paths(json.dumps(content, ensure_ascii=False), run.path) + "\n")
    fresh.replace(target)
    return target


def record(run: Run, name: str, recorded_dir: Path = RECORDED) -> Path:
    """Keep a run for readers on other machines, as `notebooks/recorded/<label of this machine>/<name>.json`."""
    folder = recorded_dir / run.environment["machine"]["label"]
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(write_result(run.path), folder / f"{name}.json"))


def read_result(path) -> Recorded:
    """A run from its `result.json`."""
    content = json.loads(Path(path).read_text())
    names = ("recipe", "environment", "predictions", "status", "command", "wall_seconds", "peak_memory_bytes")
    return Recorded(path=Path(path), packed=content["series"], **{name: content[name] for name in names})


def _by_numbers(path: Path) -> list:
    """A key that puts `micro_8` before `micro_16`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def without_paths(text: str, run_directory: Path) -> str:
    """The text with the folders of this machine and its user replaced by what they are."""
    places = {
        str(run_directory): "runs/<run>",
        sys.executable: "python",
        str(cache_root()): "<cache>",
        str(runs_root()): "runs",
        sysconfig.get_path("purelib"): "<site-packages>",
        str(PROJECT): ".",
        str(Path.home()): "~",
    }
    for place, name in places.items():
        if len(place) > 1:
            text = text.replace(place, name)
    return text


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
