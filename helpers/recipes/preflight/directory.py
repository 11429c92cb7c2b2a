"""Can the run directory take the run: its disk, and what lies in it?"""

import itertools
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine import PROJECT
from helpers.processes import checkpoints, trust
from helpers.processes.run_directory import other_place, unfinished
from helpers.processes.run_files import read_json, why_damaged
from helpers.recipes import accounting
from helpers.recipes.preflight.problem import Problem, error
from helpers.recipes.settings import Model
from helpers.show import numbers

LOADING = "--pretrained-checkpoint"
SHAPING = (  # what of a model decides its tensors
    "num_layers", "hidden_size", "num_attention_heads", "query_groups", "head_size", "ffn_size", "vocab_size",
    "normalization", "activation", "position_embedding", "tied_embeddings", "linear_bias", "qkv_bias", "num_experts",
)  # fmt: skip

if TYPE_CHECKING:
    from helpers.corpus.corpus import Corpus
    from helpers.recipes.recipe import Recipe


def identity(recipe: "Recipe", data: "Corpus | None", entry_script: Path | str | None) -> dict:
    """What two launches have in common that continue one run; it lies in the run's recipe.json."""
    return {"fingerprint": recipe.fingerprint(data), "entry_script": entry_script and str(entry_script)}


def directory(
    recipe: "Recipe", data: "Corpus | None", run_directory: Path, entry_script: Path | str | None = None
) -> Iterator[Problem]:
    """Another recipe's checkpoint, a place that cannot be written to, too little disk for the checkpoints."""
    if not str(run_directory).isprintable():
        why = "A line break in it would begin a new line in the log and in command.sh."
        yield error(f"run directory {str(run_directory)!r}", why, "A folder whose name can be printed.")
        return
    if why := why_damaged(run_directory):
        yield error(f"run directory {run_directory}", why, "Move it away, or begin another: fresh=True.")
        return
    same = identity(recipe, data, entry_script)
    step, ours = checkpoints.latest(run_directory / "checkpoints"), same["fingerprint"]
    holds = read_json(run_directory / "recipe.json").get("fingerprint")
    if step is not None and holds != ours:
        why = (
            f"It holds a checkpoint of step {step} of another recipe or corpus ({holds or 'unknown'}, this one is "
            f"{ours}): Megatron would continue from weights of another shape or meaning."
        )
        yield error(f"run directory {run_directory}", why, "fresh=True starts a run directory of its own.")
    parent = next(path for path in (run_directory, *run_directory.parents) if path.exists())
    if parent.is_file():
        why = f"{parent} is a file, and a folder of that name is to hold the runs."
        yield error(f"run directory {run_directory}", why, "Move it away, or recipe.with_(name=…).")
        return
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as refusal:
        why = f"{parent} cannot be written to: {refusal.strerror}."
        yield error(f"run directory {run_directory}", why, other_place(run_directory))
        return
    picked_up = unfinished(run_directory, same)
    if picked_up and any((picked_up / "checkpoints").glob("iter_*")) and (why := trust.why_not(picked_up)):
        change = f'runs.trust("{picked_up}") if you know its author; fresh=True starts without it.'
        yield error(f"the checkpoint of {picked_up}", why, change)
    yield from _disk(recipe, parent, len(checkpoints.saved(picked_up / "checkpoints")) if picked_up else 0)


def loaded(recipe: "Recipe") -> Iterator[Problem]:
    """Checkpoints from elsewhere that the learner's own flags load."""
    words = [part for word in recipe.extra_flags for part in word.split("=", 1)]
    for flag, folder in itertools.pairwise(words):
        if flag == LOADING and (why := trust.why_not(PROJECT / folder)):
            change = f'runs.trust("{folder}") if you know its author.'
            yield error(f"extra_flags {flag} {folder}", why, change)


def pretrained(recipe: "Recipe") -> Iterator[Problem]:
    """The checkpoint that training is to begin with: is it there, whole, known, and of the same model?"""
    if recipe.pretrained is None:
        return
    folder = Path(recipe.pretrained)
    asked = f"pretrained={str(folder)!r}"
    step = checkpoints.latest(folder)
    if step is None or step not in checkpoints.saved(folder):
        damaged = checkpoints.damaged(folder)
        why = "There is no whole checkpoint in it: no iter_… folder that latest_checkpointed_iteration.txt names."
        why = checkpoints.sentences([damaged[step]]) if step in damaged else why
        yield error(asked, why, "A run that saved a whole one, run.path, or a recipe of weights.from_hugging_face.")
        return
    if why := trust.why_not(folder):
        yield error(asked, why, f'runs.trust("{folder}") if you know its author.')
    begun = read_json(folder.parent / "recipe.json").get("model")
    if begun:
        theirs = Model(**{field.name: begun[field.name] for field in fields(Model) if field.name in begun})
        differs = [name for name in SHAPING if getattr(theirs, name) != getattr(recipe.model, name)]
        if recipe.model.position_embedding == "learned_absolute" and theirs.positions != recipe.model.positions:
            differs.append("positions")
        if differs:
            told = ", ".join(f"{name}={getattr(theirs, name)!r}" for name in differs)
            ours = ", ".join(f"{name}={getattr(recipe.model, name)!r}" for name in differs)
            why = f"It holds a model with {told}, and the recipe has {ours}: its tensors have other shapes."
            yield error(asked, why, "The model as it was trained, or pretrained=None.")


def _disk(recipe: "Recipe", folder: Path, there: int) -> Iterator[Problem]:
    """`there` is how many of the run's checkpoints lie on the disk already."""
    keep, interval = recipe.checkpoints.keep, recipe.checkpoints.save_interval
    if interval is None:
        return
    size, one, free = numbers.decimal_bytes, accounting.checkpoint_bytes(recipe), shutil.disk_usage(folder).free
    steps = recipe.schedule.last_step
    largest, limit = one / recipe.layout.world_size, resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and largest > limit and "--dist-ckpt-workers" not in recipe.extra_flags:
        why = (
            f"Each rank writes a file of about {size(largest)} into a checkpoint, and `ulimit -f` allows {size(limit)}."
        )
        change = "`ulimit -f unlimited` in the shell that starts Jupyter, or save_interval=None (no checkpoints)."
        yield error(f"save_interval={interval}", why, change)
    # The next checkpoint is whole before the oldest goes.
    count = max(1, min(keep + 1, -(-steps // interval)) - there)
    if one * count > free:
        why = f"A checkpoint takes {size(one)}, {count} on disk at once {size(one * count)}; {size(free)} is free."
        fits = int(free // one) + there
        change = f"keep={fits - 1}" if fits >= 2 else "save_interval=None (no checkpoints)"
        yield error(f"save_interval={interval} with keep={keep}", why, f"{change}, or free {size(one * count - free)}.")
