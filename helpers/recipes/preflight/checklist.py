"""What cannot work, said before any process starts: what was asked, why not, what to change.

Reads a recipe, a corpus's files, a machine and a run directory. It imports neither Megatron nor torch and leaves
nothing behind, so it takes well under a second.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine import Machine, here
from helpers.ranks.refused_flags import job_of
from helpers.recipes import accounting
from helpers.recipes.preflight import precision, sizes
from helpers.recipes.preflight.changes import changes
from helpers.recipes.preflight.data import corpus_problems
from helpers.recipes.preflight.directory import directory
from helpers.recipes.preflight.memory import memory
from helpers.recipes.preflight.problem import Problem, error, warning

if TYPE_CHECKING:
    from helpers.corpus.corpus import Corpus
    from helpers.recipes.recipe import Recipe


class PreflightError(ValueError):
    """The run cannot work. `problems` holds every reason; the message says them all."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        what = "This cannot work" if len(problems) == 1 else f"{len(problems)} things cannot work"
        super().__init__("\n\n".join([f"{what}, so nothing was started.", *map(str, problems)]))


def check(
    recipe: "Recipe",
    data: "Corpus | None",
    machine: Machine | None = None,
    run_directory: Path | str | None = None,
    entry_script: Path | str | None = None,
) -> list[Problem]:
    """Everything that would keep the run from working, or that will surprise, in the order a learner would fix it.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `corpus.Corpus`, or None for Megatron's mock data.
        machine: where it would run; None is this machine.
        run_directory: where its runs lie, or would; None leaves disk and directory unchecked.
        entry_script: the learner's own `pretrain_gpt.py`, which may do other jobs than ours.
    """
    machine = machine or here()
    if found := list(sizes.values(recipe)):
        return found
    found = [*sizes.shapes(recipe), *sizes.ranks(recipe, machine), *sizes.experts(recipe)]
    splits_evenly = not any(problem.severity == "error" for problem in found)
    if splits_evenly:
        found += sizes.batch_and_schedule(recipe)
    found += [*precision.precision(recipe, machine), *precision.speed(recipe, machine)]
    found += [*changes(recipe, machine), *extra_flags(recipe, data, machine, entry_script is None), *logging(recipe)]
    if data is not None:
        found += corpus_problems(recipe, data)
    if run_directory is not None:
        found += directory(recipe, data, Path(run_directory), entry_script)
    if splits_evenly:
        parts = accounting.memory(recipe, machine)
        found += [*precision.cuda_graph(recipe, machine, parts), *memory(recipe, machine, parts)]
    return found


def refuse(problems: list[Problem]) -> list[Problem]:
    """What `check` found, if it is only warnings.

    Raises:
        PreflightError: there is an error among the problems; it holds all of them.
    """
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise PreflightError(errors)
    return problems


def extra_flags(
    recipe: "Recipe", data: "Corpus | None", machine: Machine, our_script: bool = True
) -> Iterator[Problem]:
    """Flags of the learner's own: those our entry script leaves out, and those a field of the recipe sets already."""
    words = [word.split("=")[0] for word in recipe.extra_flags if word.startswith("--")]
    if not words:
        return
    for word in words if our_script else ():
        if job := job_of(word):
            why = f"It belongs to {job}; this script pretrains GPT models."
            yield error(f"extra_flags {word}", why, "Leave it out, or give your own Megatron-LM as entry_script.")
    groups = recipe.flag_groups(data, machine)
    ours = {flag.name for group, flags in groups.items() if group != "your own" for flag in flags}
    for word in sorted(ours.intersection(words)):
        why = "The recipe sets this flag itself; Megatron takes the last one, which preflight has not checked."
        yield warning(f"extra_flags {word}", why, "recipe.with_(…) changes it in one place.")


def logging(recipe: "Recipe") -> Iterator[Problem]:
    """W&B without TensorBoard."""
    if recipe.logging.wandb_project and not recipe.logging.tensorboard:
        why = "Megatron sends to W&B what it writes to TensorBoard, and nothing without it; so it is turned on for you."
        yield warning(
            f'wandb_project="{recipe.logging.wandb_project}" with tensorboard=False', why, "tensorboard=True."
        )
