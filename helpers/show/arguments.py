"""What a public function is given, held against its annotations: another kind is told in one sentence.

Otherwise a text in the place of a recipe ends in an AttributeError somewhere below.
"""

import difflib
import functools
import importlib
import inspect
import numbers
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping

from helpers.show.message import quiet
from helpers.show.numbers import as_typed, unquoted

NAMES = {  # of the kinds that Python brings along; a class of ours says it itself, as IN_WORDS
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    dict: "a dict",
    os.PathLike: "a path",
    types.NoneType: "None",
    types.EllipsisType: "…",
}
PLAIN = (str, bytes, int, float, types.NoneType, os.PathLike)
IMPORTED_LATE = {"torch": "torch", "pd": "pandas"}  # names in annotations of modules that import them in functions
HALF = re.compile("[\ud800-\udfff]")  # of a character that takes two: it cannot be written as UTF-8


def refuse(wrong: str):
    """Raise the sentence; Jupyter shows it without the frames of our modules."""
    error = TypeError(wrong)
    quiet(error, f"TypeError: {wrong}")
    raise error


def checked(function: Callable, refuse: Callable[[str], object] = refuse) -> Callable:
    """The function, which hands what is of another kind than its annotations say to `refuse`, in words.

    A parameter without an annotation takes anything. `Iterable[X]` and `Mapping[K, V]` are looked into, and
    `Annotated[int, range(1, 9)]` is a whole number of that range: `show.bounds` has those that several share. A text is
    one that can be written down: half a character is none. A number of NumPy's is handed on as Python's own.

    Raises:
        TypeError: from `refuse`, unless it is given another one, whose answer is then returned.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **named):
        arguments, named = tuple(map(_plain, arguments)), {name: _plain(value) for name, value in named.items()}
        wrong = what_is_wrong(function, signature, arguments, named)
        return refuse(wrong) if wrong else function(*arguments, **named)

    return call


def fits(value, kind) -> bool:
    """Whether a value is of an annotation's kind. True and False are no numbers."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return True
    if origin is typing.Literal:
        return isinstance(value, str) and value in parts
    if origin is typing.Annotated:
        return fits(value, parts[0]) and (int(value) if isinstance(parts[1], range) else value) in parts[1]
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in parts)
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ == "bool"  # NumPy's own
    if kind is str:
        return isinstance(value, str) and not HALF.search(value)
    if origin is None:
        return isinstance(value, kind)
    return isinstance(value, origin) and not isinstance(value, str | bytes) and not _odd_ones(value, kind)


def in_words(kind) -> str:
    """An annotation as a reader says it: "a recipe, such as recipes.gpt3_345m(), or None"."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if origin is typing.Annotated:
        bound = parts[1]
        within = f"from {bound.start} to {bound.stop - 1:,}" if isinstance(bound, range) else str(bound)
        return f"{in_words(parts[0])} {within}"
    if origin in (types.UnionType, typing.Union):
        return ", or ".join(dict.fromkeys(map(in_words, parts)))
    if origin is Callable:
        return "a function"
    if origin is not None and issubclass(origin, Mapping):
        values = "" if parts[1] is typing.Any else f", each value {in_words(parts[1])}"
        return f"a dict, each key {in_words(parts[0])}{values}" if parts else "a dict"
    if kind is typing.Any:
        return "anything"
    if origin is not None:
        return f"a list, each of it {in_words(parts[0])}"
    if issubclass(kind, os.PathLike):
        kind = os.PathLike
    return NAMES.get(kind) or getattr(kind, "IN_WORDS", _with_article(kind.__name__))


def what_is_wrong(function: Callable, signature: inspect.Signature, arguments: tuple, named: dict) -> str | None:
    """The first argument that is of another kind, in a sentence; None where all are as annotated."""
    try:
        given = signature.bind(*arguments, **named).arguments
    except TypeError as error:
        return f"{_called(function)}: {error}.{_meant(signature, named)} It takes {_without_kinds(signature)}."
    kinds = _kinds(function)
    for parameter, value in given.items():
        kind, several = kinds.get(parameter, typing.Any), signature.parameters[parameter].kind
        if several is inspect.Parameter.VAR_KEYWORD:
            value = list(value.values())
        for one in value if several in (several.VAR_POSITIONAL, several.VAR_KEYWORD) else [value]:
            if not fits(one, kind):
                others = {other: value for other, value in given.items() if other != parameter}
                there = [
                    other
                    for other, value in others.items()
                    if _is_ours(value, kind) and not fits(value, kinds.get(other, types.NoneType))
                ]
                swapped = f" What stands at {there[0]} is one: they are swapped." if there else ""
                asked = f"{_called(function)}({parameter}={_shown(one)})"
                return f"{asked}: it takes {in_words(kind)}{_but(one, kind)}.{swapped}"
    return None


def _plain(value):
    """A single number of NumPy's as Python's own, which JSON and the C below take, too."""
    return value.item() if isinstance(value, numbers.Number) and type(value).__module__ == "numpy" else value


def _meant(signature: inspect.Signature, named: dict) -> str:
    """The parameter that the first unknown name may stand for, asked in a sentence."""
    unknown = [name for name in named if name not in signature.parameters]
    close = difflib.get_close_matches(unknown[0], signature.parameters, n=1) if unknown else []
    return f" Did you mean {close[0]}?" if close else ""


def _without_kinds(signature: inspect.Signature) -> inspect.Signature:
    empty = inspect.Parameter.empty
    parameters = [one for name, one in signature.parameters.items() if name != "self"]
    return inspect.Signature([one.replace(annotation=empty) for one in parameters])


def _odd_ones(value, kind) -> list:
    """What lies in a list or dict and should not. A generator is not looked into: that would use it up."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    looked_into = isinstance(value, Collection) and not isinstance(value, str | bytes)
    if not (isinstance(origin, type) and issubclass(origin, Iterable) and looked_into):
        return []
    odd = [one for one in value if not fits(one, parts[0])]
    return odd + [one for one in value.values() if not fits(one, parts[1])] if issubclass(origin, Mapping) else odd


