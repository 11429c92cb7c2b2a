"""The flags of the installed Megatron, read from its source: importing it takes ten seconds.

`megatron/training/arguments.py` adds flags one by one (`add_argument("--lr", help=…)`) and by whole dataclasses
(`ArgumentGroupFactory(TrainingConfig)`): each field is a flag, with a docstring behind it; a switch that is on is
`--no-…` and `--disable-…`.
"""

import ast
import difflib
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from helpers.machine import megatron_values
from helpers.machine.megatron_values import Takes

FLAG = re.compile(r"--[a-z0-9][\w-]*")


class Described(NamedTuple):
    """What Megatron says of a flag, the function or dataclass that brings it, its default, if a plain value, and what
    may stand behind it."""

    help: str
    owner: str
    default: str | None
    takes: Takes = Takes()


def known() -> frozenset[str]:
    """Every flag that Megatron's own parser takes, "--micro-batch-size" say; empty where there is no Megatron."""
    return frozenset(described())


def whole(flag: str) -> str:
    """A flag cut short as its one completion: "--tensorboard-d" is "--tensorboard-dir"; any other as it is."""
    completions = [name for name in known() if name.startswith(flag)]
    return completions[0] if flag not in completions and len(completions) == 1 else flag


def nearest(flag: str, flags: Collection[str] = ()) -> str | None:
    """The one of `flags`, Megatron's if not given, that an unknown flag resembles; two dashes are no resemblance."""
    names = {name.lstrip("-"): name for name in sorted(flags or known())}
    close = difflib.get_close_matches(flag.lstrip("-"), names, n=1)
    return names[close[0]] if close else None


@cache
def described() -> dict[str, Described]:
    """Each of the known flags with what Megatron says of it. A few fields that its parser leaves out are among them."""
    found = find_spec("megatron.training") and find_spec("megatron.core")
    if not found:
        return {}
    folder = Path(next(iter(found.submodule_search_locations))).parent
    module = ast.parse((folder / "training" / "arguments.py").read_text())
    flags, groups = {"--help": Described("", "", None)} | dict(_added(module)), _groups(module)
    sources = {}
    for path in (path for part in ("training", "core") for path in (folder / part).rglob("*.py")):
        source = path.read_text()
        sources |= dict.fromkeys(re.findall(r"^class (\w+)", source, re.MULTILINE), source)
    while groups:
        name, left_out = groups.pop()
        body = ast.parse(sources.get(name, "")).body
        for one in (node for node in body if isinstance(node, ast.ClassDef) and node.name == name):
            groups += [(base.id, left_out) for base in one.bases if isinstance(base, ast.Name)]
            flags = dict(_fields(one, left_out)) | flags
    return flags


def _added(module: ast.Module) -> Iterator[tuple[str, Described]]:
    """What each `add_argument` of a function adds."""
    for function in (node for node in module.body if isinstance(node, ast.FunctionDef)):
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and getattr(call.func, "attr", None) == "add_argument"):
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            takes = megatron_values.of_argument(given)
            says = Described(_text(given.get("help")), function.name, _plain(given.get("default")), takes)
            names = [flag for name in call.args for flag in _flags(name)]
            both = "BooleanOptionalAction" in ast.dump(call)
            yield from ((name, says) for name in (*names, *(f"--no-{name[2:]}" for name in names if both)))


def _groups(module: ast.Module) -> list[tuple[str, set[str]]]:
    """The dataclasses whose fields `arguments.py` adds, each with the names of those that it leaves out."""
    assigned = [node for node in ast.walk(module) if isinstance(node, ast.Assign)]
    lists = {node.targets[0].id: _texts(node.value) for node in assigned if isinstance(node.targets[0], ast.Name)}
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    return [
        (call.args[0].id, {text for word in call.keywords for text in _listed(word.value, lists)})
        for call in calls
        if getattr(call.func, "id", None) == "ArgumentGroupFactory"
    ]


def _listed(node: ast.AST, lists: dict[str, set[str]]) -> set[str]:
    return lists.get(node.id, set()) if isinstance(node, ast.Name) else _texts(node)


def _fields(dataclass: ast.ClassDef, left_out: set[str]) -> Iterator[tuple[str, Described]]:
    """What each field of a dataclass adds; its docstring is the statement behind it."""
    for field, after in zip(dataclass.body, [*dataclass.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and field.target.id not in left_out:
            text = _text(after.value) if isinstance(after, ast.Expr) else ""
            takes = megatron_values.of_field(field.annotation, _meta(field))
            says = Described(text, dataclass.name, _plain(field.value), takes)
            yield from ((flag, says) for flag in _of_a_field(field))


def _meta(field: ast.AnnAssign) -> dict[str, ast.AST]:
    """The "argparse_meta" of a dataclass's field."""
    dicts = [node for node in ast.walk(field) if isinstance(node, ast.Dict)]
    pairs = [(key, value) for one in dicts for key, value in zip(one.keys, one.values, strict=True)]
    found = [value for key, value in pairs if getattr(key, "value", None) == "argparse_meta"]
    return {key.value: value for one in found for key, value in zip(one.keys, one.values, strict=True)}


def _of_a_field(field: ast.AnnAssign) -> set[str]:
    if given := _flags(field):  # metadata={"argparse_meta": {"arg_names": […]}}
        return given
    name = field.target.id.replace("_", "-")
    switched_on = isinstance(field.value, ast.Constant) and field.value.value is True
    return {f"--no-{name}", f"--disable-{name}"} if switched_on else {f"--{name}"}


def _plain(node: ast.AST | None) -> str | None:
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


def _flags(node: ast.AST) -> set[str]:
    return {text for text in _texts(node) if FLAG.fullmatch(text)}


def _texts(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
