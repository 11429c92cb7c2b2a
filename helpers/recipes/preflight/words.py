"""What a recipe is given in words: its name, W&B's names, flags of the learner's own."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.machine import Machine, megatron_flags
from helpers.processes.run_directory import why_no_name, why_no_word
from helpers.ranks import refused_flags
from helpers.recipes.preflight.problem import Problem, error, warning
from helpers.show.numbers import as_typed

ONE_LINE = re.compile(r"(?!-)[^\x00-\x1f\x7f]{1,128}")
WANDB_PROJECT = re.compile(r"(?!-)[^\x00-\x1f\x7f/\\#?%:]{1,128}")

OWNED = {  # flags that say where a run keeps its files: why not, and what instead
    "--save": (
        "Each run keeps its checkpoints in its own directory, where the same call picks it up.",
        "recipe.with_(save_interval=100) saves there every 100 steps.",
    ),
    "--load": (
        "Each run loads its own checkpoints, so that it can go on where it was stopped.",
        "--pretrained-checkpoint <folder> begins with somebody's weights.",
    ),
    "--tensorboard-dir": (
        "A run's curves are read from its own directory.",
        "Leave it out: tensorboard=True is the recipe's own.",
    ),
    "--wandb-save-dir": ("W&B keeps its files in the run's own directory.", 'wandb_project="my_project" names it.'),
    "--data-cache-path": (
        "Each run keeps the order of its samples in its own directory: what a killed start leaves is mended there.",
        "Leave it out.",
    ),
    "--help": (
        "It prints what Megatron knows and trains nothing.",
        "Leave it out; recipe.explain() shows this run's flags.",
    ),
}

if TYPE_CHECKING:
    from helpers.corpus.corpus import Corpus
    from helpers.recipes.recipe import Recipe


def name(recipe: "Recipe") -> Iterator[Problem]:
    """A name that cannot be a folder's."""
    if isinstance(recipe.name, str) and (why := why_no_name(recipe.name)):
        yield error(f"name={as_typed(recipe.name)}", why, 'name="my_run", say.')


def words(recipe: "Recipe") -> Iterator[Problem]:
    """A name, a tokenizer and W&B's names that are no texts, flags that are no tuple of words."""
    if not isinstance(recipe.name, str):
        yield error(f"name={as_typed(recipe.name)}", why_no_name(recipe.name), 'name="my_run", say.')
    if not isinstance(recipe.tokenizer, str) or not recipe.tokenizer:
        why = "It is what corpus.prepare(tokenizer=…) takes: a name or a path, as a text."
        named = "str(data.tokenizer_path)" if hasattr(recipe.tokenizer, "tokenizer_path") else '"gpt2"'
        yield error(f"tokenizer={as_typed(recipe.tokenizer)}", why, f"tokenizer={named}, say.")
    for field in ("scaled_for", "pretrained"):
        if not isinstance(value := getattr(recipe, field), str | None):
            yield error(f"{field}={as_typed(value)}", "It is a text, or None.", f"{field}=None.")
    flags = recipe.extra_flags
    if not isinstance(flags, tuple) or not all(isinstance(word, str) for word in flags):
        why = "It is a tuple of the words of a command line, each one a string."
        given = flags.split() if isinstance(flags, str) else flags if isinstance(flags, list | tuple) else ()
        words = tuple(str(word) for word in given if isinstance(word, str | int | float))
        yield error(f"extra_flags={as_typed(flags)}", why, f"extra_flags={words}.")
    elif odd := next((word for word in flags if why_no_word(word)), None):
        yield error(f"extra_flags {as_typed(odd)}", why_no_word(odd), "Take it out.")
    if not isinstance(recipe.without, tuple) or not all(isinstance(word, str) for word in recipe.without):
        why = "It is a tuple of names of changes that we make to Megatron."
        yield error(f"without={as_typed(recipe.without)}", why, 'without=("gelu",), say, or without=().')
    for field in ("wandb_project", "wandb_entity", "wandb_run_name"):
        value = getattr(recipe.logging, field, None)
        if isinstance(value, str) and not (WANDB_PROJECT if field == "wandb_project" else ONE_LINE).fullmatch(value):
            why = "It is one line of up to 128 characters that does not begin with a -"
            why += r", and W&B takes none of / \ # ? % : in a project's name." if field == "wandb_project" else "."
            yield error(f"{field}={as_typed(value)}", why, f'{field}="my_project", say.')


