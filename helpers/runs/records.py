"""Runs kept as small JSON files, for readers on other machines."""

import dataclasses
import difflib
import glob
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from helpers.machine import PROJECT, Machine, cache_root, given, given_folder, runs_root
from helpers.processes import control
from helpers.processes.run_directory import why_no_name
from helpers.recipes import Recipe
from helpers.runs import events
from helpers.runs.results import Results
from helpers.runs.run import Run, load
from helpers.show.arguments import checked, fits, in_words
from helpers.show.names import lacks, named
from helpers.show.numbers import as_typed

WRITE_RESULT = "import sys; from helpers import runs; runs.write_result(sys.argv[1])"  # python -c, without a kernel
RECORDED = PROJECT / "notebooks" / "recorded"
STATUS_KEPT = ("state", "exit_code", "reason", "failing_rank", "launch", "started", "ended", "processes")
MAX_POINTS = 1000  # of one series in a result.json


@dataclass(frozen=True, repr=False)
class Recorded(Results):
    """A run of a named machine, from `notebooks/recorded/<label>/<name>.json`: asked like a run of this machine."""

    IN_WORDS = "a recorded run"

    path: Path
    described: dict = field(hash=False)
    environment: dict = field(hash=False)
    predictions: dict = field(hash=False)
    status: dict = field(hash=False)
    command: str
    wall_seconds: float | None
    peak_memory_bytes: float | None
    packed: dict = field(hash=False)

    def __getattr__(self, name: str):
        if hasattr(Run, name):
            raise AttributeError(
                f"A recorded run has no {name}: it keeps its curves and figures. Ask a run that is here."
            )
        raise AttributeError(lacks(self, name), name=name)

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


@checked
def recorded(machine_label: str, name: str | None = None) -> Recorded | None | list[Recorded]:
    """Recorded runs of a machine ("h200"; "h200/twins" in a folder of it): the one called `name`, or None.

    Without a name all there are, maybe none.

    A name with "*" or "[" is a pattern, and all that fit it come back, in the order of the numbers in their names.

    Raises:
        ValueError: nothing was recorded under that label.
    """
    folder = folder_of(machine_label)
    if name is None or set("*[") & set(name):
        try:
            found = sorted(folder.glob(f"{name or '*'}.json"), key=_by_numbers)
        except ValueError as odd:
            raise ValueError(f"runs.recorded(name={name!r}): that is no pattern of names ({odd}).") from None
        return [read_result(path) for path in found]
    return read_result(folder / f"{name}.json") if os.path.isfile(folder / f"{name}.json") else None


def folder_of(label: str) -> Path:
    """The folder of a machine's records ("h200"), or one in it ("h200/twins").

    Raises:
        ValueError: there is none, but others; the message names them.
    """
    folders = (path for path in RECORDED.glob("**/") if path != RECORDED and any(path.rglob("*.json")))
    known = sorted(path.relative_to(RECORDED).as_posix() for path in folders)
    if known and label not in known:
        machine, slash, _ = label.partition("/")
        inside = bool(slash) and machine in known
        near = [one for one in known if (one.startswith(f"{machine}/") if inside else "/" not in one)]
        close = [one for one in near if label and one.startswith(label)] or difflib.get_close_matches(label, near, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"Nothing is recorded under the label {as_typed(label)}. {hint}There are: {', '.join(near)}.")
    return RECORDED / label


@checked
def recorded_anywhere(name: str) -> Recorded | None:
    """The recorded run called `name` ("twins/gpt3_345m_graph", say) of the first machine that has one, or None."""
    file = anywhere(f"{name}.json")
    return read_result(file) if file else None


def anywhere(file: str) -> Path | None:
    """The record `file` ("generation/speeds.json", say) of the first machine that has one."""
    return min(RECORDED.glob(f"*/{glob.escape(file)}"), default=None)