def _but(value, kind) -> str:
    """What the value is instead."""
    for part in typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else [kind]:
        origin, parts = typing.get_origin(part), typing.get_args(part)
        if origin is typing.Annotated and fits(value, parts[0]):
            return ""
        if isinstance(value, str) and unquoted(value) != value and fits(unquoted(value), kind):
            return f"; {as_typed(value)} is a text: write {unquoted(value)!r}"
        if isinstance(value, str) and HALF.search(value):
            return f"; {HALF.search(value).group()!r} in it is half a character, which cannot be written"
        if isinstance(origin, type) and isinstance(value, origin) and (odd := _odd_ones(value, part)):
            return f"; {_shown(odd[0])} in it is {_kind_of(odd[0])}"
        listed = isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
        if listed and fits(value, parts[0]):
            return ". One alone is put in brackets: [it]"
    return f", not {_kind_of(value)}"


def _is_ours(value, kind) -> bool:
    return hasattr(type(value), "IN_WORDS") and fits(value, kind)


@functools.cache
def _kinds(function: Callable) -> dict:
    """The annotations, resolved; those that are written as texts may name what the packages around hand on."""
    packages, around = function.__module__.split("."), {}
    for end in range(1, len(packages)):
        around |= vars(sys.modules[".".join(packages[:end])])
    kinds = {}
    for name, annotation in function.__annotations__.items():
        try:
            kinds[name] = eval(annotation, function.__globals__, around) if isinstance(annotation, str) else annotation
        except NameError as late:
            around[late.name] = importlib.import_module(IMPORTED_LATE[late.name])
            kinds[name] = eval(annotation, function.__globals__, around)
    return kinds


def _called(function: Callable) -> str:
    """What a caller writes: "launch.train", "recipe.explain", "sums.mfu"."""
    owner, _, name = function.__qualname__.rpartition(".")
    if name == "__init__":
        return _class_called(function) or owner
    if owner:
        return f"{owner.lower()}.{name}"
    packages = function.__module__.split(".")[:-1]
    for face in [part for part in sys.modules if part.startswith("helpers.") and part.count(".") == 1] + [
        ".".join(packages)
    ]:
        if getattr(getattr(sys.modules.get(face), name, None), "__wrapped__", None) is function:
            return f"{face.rpartition('.')[2]}.{name}"
    return f"{function.__module__.rpartition('.')[2]}.{name}"


def _class_called(constructor: Callable) -> str | None:
    """The class of a constructor as the face of its wing hands it on: "cluster.slurm"."""
    face = ".".join(constructor.__module__.split(".")[:-1])
    for name, value in vars(sys.modules.get(face)).items():
        if isinstance(value, type) and getattr(value.__init__, "__wrapped__", None) is constructor:
            return f"{face.rpartition('.')[2]}.{name}"
    return None


def _shown(value) -> str:
    """The value as it was typed, or its class: a run's own repr would read its files."""
    if not isinstance(value, PLAIN):
        return getattr(value, "__name__", type(value).__name__)
    return as_typed(value)


def _kind_of(value) -> str:
    if isinstance(value, type):
        return "the class itself"
    if callable(value) and hasattr(value, "__name__"):
        return "the function itself: call it, with ()"
    plain = _with_article(type(value).__name__)
    return "None" if value is None else re.split(r",| \(", getattr(type(value), "IN_WORDS", plain))[0]


def _with_article(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
