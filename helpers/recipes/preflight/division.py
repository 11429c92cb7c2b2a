"""Do the sizes of a recipe divide evenly: model, layout and batch against each other, and against the GPUs?"""

from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.preflight import pipeline, sizes
from helpers.recipes.preflight.problem import Problem
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


@checked
def split(recipe: "Recipe", machine: Machine | None) -> list[Problem]:
    """What the sizes of model, layout and batch have against each other, and against the number of a machine's GPUs."""
    found = [*sizes.shapes(recipe), *pipeline.stages(recipe), *sizes.ranks(recipe, machine), *sizes.experts(recipe)]
    if not any(problem.severity == "error" for problem in found):
        found += sizes.batch_and_schedule(recipe)
    return found


def is_even(recipe: "Recipe", machine: Machine) -> bool:
    """Whether nothing in `split` stands in the way."""
    return not any(problem.severity == "error" for problem in split(recipe, machine))
