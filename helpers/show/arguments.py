"""What a public function is given, held against its annotations: another kind is told in one sentence.

Otherwise a text in the place of a recipe ends in an AttributeError somewhere below.
"""

import functools
import importlib
import inspect
import math
import numbers
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice

from helpers.show.names import called, misnamed, refuse
from helpers.show.numbers import as_typed, unquoted

NAMES = {  # of the kinds that Python brings along; a class of ours says it itself, as IN_WORDS
    str: "a text",
    int: "a whole number",
    float: "a number",
    numbers.Real: "a number",  # nan, too
    bool: "True or False",
    dict: "a dict",
    os.PathLike: "a path",
    types.NoneType: "None",
    types.EllipsisType: "…",
}
PLAIN = (str, bytes, int, float, types.NoneType, os.PathLike)
IMPORTED_LATE = {"torch": "torch", "pd": "pandas"}  # names in annotations of modules that import them in functions
LONGEST = 100_000  # of what a generator is drawn for: some never end
HALF = re.compile("[\ud800-\udfff]")  # of a character that takes two: it cannot be written as UTF-8


def checked(function: Callable, refuse: Callable[[str], object] = refuse) -> Callable:
    """The function, which hands what is of another kind than its annotations say to `refuse`, in words.

    A parameter without an annotation takes anything. `Iterable[X]` and `Mapping[K, V]` are looked into, a generator is
    drawn for that and handed on as a tuple, and
    `Annotated[int, range(1, 9)]` is a whole number of that range: `show.bounds` has those that several share. A text is
    one that can be written down: half a character is none. A number of NumPy's is handed on as Python's own.

    Raises:
        TypeError: from `refuse`, unless it is given another one, whose answer is then returned.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **named):
        arguments, named = tuple(map(_plain, arguments)), {name: _plain(value) for name, value in named.items()}
        given, wrong = None, None
        try:
            given = signature.bind(*arguments, **named)
        except TypeError as error:
            wrong = misnamed(function, signature, named, str(error))
        if given:
            wrong = what_is_wrong(function, signature, _drawn(given.arguments, _kinds(function)))
        return refuse(wrong) if wrong else function(*given.args, **given.kwargs)

    return call


def require_fields(value) -> None:
    """Nothing for a dataclass whose fields are of the kinds that their annotations say; for its `__post_init__`.

    Raises:
        TypeError: one of them is of another kind, in words.
    """
    for field in fields(value):
        given, kind = getattr(value, field.name), field.type
        if not fits(given, kind):
            it_takes = f"it takes {in_words(kind)}{_but(given, kind)}"
            refuse(f"{type(value).__name__}({field.name}={_shown(given)}): {it_takes}.")


def fits(value, kind) -> bool:
    """Whether a value is of an annotation's kind. True and False are no numbers, nor are nan and inf."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return True
    if origin is typing.Literal:
        return isinstance(value, str) and value in parts
    if origin is typing.Annotated:
        return fits(value, parts[0]) and (int(value) if isinstance(parts[1], range) else value) in parts[1]
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in parts)
    if origin is tuple and ... not in parts:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and -math.inf < value < math.inf
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
        return ", or ".join(dict.fromkeys(map(in_words, sorted(parts, key=_is_list))))  # a dict's own kinds come last
    if origin is Callable:
        return "a function"
    if origin is not None and issubclass(origin, Mapping):
        values = "" if parts[1] is typing.Any else f", each value {in_words(parts[1])}"
        return f"a dict, each key {in_words(parts[0])}{values}" if parts else "a dict"
    if kind is typing.Any:
        return "anything"
    if origin is tuple and ... not in parts:
        return f"a tuple of {len(parts)}: {', '.join(dict.fromkeys(map(in_words, parts)))}"
    if origin is not None:
        return f"a {'tuple' if origin is tuple else 'list'}, each of it {in_words(parts[0])}"
    if issubclass(kind, os.PathLike):
        kind = os.PathLike
    return NAMES.get(kind) or getattr(kind, "IN_WORDS", _with_article(kind.__name__))


def what_is_wrong(function: Callable, signature: inspect.Signature, given: Mapping) -> str | None:
    """The first argument of a call that is of another kind, in a sentence; None where all are as annotated."""
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
                asked = f"{called(function)}({parameter}={_shown(one)})"
                return f"{asked}: it takes {in_words(kind)}{_but(one, kind)}.{swapped}"
    return None


def _drawn(given: dict, kinds: Mapping) -> dict:
    """The arguments of a call, where a list is annotated with a tuple in the place of a generator."""
    for name, value in given.items():
        if isinstance(value, Iterator) and any(map(_is_list, _either(kinds.get(name, typing.Any)))):
            given[name] = tuple(islice(value, LONGEST))
    return given


def _plain(value):
    """A single number of NumPy's as Python's own, which JSON and the C below take, too."""
    return value.item() if isinstance(value, numbers.Number) and type(value).__module__ == "numpy" else value


def _either(kind) -> tuple:
    """The kinds of a union; of another one itself."""
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def _is_list(kind) -> bool:
    """Whether a kind is one that is looked into."""
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Iterable)


def _odd_ones(value, kind) -> list:
    """What lies in a list or dict and should not."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if not _is_list(kind) or not isinstance(value, Collection) or isinstance(value, str | bytes):
        return []
    odd = [one for one in value if not fits(one, parts[0])]
    return odd + [one for one in value.values() if not fits(one, parts[1])] if issubclass(origin, Mapping) else odd


def _but(value, kind) -> str:
    """What the value is instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    for part in _either(kind):
        origin, parts = typing.get_origin(part), typing.get_args(part)
        if origin is typing.Annotated and fits(value, parts[0]):
            return ""
        if isinstance(value, str) and unquoted(value) != value and fits(unquoted(value), kind):
            return f"; {as_typed(value)} is a text: write {unquoted(value)!r}"
        if isinstance(value, str) and HALF.search(value):
            return f"; {HALF.search(value).group()!r} in it is half a character, which cannot be written"
        if isinstance(origin, type) and isinstance(value, origin) and (odd := _odd_ones(value, part)):
            return f"; {_shown(odd[0])} in it is {_kind_of(odd[0])}"
        if _is_list(part) and not issubclass(origin, Mapping) and fits(value, parts[0]):
            return f". One alone is put in brackets: {'(it,)' if origin is tuple else '[it]'}"
        if origin is tuple and isinstance(value, tuple):
            return f", not one of {len(value)}"
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


def _shown(value) -> str:
    """The value as it was typed, or its class: a run's own repr would read its files."""
    if not isinstance(value, PLAIN):
        return value.__name__ if _has_name(value) else type(value).__name__
    return as_typed(value)


def _kind_of(value) -> str:
    if isinstance(value, type):
        return "the class itself"
    if _has_name(value):
        return "the function itself: call it, with ()"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "no number"
    plain = _with_article(type(value).__name__)
    return "None" if value is None else re.split(r",| \(", getattr(type(value), "IN_WORDS", plain))[0]


def _has_name(value) -> bool:
    return isinstance(value, type) or inspect.isroutine(value)


def _with_article(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