def extra_flags(
    recipe: "Recipe", data: "Corpus | None", machine: Machine, our_script: bool = True
) -> Iterator[Problem]:
    """Flags of the learner's own: unknown, of other jobs (in our script), breaking here, set by a field already."""
    if not recipe.extra_flags:
        return
    given = _given(recipe.extra_flags)
    asked = [word for word, _ in given]
    if not recipe.extra_flags[0].startswith("--") and recipe.extra_flags[0] != "-h":
        why = "It is the value of no flag: a flag begins with --."
        yield error(f"extra_flags {recipe.extra_flags[0]}", why, 'extra_flags=("--flag", "value").')
    for word, values in given:
        if our_script and (job := refused_flags.job_of(word)):
            why = f"It belongs to {job}; this script pretrains GPT models."
            yield error(f"extra_flags {word}", why, "Leave it out, or give your own Megatron-LM as entry_script.")
        elif (flag := megatron_flags.whole(word)) in OWNED:
            yield error(f"extra_flags {word}", *OWNED[flag])
        elif our_script:
            yield from _as_megatrons(word, flag, values)
    for row in refused_flags.broken(recipe.flags(data, machine), on_cpu=machine.device == "cpu"):
        yield error(f"extra_flags {row.flag} on {machine.name}", row.why, row.change)
    groups = recipe.flag_groups(data, machine)
    ours = {flag.name for group, flags in groups.items() if group != "your own" for flag in flags}
    for word in sorted(ours.intersection(asked)):
        why = "The recipe sets this flag itself; Megatron takes the last one, which preflight has not checked."
        yield warning(f"extra_flags {word}", why, "recipe.with_(…) changes it in one place.")


def _as_megatrons(word: str, flag: str, values: list[str]) -> Iterator[Problem]:
    """What Megatron's own parser would say of a flag and the words behind it; nothing where there is no Megatron."""
    described = megatron_flags.described().get(flag)
    if described is None and megatron_flags.known():
        yield error(f"extra_flags {word}", "Megatron has no such flag.", _nearest(word))
    elif described and (why := described.takes.why_not(values)):
        change = f"Megatron says of it: {_first_sentence(described.help)}" if described.help else "Leave it out."
        yield error(f"extra_flags {' '.join([word, *values])}", why, change)


def _given(extra_flags: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Each flag with the words behind it."""
    found: list[tuple[str, list[str]]] = []
    for word in extra_flags:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            found.append((flag, [value] if equals else []))
        elif word == "-h":
            found.append(("--help", []))
        elif found:
            found[-1][1].append(word)
    return found


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".") + "."


def _nearest(flag: str) -> str:
    if words := flag.split()[1:]:
        return f"Each word by itself: extra_flags={(flag.split()[0], *words)}."
    if close := megatron_flags.nearest(flag):
        return f'Did you mean "{close}"?'
    return "Leave it out, or give the script that has it as entry_script."


def logging(recipe: "Recipe") -> Iterator[Problem]:
    """W&B without TensorBoard."""
    if recipe.logging.wandb_project and not recipe.logging.tensorboard:
        why = "Megatron sends no losses to W&B unless it writes them to TensorBoard too; so that is turned on for you."
        yield warning(
            f'wandb_project="{recipe.logging.wandb_project}" with tensorboard=False', why, "tensorboard=True."
        )
