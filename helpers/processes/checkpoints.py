"""The `checkpoints/` folder of a run: what is whole in it, what a killed run left half done, what may go."""

import shutil
from pathlib import Path

TRACKER = "latest_checkpointed_iteration.txt"
DOOMED = ".deleting-"


def saved(directory: Path) -> list[int]:
    """Iterations whose checkpoint is whole, oldest first.

    `metadata.json` is the last file Megatron writes in one (megatron/core/dist_checkpointing/serialization.py, `save`);
    the legacy format has `mp_rank_*` folders instead.
    """
    return sorted(
        _iteration(path)
        for path in Path(directory).glob("iter_*")
        if (path / "metadata.json").is_file() or any(path.glob("mp_rank_*"))
    )


def latest(directory: Path) -> int | None:
    """The iteration that Megatron would load, None when there is nothing to load."""
    try:
        return int((Path(directory) / TRACKER).read_text())
    except (OSError, ValueError):
        return None


def path_of(directory: Path, iteration: int) -> Path:
    return Path(directory) / f"iter_{iteration:07d}"


def size_bytes(directory: Path) -> int:
    """Bytes on disk under `directory`, half-written checkpoints included."""
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())


def repair(directory: Path) -> list[str]:
    """Make a folder that a killed run left loadable again; returns what was done, in words.

    Megatron writes the tracker after the checkpoint and not atomically: killed in between, it is empty or behind the
    newest whole checkpoint, and reading an empty one ends the program. Half-written checkpoints newer than the last
    whole one are removed. Call it only when no process of the run is alive.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return []
    done = []
    whole = saved(directory)
    for path in directory.glob("iter_*"):
        if _iteration(path) not in whole:
            _remove(path)
            done.append(f"removed the unfinished checkpoint of step {_iteration(path)}")
    _remove_doomed(directory)
    tracker = directory / TRACKER
    newest = whole[-1] if whole else None
    if latest(directory) not in whole and tracker.exists():
        if newest is None:
            tracker.unlink()
            done.append("no checkpoint is whole: the run starts at step 1")
        else:
            fresh = tracker.with_suffix(".tmp")
            fresh.write_text(str(newest))
            fresh.replace(tracker)
            done.append(f"the last whole checkpoint is that of step {newest}")
    return done


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


def _iteration(path: Path) -> int:
    return int(path.name.removeprefix("iter_"))


def _remove(path: Path) -> None:
    hidden = path.with_name(DOOMED + path.name)
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _remove_doomed(directory: Path) -> None:
    for path in directory.glob(DOOMED + "*"):
        shutil.rmtree(path, ignore_errors=True)
