"""What cannot work, said before any process starts: what was asked, why not, what to change.

Reads a recipe, a corpus's files, a machine and a run directory. It imports neither Megatron nor torch and leaves
nothing behind, so it takes well under a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine import Machine, given, here
from helpers.recipes import accounting
from helpers.recipes.nodes import Nodes
from helpers.recipes.preflight import one_rank, pipeline, precision, ranges
from helpers.recipes.preflight.changes import changes
from helpers.recipes.preflight.data import corpus_problems, no_corpus, reading_ahead
from helpers.recipes.preflight.directory import directory, loaded, pretrained
from helpers.recipes.preflight.division import split
from helpers.recipes.preflight.hosts import between, ranks_on
from helpers.recipes.preflight.memory import memory
from helpers.recipes.preflight.problem import Problem
from helpers.recipes.preflight.words import extra_flags, logging, name, words
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


class PreflightError(ValueError):
    """The run cannot work. `problems` holds every reason; the message says them all."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        what = "This cannot work" if len(problems) == 1 else f"{len(problems)} things cannot work"
        super().__init__("\n\n".join([f"{what}, so nothing was started.", *map(str, problems)]))


@checked
def check(
    recipe: "Recipe",
    data,
    machine: Machine | None = None,
    run_directory: Path | str | None = None,
    entry_script: Path | str | None = None,
    stage: int | None = None,
    nodes: Nodes | None = None,
) -> list[Problem]:
    """Everything that would keep the run from working, or that will surprise, in the order a learner would fix it.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `corpus.Corpus` or `corpus.Blend`, or None for Megatron's mock data.
        machine: where it would run; None is this machine.
        run_directory: where its runs lie, or would; None leaves disk and directory unchecked.
        entry_script: the learner's own `pretrain_gpt.py`, which may do other jobs than ours.
        stage: one rank of this pipeline stage runs alone there (`launch.one_of_many`): its memory counts, and no other
            rank needs a GPU. None: the whole job runs.
        nodes: the hosts that it would run on, each like `machine`; None: all ranks are on one.
    """
    machine = machine or here()
    if found := [*name(recipe), *wrong_values(recipe), *no_corpus(data)]:
        return found
    if stage is not None:
        machine = one_rank.on_as_many(recipe, machine)
        if found := list(one_rank.alone(recipe, machine, stage)):
            return found
    each = recipe.layout.world_size if nodes is None else nodes.processes_per_node
    if nodes is not None:
        machine = nodes.machine(machine)
        if found := list(ranks_on(recipe, nodes)):
            return found
    found = split(recipe, machine)
    splits_evenly = not any(problem.severity == "error" for problem in found)
    found += [*precision.precision(recipe, machine), *precision.speed(recipe, machine)]
    found += [*changes(recipe, machine), *extra_flags(recipe, data, machine, entry_script is None), *logging(recipe)]
    found += pipeline.recording(recipe, machine, entry_script is None)
    found += [*loaded(recipe), *pretrained(recipe)]
    if data is not None:
        found += corpus_problems(recipe, data, machine)
    if run_directory is not None:
        place = given(run_directory, "preflight.check(run_directory={})")
        found += [*reading_ahead(recipe), *directory(recipe, data, place, entry_script)]
    if nodes is not None:
        found += [*between(recipe, nodes, machine)]
    if splits_evenly:
        parts = accounting.memory(recipe, machine, stage)
        ranks = each if stage is None else 1
        found += [*precision.cuda_graph(recipe, machine, parts), *memory(recipe, machine, parts, ranks)]
    return found


@checked
def wrong_values(recipe: "Recipe") -> list[Problem]:
    """Fields that are of another kind, or outside the range, that a count or a flag can be made of."""
    return [*words(recipe), *ranges.values(recipe)]


@checked
def require_values(recipe: "Recipe") -> None:
    """Nothing for a recipe without `wrong_values`.

    Raises:
        PreflightError: it has some.
    """
    if found := wrong_values(recipe):
        raise PreflightError(found)


@checked
def require(recipe: "Recipe", machine: Machine | None = None) -> None:
    """Nothing for a recipe whose sizes are numbers and divide evenly; with a machine, over its GPUs, too.

    Raises:
        PreflightError: as `check` would tell it.
    """
    require_values(recipe)
    refuse(split(recipe, machine))


@checked
def refuse(problems: list[Problem]) -> list[Problem]:
    """What `check` found, if it is only warnings.

    Raises:
        PreflightError: there is an error among the problems; it holds all of them.
    """
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise PreflightError(errors)
    return problems
