"""The fields of a recipe, each by itself: its kind, as the dataclass declares it, and its range."""

from collections.abc import Iterator
from dataclasses import fields
from math import inf
from types import NoneType
from typing import TYPE_CHECKING, get_args

from helpers.corpus import data_split
from helpers.recipes.preflight.problem import Problem, error
from helpers.recipes.settings import PARTS
from helpers.show import bounds
from helpers.show.numbers import as_typed, unquoted

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

KNOWN = {
    "normalization": ("LayerNorm", "RMSNorm"),
    "activation": ("gelu", "swiglu"),
    "position_embedding": ("learned_absolute", "rope", "none"),
    "dtype": ("bf16", "fp16", "fp32"),
    "fp8_format": (None, "hybrid", "e4m3"),
    "fp8_recipe": ("tensorwise", "delayed", "blockwise", "mxfp8"),
    "recompute": (None, "selective", "full"),
    "wandb_mode": ("offline", "online"),
}


def values(recipe: "Recipe") -> Iterator[Problem]:
    """Fields outside the values they can take. The other rules divide by these, so they only run when all is well."""
    parts = {name: (getattr(recipe, name), kind) for name, kind in PARTS.items()}
    wrong = {name: (value, kind) for name, (value, kind) in parts.items() if not isinstance(value, kind)}
    for name, (value, kind) in wrong.items():
        why = f"This part of a recipe is a recipes.{kind.__name__}."
        yield error(
            f"{name}={as_typed(value)}", why, f"recipe.with_({fields(kind)[0].name}=…) changes one field of it."
        )
    if wrong:
        return
    if broken := [problem for part, _ in parts.values() for problem in of_part(part)]:
        yield from broken
        return
    s = recipe.schedule
    try:
        data_split.parse(s.split)
    except ValueError as odd:
        yield error(f"split={as_typed(s.split)}", str(odd), 'split="90,5,5".')
    if s.eval_interval is None:
        why = "Megatron divides by it even when it never evaluates, and stops at the first step."
        yield error("eval_interval=None", why, f"eval_interval={s.train_iters} looks once, at the end.")


def require(part) -> None:
    """Nothing for a part of a recipe whose fields have values that they can take.

    Raises:
        ValueError: one of them has not; the message names it.
    """
    for problem in of_part(part):
        raise ValueError(f"{problem.asked}: {problem.why} {problem.change}")


def of_part(part) -> Iterator[Problem]:
    """Fields of one part of a recipe, a layout say, that are outside the values they can take."""
    for field in fields(part):
        value = getattr(part, field.name)
        for problem in _value(field.name, value, field.type):
            meant = unquoted(value)
            if meant is not value and not list(_value(field.name, meant, field.type)):
                why = f"{as_typed(value)} is a text, for its quotes."
                problem = error(problem.asked, why, f"{field.name}={meant!r}, without them.")
            yield problem


def _value(name: str, value, kind) -> Iterator[Problem]:
    """One field: its kind, as the dataclass declares it, then its range."""
    kinds = get_args(kind) or (kind,)
    may_be_none = NoneType in kinds or name in _MAY_BE_NONE
    if name in KNOWN:
        if value not in KNOWN[name]:
            choices = ", ".join(repr(choice) for choice in KNOWN[name])
            yield error(f"{name}={as_typed(value)}", "Megatron has no such choice.", f"{name} is one of {choices}.")
    elif value is None and may_be_none:
        return
    elif bool in kinds:
        if not isinstance(value, bool):
            yield error(f"{name}={as_typed(value)}", "It is a switch.", f"{name}=True or {name}=False.")
    elif str in kinds:
        if not isinstance(value, str):
            change = f"{name}={EXAMPLES.get(name, 'my_name')!r}, say" + (", or None." if may_be_none else ".")
            yield error(f"{name}={as_typed(value)}", "It is a string.", change)
    elif name in _COUNTS:
        words, bound = _COUNTS[name]
        if not _is_whole(value) or value not in bound:
            why = f"{words} is counted in whole numbers from 1 to {bound[-1]:,}."
            yield error(f"{name}={as_typed(value)}", why, f"{name}={_nearest(value, bound)}.")
    elif int in kinds:
        words, bound = _NUMBERS[name], _WHOLE[name]
        if not _is_whole(value) or value not in bound:
            why = f"{words} is a whole number from {bound[0]} to {bound[-1]:,}."
            yield error(f"{name}={as_typed(value)}", why, f"{name}={_nearest(value, bound)}.")
    elif name in _SHARES:
        if not _is_number(value) or not 0 <= value < 1:
            why, change = _SHARES[name]
            yield error(f"{name}={as_typed(value)}", why, change)
    elif not _is_number(value) or not 0 <= value <= MOST:
        why = f"{_NUMBERS[name]} is a number from 0 to {MOST:g}."
        yield error(f"{name}={as_typed(value)}", why, f"{name}=0 or more.")


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf


