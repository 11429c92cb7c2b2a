"""The files of a run directory: whether each is what it must be, told in words before anything reads on."""

import json
import os
import stat
from pathlib import Path
from typing import Literal

from helpers.machine import Machine
from helpers.processes.checkpoints import TRACKER
from helpers.show.arguments import fits, in_words
from helpers.show.numbers import as_typed

WRITTEN = ("recipe.json", "environment.json", "predictions.json", "command.sh")  # before the start
FILES = (*WRITTEN, "job.sh", "job.json", "status.json", "log.txt", "result.json", ".lock")
FOLDERS = ("checkpoints", "tensorboard", "ranks")
PARTS = ("model", "layout", "batch", "schedule")  # of a recipe.json that holds a recipe
OTHERS = ("precision", "speed", "checkpoints", "logging")  # of those that were not always there
STATUS = {  # what status.json may hold, and of which kind
    "state": Literal["running", "finished", "failed", "stopped"],
    "launch": int,
    "log_start": int,
    "processes": int,
    "processes_per_node": int | None,
    "started": float,
    "ended": float | None,
    "wall_seconds": float,
    "pid": int | None,
    "create_time": float | None,
    "failing_rank": int | None,
    "reason": str | None,
    "traceback": str,
}


def read_json(path: Path) -> dict:
    """The object in a file of a run directory; empty where there is no such file, or something else in it."""
    try:
        value = json.loads(path.read_text()) if path.is_file() else {}  # of a pipe there might be no end
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_checked(path: Path) -> dict:
    """The object in recipe.json, status.json or environment.json, as `read_json` has it.

    Raises:
        ValueError: it has not the shape that a run gives it.
    """
    known = read_json(path)
    if why := known and LOOKS[path.name](known):
        raise ValueError(f"{path} is damaged: it {why}.")
    return known


def read_text(path: Path) -> str:
    """What is in a file of a run directory, as far as it can be read; "" where there is none."""
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def why_closed(directory: Path) -> str | None:
    """What of a run directory this user may not read, in words; None where nothing is closed."""
    for path in (directory, *(directory / name for name in (*FOLDERS, *FILES) if name != ".lock")):
        try:
            if path.is_dir():
                os.scandir(path).close()
            elif path.is_file():
                path.open("rb").close()
        except PermissionError:
            return f"{path} belongs to user {path.owner()}, who lets nobody else read it."
    return None


def why_damaged(directory: Path) -> str | None:
    """What is wrong with a run directory, in words; None where all of it is whole or not there yet."""
    wrong = {name: _no_file(directory / name) for name in (*FILES, f"checkpoints/{TRACKER}")}
    for name in FOLDERS:
        wrong[name] = "is no folder" if os.path.lexists(directory / name) and not (directory / name).is_dir() else None
    for name, look in LOOKS.items():
        wrong[name] = wrong[name] or ((directory / name).exists() and _content(directory / name, look)) or None
    return next((f"{directory / name} is damaged: it {why}." for name, why in wrong.items() if why), None)


def _no_file(path: Path) -> str | None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    # What a run writes through a link would end in a file that is none of its own.
    kinds = {stat.S_IFREG: None, stat.S_IFDIR: "is a folder", stat.S_IFIFO: "is a pipe", stat.S_IFLNK: "is a link"}
    return kinds.get(stat.S_IFMT(mode), "is no file")


def _content(path: Path, look) -> str | None:
    known = read_json(path)
    if known:
        return look(known)
    found = read_text(path).strip()
    return "is empty" if not found else f"begins with {found[:20]!r}" if len(found) > 20 else f"holds {found!r}"


def _recipe(known: dict) -> str | None:
    if not isinstance(known.get("name", ""), str):
        return f"holds name={as_typed(known['name'])}, which is no text"
    there = (part for part in (*PARTS, *OTHERS) if part in known or part in PARTS and "model" in known)
    odd = [part for part in there if not isinstance(known.get(part), dict)]
    return odd and (f"lacks its {odd[0]}" if odd[0] not in known else f'has no object as its "{odd[0]}"') or None


def _status(known: dict) -> str | None:
    for name, kind in STATUS.items():
        if name in known and not (fits(known[name], kind) and known[name] != float("inf")):
            return f"holds {name}={as_typed(known[name])}, where {in_words(kind)} belongs"
    return None


def _environment(known: dict) -> str | None:
    try:
        Machine.from_json(known.get("machine", {}))
    except TypeError:
        return f"holds machine={as_typed(known['machine'])}, which describes none"
    names = {name: known.get("machine", {}).get(name, "") for name in ("name", "label")}
    odd = next((name for name, value in names.items() if not isinstance(value, str)), None)
    return odd and f"holds machine.{odd}={as_typed(names[odd])}, where a text belongs"


LOOKS = {"recipe.json": _recipe, "status.json": _status, "environment.json": _environment}
