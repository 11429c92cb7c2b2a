"""Did Megatron load what it was to load? It goes on with random weights, and in silence, where it finds nothing."""

import re
from pathlib import Path

from helpers.processes import checkpoints

LOOK_SECONDS = 30.0  # into a checkpoint that a launch could not load
MISSING = re.compile(r"could not find the metadata file (\S+)")  # megatron/training/checkpointing.py:1690
UNREADABLE = re.compile(r"PytorchStreamReader failed [^.\n]*")  # torch's, of an archive that it cannot open
LOADED = re.compile(r"successfully loaded checkpoint from (\S+) .*?at iteration (\d+)")  # the same file, :2716


def wrong_start(log: str, own: Path, step: int | None) -> str | None:
    """What of the loading that the log tells of is not what was asked for, in words; None where all is well.

    `own` is the run's `checkpoints/`, which every launch of ours names in `--load`; `step` the one to go on after, None
    for a new run: then `own` holds nothing yet, and only another folder, which somebody gave, must be found.
    """
    for tracker in MISSING.findall(log):
        lost = f"Megatron could not find the metadata file {tracker} and started from random weights"
        if step is not None:
            return f"{lost}, where step {step} was to be loaded"
        if Path(tracker).parent.resolve() != own.resolve():
            return f"{lost}, where a checkpoint was to be loaded"
    for folder, loaded in LOADED.findall(log):
        if step is not None and int(loaded) != step:
            return f"Megatron loaded step {loaded} from {folder}, where step {step} of this run was to be loaded"
    return None


def set_aside(log: str, own: Path, step: int) -> list[str]:
    """Of a launch that failed and was to go on after `step`: what is wrong with that checkpoint, in words.

    A damaged one is set aside, so that the next launch takes the one before. The files are asked, not the log: a
    garbled one makes torch raise whatever it likes, and a changed model ends a launch in the same place.
    """
    if LOADED.search(log):
        return []
    if done := checkpoints.repair(own, LOOK_SECONDS):
        return done
    if not (words := UNREADABLE.search(log)):
        return []
    wrong = f"the checkpoint of step {step} is damaged: torch cannot read it ({words[0].strip()})"
    aside = checkpoints.set_aside(checkpoints.path_of(own, step), wrong)
    return [aside, *checkpoints.repair(own, LOOK_SECONDS)]
