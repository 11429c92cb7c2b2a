"""What cannot be left out of Megatron, or changed in it, the way that was asked."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.ranks.repairs import table
from helpers.recipes.changes import stock_asked
from helpers.recipes.preflight.problem import Problem, error, warning
from helpers.show.numbers import as_typed

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


def changes(recipe: "Recipe", machine: Machine) -> Iterator[Problem]:
    """`stock` and `without` against the table of our changes."""
    if not isinstance(recipe.stock, bool):
        yield error(
            f"stock={as_typed(recipe.stock)}", "It is a switch.", "stock=True makes none of our changes to Megatron."
        )
    if set(recipe.without) - set(table.CHANGES):
        why = f"It is a tuple of names of changes that we make to Megatron: {', '.join(table.CHANGES)}."
        yield error(f"without={as_typed(recipe.without)}", why, 'without=("gelu",), say.')
        return
    left_out = recipe.stock or "placement" in recipe.without
    if machine.device == "cuda" and recipe.model.use_cpu_initialization and left_out:
        why = "Stock Megatron leaves such a model in main memory and stops at the first broadcast."
        yield error("use_cpu_initialization without placement", why, "use_cpu_initialization=False.")
    if machine.device == "cpu" and (recipe.stock and not stock_asked() or recipe.without):
        why = "None of our changes acts on a CPU. What stands there in the place of a GPU (ranks/cpu) is needed to run."
        yield warning("stock on a CPU", why, "Nothing; on a GPU it makes a difference.")
