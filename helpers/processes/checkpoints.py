"""The `checkpoints/` folder of a run: what is whole in it, what a killed run left half done, what may go."""

import itertools
import os
import re
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

from helpers.processes import damage

TRACKER = "latest_checkpointed_iteration.txt"
DOOMED = ".deleting-"
SET_ASIDE = "damaged_"
FULL_DISK_BYTES = 2**18  # below, what the ranks had to say is lost, too
LOW_DISK_BYTES = 32 * 2**20
LOOK_SECONDS = 1.0  # into the files of a checkpoint that is to be loaded


def folder_of(path: Path) -> Path:
    """The folder that Megatron loads from: a run's `checkpoints`, or the one that is named itself."""
    inside = Path(path) / "checkpoints"
    return inside if inside.is_dir() else Path(path)


def folders(directory: Path) -> list[Path]:
    """What Megatron calls a checkpoint, whole or not, by name: a copy called iter_0000040_mine is the learner's own."""
    return sorted(path for path in Path(directory).glob("iter_*") if re.fullmatch(r"iter_\d+", path.name))


def saved(directory: Path) -> list[int]:
    """Iterations whose checkpoint is whole, each file of it as long as it must be; oldest first."""
    return sorted(_iteration(path) for path in folders(directory) if damage.of(path) is None)


def damaged(directory: Path) -> dict[int, str]:
    """Iteration → what is wrong with its checkpoint, in words, for each that is there and not whole; oldest first."""
    wrong = {_iteration(path): damage.of(path) for path in folders(directory)}
    return {iteration: _told(iteration, why) for iteration, why in sorted(wrong.items()) if why}


def loaded_next(directory: Path, seconds: float = LOOK_SECONDS) -> tuple[int | None, dict[int, str]]:
    """The iteration to load, None where nothing is whole; and what is wrong with others, as `damaged` tells it.

    It is the one that the tracker names; where that is not whole, the newest that is. Into the files of that one it
    looks for up to so many seconds (`damage.inside`).
    """
    wrong = damaged(directory)
    whole = [iteration for iteration in map(_iteration, folders(directory)) if iteration not in wrong]
    named = latest(directory)
    while whole:
        iteration = named if named in whole else max(whole)
        if not (why := damage.inside(path_of(directory, iteration), seconds)):
            return iteration, wrong
        wrong[iteration] = _told(iteration, why)
        whole.remove(iteration)
    return None, wrong


def why_not(directory: Path, iteration: int, seconds: float = LOOK_SECONDS) -> str | None:
    """What is wrong with one checkpoint, in words; None where it is whole."""
    path = path_of(directory, iteration)
    why = damage.of(path) or damage.inside(path, seconds)
    return why and _told(iteration, why)


def passed_over(iteration: int, wrong: dict[int, str]) -> str | None:
    """Why `iteration` is loaded and no newer one, in sentences; None where it is the newest. Both of `loaded_next`."""
    newer = [why for other, why in wrong.items() if other > iteration]
    if not newer:
        return None
    return f"{sentences(newer)} Step {iteration} is taken, the newest that is whole."


def none_whole(wrong: dict[int, str]) -> str:
    return " ".join(filter(None, ["has no whole checkpoint.", sentences(wrong.values())]))


def sentences(clauses: Iterable[str]) -> str:
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses)


def latest(directory: Path) -> int | None:
    """The iteration that Megatron would load, None when there is nothing to load."""
    tracker = Path(directory) / TRACKER
    try:
        return int(tracker.read_text()) if tracker.is_file() else None
    except (OSError, ValueError):
        return None


def spoilt_tracker(directory: Path) -> str | None:
    """What the file that names the newest iteration holds, if that is neither a number nor Megatron's "release"."""
    tracker = Path(directory) / TRACKER
    if not tracker.is_file() or latest(directory) is not None:
        return None
    held = tracker.read_bytes()[:40].decode(errors="replace").strip()
    return None if held == "release" else held or "nothing"