@named
def write_result(run_directory) -> Path:
    """Write a run's `result.json`: figures, recipe, command, versions, machine, series; it names no path.

    Raises:
        ValueError: nothing was started there. What `load` raises.
    """
    run = load(run_directory)
    if not run.described:
        raise ValueError(f"{run.path} has no recipe.json, so nothing was started there: there is no result to write.")
    status = control.read_status(run.path)
    content = {
        "recipe": run.described,
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


@checked
def record(run: Run, name: str, recorded_dir: Path = RECORDED) -> Path:
    """Keep a run for readers on other machines, as `notebooks/recorded/<label of this machine>/<name>.json`.

    Raises:
        ValueError: that is no name for a file, no folder to keep it in, or the run has nothing to keep.
    """
    if why := why_no_name(name):
        raise ValueError(f"runs.record(name={as_typed(name)}): it names one file: {run.recipe_name!r}, say. {why}")
    if "machine" not in run.environment:
        raise ValueError(f"{run.headline}. It has no environment.json, so nothing was started there.")
    folder = given_folder(recorded_dir, "runs.record(recorded_dir={})") / run.environment["machine"]["label"]
    written = write_result(run.path)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(written, folder / f"{name}.json"))


def keep(path: Path, content: dict, digits: int = 3) -> Path:
    """Write a record of another kind as JSON, its numbers rounded to so many digits behind the point."""
    rounded = json.loads(json.dumps(content), parse_float=lambda number: round(float(number), digits))
    given_folder(path.parent, "recorded_dir, {}").mkdir(parents=True, exist_ok=True)
    path.write_text(without_paths(json.dumps(rounded, indent=1, ensure_ascii=False), RECORDED) + "\n")
    return path


@checked
def read_result(path: Path | str) -> Recorded:
    """A run from its `result.json`.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no result of a run.
    """
    names = ("environment", "predictions", "status", "command", "wall_seconds", "peak_memory_bytes")

    def result(content: dict) -> Recorded:
        kept = {name: content[name] for name in names}
        Machine.from_json(kept["environment"].get("machine", {}))
        if "model" in content["recipe"]:
            Recipe.from_json(content["recipe"])
        if any(len(series["step"]) != len(series["value"]) for series in content["series"].values()):
            raise ValueError("a series without its steps")
        return Recorded(path=Path(path).expanduser(), described=content["recipe"], packed=content["series"], **kept)

    return of_file(path, result, "runs.read_result({})", "runs.write_result(run.path)")


def of_line(output: str, mark: str) -> dict:
    """The JSON behind a mark in what a program printed.

    Raises:
        ValueError: no line has that mark, or something else stands behind it.
    """
    said = next((line.partition(mark)[2] for line in output.splitlines() if mark in line), None)
    try:
        found = json.loads(said or "")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"What the program printed has no line {mark.strip()} with JSON behind it.")
    return found


def of_file(path, make: Callable[[dict], object], asked: str, writer: str):
    """What `make` makes of a kept JSON file. `asked` is how a caller wrote it, `writer` the call that writes one.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it holds something else.
    """
    path = given(path, asked)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}. {writer} writes one.")
    found, why = None, None
    try:
        content = json.loads(path.read_text())
        found = make(content)
        why = _odd_field(found)
    except OSError as refusal:
        why = f"it cannot be read: {refusal.strerror}"
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        why = "it is no JSON"
    except KeyError as missing:
        why = f"it lacks {missing}"
    except (ValueError, TypeError, AttributeError, IndexError):
        why = "what is in it is of another kind" if isinstance(content, dict) else f"it is {as_typed(content)}"
    if why:
        raise ValueError(f"{path} holds something else: {why}. {writer} writes one.")
    return found


def if_there(path: Path, writer: str, make: Callable[[dict], dict] = dict) -> dict:
    """`of_file`, or {} where nothing was recorded."""
    return of_file(path, make, "{}", writer) if path.is_file() else {}


def _odd_field(value) -> str | None:
    """The first field of a dataclass, or of one that lies in it, that is of another kind than it is declared to be."""
    for one in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        held = getattr(value, one.name)
        if not fits(held, one.type):
            return f"its {one.name} is {as_typed(held)}, where {in_words(one.type)} belongs"
        if odd := next(filter(None, map(_odd_field, held if isinstance(held, tuple) else [held])), None):
            return odd
    return None


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
