"""Which of our changes to Megatron (`ranks/repairs/table`) act in a recipe: all that concern it, some, or none."""

from pathlib import Path

from helpers.machine import Machine, switches
from helpers.ranks.repairs import table
from helpers.show.tables import whole_sentences

ACTS_ON = {  # change -> whether a recipe has what it changes
    "gelu": lambda recipe: recipe.model.activation == "gelu" and recipe.model.linear_bias,
    "placement": lambda recipe: recipe.model.use_cpu_initialization,
    "split": lambda recipe: True,
    "cast": lambda recipe: bool(recipe.precision.fp8_format) and recipe.precision.fp8_param_gather,
    "loss_kernel": lambda recipe: (
        recipe.speed.cross_entropy_fusion == "te"
        and recipe.precision.dtype != "fp16"
        and "--deterministic-mode" not in recipe.extra_flags
    ),
    "gradient_fusion": lambda recipe: True,
}


def stock_asked() -> bool:
    """Whether MEGATRON_TOUR_STOCK=1 asks for stock Megatron, for whole pages: what `stock` of a new recipe is then."""
    return switches.is_on(switches.STOCK)


def acting(recipe, machine: Machine | None, entry_script: Path | str | None = None) -> tuple[str, ...]:
    """The changes that act in a run, in the table's order; none on a CPU and none with another entry script.

    `machine` None plans for GPUs with Transformer Engine.
    """
    if recipe.stock or entry_script is not None or (machine is not None and machine.device == "cpu"):
        return ()
    has_engine = machine is None or machine.transformer_engine
    return tuple(
        repair.name
        for repair in table.REPAIRS
        if repair.kind == table.CHANGE
        and repair.name not in recipe.without
        and ACTS_ON[repair.name](recipe)
        and (has_engine or not repair.only_with)
        and table.would_be_made(repair.name)
    )


def listed():
    """What we change in Megatron, from the table of repairs: what each replaces, why, and what it alone is worth."""
    import pandas as pd

    rows = [
        {
            "change": repair.name,
            "replaces": ", ".join(target.rpartition(":")[2] for target in repair.replaces),
            "why": repair.why,
            "to the numbers": repair.numbers,
            "worth": repair.speed,
            "upstream": repair.upstream or "–",
        }
        for repair in table.REPAIRS
        if repair.kind == table.CHANGE
    ]
    return whole_sentences(pd.DataFrame(rows).set_index("change"))
