"""What may stand behind a flag of Megatron: how many words, of which kind, out of which choices, as far as the source
tells it in plain words (`type=int`, `choices=["fp32", "bf16"]`, `int | None`, `Literal["dp", "ep_dp"]`).

The rules are argparse's, and those of `ArgumentGroupFactory` in `megatron/training/argument_utils.py`.
"""

import ast
from collections.abc import Sequence
from typing import NamedTuple

KINDS = {"int": (int, "a whole number"), "float": (float, "a number"), "str": (str, "a text")}


class Takes(NamedTuple):
    """The words behind a flag: how many (0 for a switch, None where that is open), their kind and choices, if known."""

    words: int | None = None
    kind: str | None = None
    choices: tuple[str | int, ...] = ()

    def why_not(self, given: Sequence[str]) -> str | None:
        """Why the parser would refuse these words, in a sentence; None where it would not, as far as is known."""
        if self.words == 0 and given:
            return f"It is a switch: {given[0]!r} cannot stand behind it."
        if self.words is not None and len(given) != self.words:
            return f"It takes {self.words} word{'s' * (self.words > 1)}, and here {_are(len(given))}."
        convert, what = KINDS.get(self.kind or "str", KINDS["str"])
        for word in given:
            try:
                value = convert(word)
            except ValueError:
                return f"{word!r} is not {what}."
            if self.choices and value not in self.choices:
                return f"{word!r} is none of its choices: {', '.join(map(str, self.choices))}."
        return None


def _are(number: int) -> str:
    return "is none" if not number else "is 1" if number == 1 else f"are {number}"


def of_argument(given: dict[str, ast.AST]) -> Takes:
    """What a call of `add_argument` with these keywords lets stand behind its flag."""
    action, nargs = _constant(given.get("action")), _constant(given.get("nargs"))
    if action in ("store_true", "store_false") or "BooleanOptionalAction" in ast.dump(given.get("action", ast.Pass())):
        return Takes(0)
    if "action" in given:
        return Takes()
    words = 1 if "nargs" not in given else nargs if isinstance(nargs, int) else None
    kind = getattr(given.get("type"), "id", None) if "type" in given else "str"
    return Takes(words, kind if kind in KINDS else None, _choices(given.get("choices")) if kind in KINDS else ())


def of_field(annotation: ast.AST, meta: dict[str, ast.AST]) -> Takes:
    """What the factory makes of a dataclass's field; `meta` is its "argparse_meta"."""
    if {"type", "action", "choices"} & meta.keys():
        return Takes()
    takes = _of_type(annotation)
    if "nargs" in meta:
        words = _constant(meta["nargs"])
        return takes._replace(words=words if isinstance(words, int) else None)
    return takes


def _of_type(annotation: ast.AST) -> Takes:
    if isinstance(annotation, ast.BinOp):
        return _of_type(annotation.left) if _constant(annotation.right, 0) is None else Takes()
    if isinstance(annotation, ast.Subscript):
        outer = getattr(annotation.value, "id", "")
        if outer == "Optional":
            return _of_type(annotation.slice)
        if outer in ("list", "List"):
            return _of_type(annotation.slice)._replace(words=None)
        if outer == "Literal":
            choices = _choices(annotation.slice)
            return Takes(1, type(choices[0]).__name__ if choices else None, choices)
        return Takes()
    name = getattr(annotation, "id", None)
    return Takes(0) if name == "bool" else Takes(1, name) if name in KINDS else Takes()


def _choices(node: ast.AST | None) -> tuple:
    """Choices that are written out; none where they are not."""
    listed = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]
    plain = [one.value for one in listed if isinstance(one, ast.Constant)]
    return tuple(plain) if len(plain) == len(listed) else ()


def _constant(node: ast.AST | None, otherwise=None):
    return node.value if isinstance(node, ast.Constant) else otherwise
