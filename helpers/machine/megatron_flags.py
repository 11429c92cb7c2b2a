"""The flags of the installed Megatron, read from its source: importing it takes ten seconds.

`megatron/training/arguments.py` adds flags one by one (`add_argument("--lr")`) and by whole dataclasses
(`ArgumentGroupFactory(TrainingConfig)`): each field is a flag, a switch that is on is `--no-…` and `--disable-…`.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FLAG = re.compile(r"--[a-z0-9][\w-]*")


@cache
def known() -> frozenset[str]:
    """Every flag that Megatron's own parser takes, "--micro-batch-size" say; empty where there is no Megatron.

    A few fields that it leaves out of its parser are among them.
    """
    found = find_spec("megatron.training") and find_spec("megatron.core")
    if not found:
        return frozenset()
    folder = Path(next(iter(found.submodule_search_locations))).parent
    flags, groups = _of_the_parser(ast.parse((folder / "training" / "arguments.py").read_text()))
    sources = {}
    for path in (path for part in ("training", "core") for path in (folder / part).rglob("*.py")):
        source = path.read_text()
        sources |= dict.fromkeys(re.findall(r"^class (\w+)", source, re.MULTILINE), source)
    while groups:
        name, left_out = groups.pop()
        body = ast.parse(sources.get(name, "")).body
        for one in (node for node in body if isinstance(node, ast.ClassDef) and node.name == name):
            groups += [(base.id, left_out) for base in one.bases if isinstance(base, ast.Name)]
            fields = [line for line in one.body if isinstance(line, ast.AnnAssign) and line.target.id not in left_out]
            flags |= {flag for field in fields for flag in _of_a_field(field)}
    return frozenset(flags)


def _of_the_parser(module: ast.Module) -> tuple[set[str], list[tuple[str, set[str]]]]:
    """The flags that `arguments.py` names, and the dataclasses whose fields it adds, each with those it leaves out."""
    flags, groups, lists = {"--help"}, [], {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lists[node.targets[0].id] = _texts(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "add_argument":
            names = {flag for name in node.args for flag in _flags(name)}
            both = "BooleanOptionalAction" in ast.dump(node)
            flags |= names | {f"--no-{name[2:]}" for name in names if both}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "ArgumentGroupFactory":
            groups.append(node)
    left_out = [{text for word in call.keywords for text in _listed(word.value, lists)} for call in groups]
    return flags, [(call.args[0].id, texts) for call, texts in zip(groups, left_out, strict=True)]


def _listed(node: ast.AST, lists: dict[str, set[str]]) -> set[str]:
    return lists.get(node.id, set()) if isinstance(node, ast.Name) else _texts(node)


def _of_a_field(field: ast.AnnAssign) -> set[str]:
    if given := _flags(field):  # metadata={"argparse_meta": {"arg_names": […]}}
        return given
    name = field.target.id.replace("_", "-")
    switched_on = isinstance(field.value, ast.Constant) and field.value.value is True
    return {f"--no-{name}", f"--disable-{name}"} if switched_on else {f"--{name}"}


def _flags(node: ast.AST) -> set[str]:
    return {text for text in _texts(node) if FLAG.fullmatch(text)}


def _texts(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
