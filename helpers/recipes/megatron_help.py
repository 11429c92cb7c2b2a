"""What Megatron's own sources say about a flag, read from the installed files without importing them.

Megatron 0.19 defines flags in two ways: `add_argument(…, help=…)` in `training/arguments.py`, and fields of dataclasses
with a docstring behind each, of which `ArgumentGroupFactory` (`training/argument_utils.py`) makes arguments.
"""

import ast
from functools import lru_cache
from typing import NamedTuple

from helpers.machine import megatron_source

FILES = (
    "training/arguments.py",
    "training/config/common_config.py",
    "training/config/resilience_config.py",
    "training/config/training_config.py",
    "training/config/inference_config.py",
    "core/transformer/transformer_config.py",
    "core/model_parallel_config.py",
    "core/fault_injector.py",
)
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
    return _every().get(flag)


@lru_cache(maxsize=1)
def _every() -> dict[str, Help]:
    found: dict[str, Help] = {}
    for file in FILES:
        for node in ast.parse(megatron_source(file).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                added = _added(node)
            elif isinstance(node, ast.ClassDef):
                added = _fields(node)
            else:
                continue
            for name, text, default in added:
                if name not in found or not found[name].text:
                    found[name] = Help(_first_sentence(text), _group(node.name, name), _default(default))
    return found


def _added(function: ast.FunctionDef):
    """(flag, help, default) of every `add_argument` in a function."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            names = [_text(name) for name in call.args if _text(name).startswith("--")]
            if "action" in given and ast.unparse(given["action"]).endswith("BooleanOptionalAction"):
                names += [name.replace("--", "--no-", 1) for name in names]
            yield from ((name, _text(given.get("help")), given.get("default")) for name in names)


def _fields(dataclass: ast.ClassDef):
    """(flag, docstring, default) of every field of a dataclass; a switch that is on has flags that turn it off."""
    for field, after in zip(dataclass.body, [*dataclass.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign):
            continue
        name = field.target.id.replace("_", "-")
        text = _text(after.value) if isinstance(after, ast.Expr) else ""
        names = [f"--{name}"]
        if isinstance(field.value, ast.Constant) and field.value.value is True:
            names = [f"--no-{name}", f"--disable-{name}"]
        for node in ast.walk(field):  # metadata={"argparse_meta": {"arg_names": […]}} has the names instead
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                names = next((ast.literal_eval(value) for key, value in pairs if _text(key) == "arg_names"), names)
        yield from ((name, text, field.value) for name in names)


def _default(node: ast.AST | None) -> str | None:
    """A default as one would type it; None for a switch, and where there is none or the source works it out."""
    if isinstance(node, ast.Call):
        node = next((keyword.value for keyword in node.keywords if keyword.arg == "default"), None)
    value = node.value if isinstance(node, ast.Constant) else None
    return None if value is None or isinstance(value, bool) else str(value)


def _text(node: ast.AST | None) -> str:
    """A text as it stands in the source; what is only known when it runs ("{…}") is left out."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


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