def path_of(directory: Path, iteration: int) -> Path:
    return Path(directory) / f"iter_{iteration:07d}"


def size_bytes(directory: Path) -> int:
    """Bytes on disk under `directory`, half-written checkpoints included."""
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())


def repair(directory: Path, seconds: float = LOOK_SECONDS) -> list[str]:
    """Make a folder that a killed run left loadable again; returns what was done, in words.

    Megatron writes the tracker after the checkpoint and not atomically: killed in between, it is missing, empty or
    behind the newest whole checkpoint, and reading an empty one ends the program. Half-written checkpoints are removed;
    one that was whole once and is damaged is set aside under another name. `seconds` as in `loaded_next`. Call it only
    when no process of the run is alive.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return []
    done = []
    step, wrong = loaded_next(directory, seconds)
    for path in [path for path in folders(directory) if _iteration(path) in wrong]:
        if damage.was_finished(path):
            done.append(set_aside(path, wrong[_iteration(path)]))
        else:
            _remove(path)
            done.append(f"removed the unfinished checkpoint of step {_iteration(path)}")
    _remove_doomed(directory)
    tracker = directory / TRACKER
    if step is None and tracker.exists():
        tracker.unlink()
        done.append("no checkpoint is whole: the run starts at step 1")
    elif step != latest(directory):
        fresh = tracker.with_suffix(".tmp")
        fresh.write_text(str(step))
        fresh.replace(tracker)
        done.append(f"the last whole checkpoint is that of step {step}")
    return done


def set_aside(path: Path, wrong: str) -> str:
    """Give a damaged checkpoint a name under which nothing loads it; returns that in words, behind those of `wrong`."""
    aside = path.rename(_free(path.with_name(SET_ASIDE + path.name)))
    return f"{wrong}. It is set aside as {aside.name}"


def no_room(directory: Path) -> str | None:
    """A sentence if nothing can be written there, or a checkpoint is half written for want of room: a full disk, a
    limit on files; else None."""
    if Path(directory).exists() and (free := shutil.disk_usage(directory).free) < FULL_DISK_BYTES:
        return (
            f"No space left on device: {free / 2**20:.1f} MB are free under {directory}"  # words of ranks are lost, too
        )
    whole = {path_of(directory, iteration) for iteration in saved(directory)}
    if not (half_written := set(folders(directory)) - whole):
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max((path.stat().st_size for folder in half_written for path in folder.rglob("*")), default=0)
    if limit != resource.RLIM_INFINITY and largest >= limit:
        return f"File too large: one came to the limit of {limit:,} bytes that `ulimit -f` sets"
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    needed = max(size_bytes(path) for path in folders(directory))
    if free > max(LOW_DISK_BYTES, needed):
        return None
    return f"No space left on device: {free / 2**20:.1f} MB are free under {directory}"


def prune(directory: Path, keep: int) -> list[int]:
    """Delete the oldest whole checkpoints until `keep` are left; the one the tracker names always stays.

    A checkpoint is renamed before it is deleted, so a kill in between leaves nothing that passes for a whole one.
    """
    directory = Path(directory)
    current = latest(directory)
    if current is None:
        return []
    older = [iteration for iteration in saved(directory) if iteration < current]
    doomed = older[: max(0, len(older) + 1 - max(1, keep))]
    for iteration in doomed:
        _remove(path_of(directory, iteration))
    if doomed:
        _remove_doomed(directory)
    return doomed


def _told(iteration: int, why: str) -> str:
    how = "was never finished" if why == damage.UNFINISHED else f"is damaged: {why}"
    return f"the checkpoint of step {iteration} {how}"


def _iteration(path: Path) -> int:
    return int(path.name.removeprefix("iter_"))


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that is not there yet."""
    names = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _remove(path: Path) -> None:
    hidden = path.with_name(DOOMED + path.name)
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _remove_doomed(directory: Path) -> None:
    for path in directory.glob(DOOMED + "*"):
        shutil.rmtree(path, ignore_errors=True)