def _nearest(value, bound: range) -> str:
    """What to give instead: the end that was passed, else where the range begins."""
    beyond = _is_whole(value) and value > bound[-1]
    return f"{bound[-1]} or less" if beyond else f"{bound[0]} or more"


MOST = 1e30  # of a number that fp32 is to hold, and its square nearly
EXAMPLES = {"split": "90,5,5", "pipeline_layout": "Et*3|ttL"}
_SHARES = {
    "dropout": (
        "It is the share of activations set to zero: at 1 nothing is left.",
        "dropout=0 or more, below 1, such as 0.1.",
    ),
    "adam_beta2": (
        "It is the share of the second moment that a step keeps: at 1 Adam never learns the gradients' size.",
        "adam_beta2=0 or more, below 1, such as 0.95.",
    ),
}
_NUMBERS = {
    "seed": "The seed",
    "rotary_base": "The base of the rotations",
    "fp8_amax_history_len": "The number of steps whose largest value counts",
    "init_method_std": "The size of the first weights",
    "norm_epsilon": "What a norm adds to the variance",
    "rope_scaling_factor": "The factor of the slow rotations",
    "lr": "The highest learning rate",
    "min_lr": "The lowest learning rate",
    "lr_warmup_iters": "The number of steps to climb",
    "weight_decay": "The pull towards zero",
    "clip_grad": "The longest gradient",
    "eval_iters": "The number of batches of an evaluation",
}
_WHOLE = {  # of these, the whole ones
    "seed": bounds.SEED,
    "rotary_base": bounds.COUNT,
    "fp8_amax_history_len": bounds.COUNT,
    "lr_warmup_iters": bounds.PLACE,
    "eval_iters": bounds.PLACE,
}
_MAY_BE_NONE = {
    "ffn_hidden_size",
    "num_query_groups",
    "num_experts",
    "kv_channels",
    "max_positions",
    "rope_scaling_factor",
    "processes",
    "expert_tensor_parallel",
    "eval_interval",
    "exit_interval",
    "save_interval",
}
_COUNTS = {
    "num_layers": ("The number of layers", bounds.LAYERS),
    "hidden_size": ("The width", bounds.WIDTH),
    "num_attention_heads": ("The number of heads", bounds.WIDTH),
    "sequence_length": ("The length of a sample", bounds.TOKENS),
    "vocab_size": ("The number of embedding rows", bounds.TOKENS),
    "ffn_hidden_size": ("The width of the MLP", bounds.WIDTH),
    "num_query_groups": ("The number of key and value heads", bounds.WIDTH),
    "num_experts": ("The number of experts", bounds.WIDTH),
    "moe_router_topk": ("The number of experts a token visits", bounds.WIDTH),
    "kv_channels": ("The size of a head", bounds.WIDTH),
    "max_positions": ("The longest sequence", bounds.TOKENS),
    "processes": ("The number of ranks", bounds.RANKS),
    "tensor_parallel": ("A parallel size", bounds.RANKS),
    "pipeline_parallel": ("A parallel size", bounds.RANKS),
    "virtual_pipeline_chunks": ("The number of chunks", bounds.LAYERS),
    "context_parallel": ("A parallel size", bounds.RANKS),
    "expert_parallel": ("A parallel size", bounds.RANKS),
    "expert_tensor_parallel": ("A parallel size", bounds.RANKS),
    "micro_batch_size": ("The micro-batch", bounds.SAMPLES),
    "global_batch_size": ("The global batch", bounds.SAMPLES),
    "train_iters": ("The number of steps", bounds.STEPS),
    "eval_interval": ("The distance between evaluations", bounds.STEPS),
    "exit_interval": ("The step to stop at", bounds.STEPS),
    "save_interval": ("The distance between checkpoints", bounds.STEPS),
    "keep": ("The number of checkpoints kept", bounds.STEPS),
}
