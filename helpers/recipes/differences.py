"""The flags in which two launches differ: a recipe and another one, or a recipe and somebody's own launch script."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import launch_script, megatron_help
from helpers.recipes.flag import Flag, require_group
from helpers.show.message import Absence
from helpers.show.tables import whole_sentences

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

CORPUS = ("--mock-data", "--data-path", "--data-cache-path", "--tokenizer-type", "--tokenizer-model")
CORPUS += ("--vocab-size", "--vocab-file", "--merge-file")
PLACE = "<run>"  # in a value of ours: a folder that each run has for itself


def diff(recipe: "Recipe", other, data=None, machine: Machine | None = None, group=None):
    """The flags that only one of two launches has, or that have another value, by group, with the reason of each.

    A flag of a recipe has the recipe's reason, one that only a script has Megatron's own help text. Megatron's default
    of what a script leaves out stands in brackets, and is no difference where it is our value. Folders of a run are not
    compared, and without `data` neither are the flags that name a corpus or a tokenizer.

    Args:
        other: a `Recipe`, or the path of a bash script: see `launch_script.read`.
        data: the `corpus.Corpus` of the recipe.
        group: one of `Recipe.flag_groups` alone.

    Returns:
        A pandas table with "–" where one has it not and "on" for a switch; a sentence where nothing differs.

    Raises:
        TypeError: `other` is neither.
        FileNotFoundError, ValueError: there is no such script, or no training in it; there is no such group.
    """
    require_group(group)
    import pandas as pd

    groups, by_default = recipe.flag_groups(data, machine), False
    if hasattr(other, "flag_groups") and not isinstance(other, type):
        name = other.name if other.name != recipe.name else f"{other.name} (other)"
        theirs = other.flag_groups(data, machine)
    elif isinstance(other, str | os.PathLike):
        name, by_default = Path(other).name, True
        theirs = _of_script(launch_script.read(other).flags, groups)
    else:
        told = "Compare a recipe with another recipe or with the path of a bash script"
        raise TypeError(f"{told}, not with {type(other).__name__}.")
    rows = []
    for subject in dict.fromkeys([*groups, *theirs]):
        if group not in (None, subject):
            continue
        here, there = ({flag.name: flag for flag in one.get(subject, [])} for one in (groups, theirs))
        for flag in {**here, **there}:
            default = _default(flag) if by_default and flag not in there else None
            if data is None and flag in CORPUS or _alike(here.get(flag), there.get(flag) or default):
                continue
            why = (here.get(flag) or there[flag]).why
            absent = f"– ({default.value})" if default else "–"
            rows.append((subject, flag, _shown(here.get(flag), "–"), _shown(there.get(flag), absent), why))
    if not rows:
        return Absence(f"{recipe.name} and {name} differ in no flag" + (f' of the group "{group}".' if group else "."))
    table = pd.DataFrame(rows, columns=["group", "flag", recipe.name, name, "why"])
    table = table.set_index(["group", "flag"]) if group is None else table.drop(columns="group").set_index("flag")
    return whole_sentences(table)


def _of_script(flags: dict[str, str | None], groups: dict[str, list[Flag]]) -> dict[str, list[Flag]]:
    """A script's flags by the subjects of a recipe's: by the recipe's own where it has the flag, else by Megatron's."""
    subjects = {flag.name: subject for subject, several in groups.items() for flag in several}
    sorted_flags: dict[str, list[Flag]] = {}
    for name, value in flags.items():
        known = megatron_help.of(name)
        why = "Megatron, as it is installed here, does not know this flag" if known is None else known.text
        subject = subjects.get(name) or (known.group if known else "your own")
        sorted_flags.setdefault(subject, []).append(Flag(name, value, why))
    return sorted_flags


def _default(name: str) -> Flag | None:
    known = megatron_help.of(name)
    return Flag(name, known.default, "") if known and known.default is not None else None


def _alike(one: Flag | None, other: Flag | None) -> bool:
    if one is None or other is None:
        return False
    if PLACE in f"{one.value} {other.value}":
        return True
    mine, theirs = " ".join(one.values), " ".join(other.values)
    return mine == theirs or _number(mine) == _number(theirs) is not None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(flag: Flag | None, absent: str) -> str:
    return absent if flag is None else "on" if flag.value is None else " ".join(flag.values)
