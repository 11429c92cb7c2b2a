"""Whose checkpoints may be loaded: those that this user's runs wrote here, and those that somebody has vouched for.

A checkpoint is pickled Python: torch rebuilds `.metadata` and some of what lies in the shards by running what is
written in them (torch/distributed/checkpoint/filesystem.py, default_planner.py). Each user has a list of the folders
that are trusted, outside of them: what comes along in an archive cannot put itself on it.
"""

import contextlib
import os
import stat
from pathlib import Path

from helpers.machine.places import given, state_root
from helpers.show.names import named

WHERE = ("", "checkpoints/", "*/checkpoints/", "*/*/checkpoints/")  # of a run, a recipe's runs, all runs


@named
def trust(folder) -> None:
    """Say that you know who wrote the checkpoints in a folder, and below: loading one runs what its author put in it.

    Raises:
        FileNotFoundError: there is no such folder. TypeError: it is no path.
        ValueError: no checkpoint lies in it, or anybody's may.
    """
    folder = given(folder, "runs.trust({})")
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"There is no folder {folder}. Give a run directory, or a folder with checkpoints in it."
        )
    folder = folder.resolve()
    if Path(os.path.expanduser("~")).is_relative_to(folder) or folder.stat().st_mode & stat.S_IWOTH:
        why = "whatever anybody puts there would be loaded, and run"
        raise ValueError(f"runs.trust({str(folder)!r}): {why}. Name the folder of one run, or of its checkpoints.")
    if not any(any(folder.glob(f"{above}iter_*")) for above in WHERE):
        raise ValueError(f"runs.trust({str(folder)!r}): no checkpoint lies in it. Name the folder of a run.")
    _add(folder)


def _add(folder: Path) -> None:
    file = _list()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not is_trusted(folder):
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as listed:
            listed.write(f"{_owner(folder)} {folder}\n")


def written_here(run_directory: Path) -> None:
    """A run of this user's begins to write there."""
    try:
        _add(Path(run_directory).resolve())
    except (OSError, RuntimeError) as refusal:  # RuntimeError: nobody has told where home is
        print(
            f"A later launch will not know that {run_directory} is yours: {refusal}. "
            "XDG_STATE_HOME=<a folder of yours> in the environment mends it."
        )


def is_trusted(folder: Path) -> bool:
    """Whether the folder, or one above it, is on the list, and still belongs to the same user."""
    folder = Path(folder).resolve()
    try:
        listed = set(_list().read_text().splitlines())
    except (OSError, RuntimeError):
        return False
    return any(f"{_owner(place)} {place}" in listed for place in (folder, *folder.parents))


def why_not(folder: Path) -> str | None:
    """Why what lies there is not loaded, in a sentence; None where it is trusted."""
    if is_trusted(folder):
        return None
    return (
        "It was not written by a run of yours on this machine (or was moved since), and loading a checkpoint runs "
        "whatever its author put into it, in your name."
    )


def _owner(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        return folder.stat().st_uid
    return None


def _list() -> Path:
    return state_root() / "trusted-checkpoints"
