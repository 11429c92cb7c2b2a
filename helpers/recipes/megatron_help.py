"""What Megatron's own sources say about a flag, in the words and the groups of a recipe's flags."""

from typing import NamedTuple

from helpers.machine import megatron_flags

GROUPS = {  # of `Recipe.flag_groups`, by a word in the name of Megatron's function or dataclass
    "checkpoint": "logging and checkpoints",
    "logg": "logging and checkpoints",
    "profiling": "logging and checkpoints",
    "one_logger": "logging and checkpoints",
    "mixed_precision": "precision",
    "quantization": "precision",
    "modelparallel": "parallelism",
    "distributed": "parallelism",
    "tokenizer": "data",
    "data": "data",
    "transformer": "model",
    "network": "model",
    "moe": "model",
    "mla": "model",
    "attention": "model",
}
LONGEST = 160


class Help(NamedTuple):
    """The first sentence of what Megatron says about a flag, its subject, and its default, if it is a plain value."""

    text: str
    group: str
    default: str | None


def of(flag: str) -> Help | None:
    """What Megatron says about a flag such as "--fp16"; None for one that this version does not have."""
    says = megatron_flags.described().get(flag)
    return says and Help(_first_sentence(says.help), _group(says.owner, flag), says.default)


def _first_sentence(text: str) -> str:
    words = " ".join(text.split())
    end = words.find(". ")
    sentence = (words if end < 0 else words[:end]).rstrip(".")
    return sentence if len(sentence) <= LONGEST else sentence[:LONGEST].rsplit(" ", 1)[0] + " …"


def _group(name: str, flag: str) -> str:
    if flag in ("--fp16", "--bf16"):  # Megatron has them beside the layout, in ModelParallelConfig
        return "precision"
    lowered = name.lower()
    return next((group for word, group in GROUPS.items() if word in lowered), "batch and schedule")
