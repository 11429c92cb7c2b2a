"""Names that are nearly right: of arguments, of fields, of what a value knows. The nearest one is told."""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from types import MappingProxyType

from helpers.show.message import quiet

NONE = MappingProxyType({})


def refuse(wrong: str):
    """Raise the sentence; Jupyter shows it without the frames of our modules."""
    error = TypeError(wrong)
    quiet(error, f"TypeError: {wrong}")
    raise error


def nearest(name: str, known: Iterable[str], also: Mapping[str, str] = NONE) -> str | None:
    """The known name that was meant; `also` has what others call them: "tp" → "tensor_parallel"."""
    known = set(known)
    also = {theirs: ours for theirs, ours in also.items() if ours in known}
    plain = name.lower().lstrip("-").replace("-", "_")
    close = difflib.get_close_matches(plain, sorted({*known, *also}), n=1)
    close = close or [one for one in sorted(known) if plain in one.split("_")]
    return also.get(close[0], close[0]) if close else None


def named(function: Callable, also: Mapping[str, str] = NONE) -> Callable:
    """The function, which tells a name that it does not take; whether the values are right it tells itself.

    Raises:
        TypeError: in words, with the name that was meant.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **given):
        try:
            return function(*arguments, **given)
        except TypeError:  # of the call, or of what the function does: binding tells, and takes longer than a layout
            try:
                signature.bind(*arguments, **given)
            except TypeError as error:
                wrong = misnamed(function, signature, given, str(error), also)
            else:
                raise
        refuse(wrong)

    return call


def misnamed(function: Callable, signature: inspect.Signature, given: Iterable[str], wrong: str, also=NONE) -> str:
    """The sentence on a call whose arguments have no parameters: `wrong` is Python's own."""
    known = [one.replace(annotation=one.empty) for one in signature.parameters.values() if one.name != "self"]
    takes, names = inspect.Signature(known), [one.name for one in known]
    for odd in given:
        if odd not in signature.parameters and (meant := nearest(odd, names, also)):
            return f"{called(function)}: it takes no {odd!r}. Did you mean {meant}?"
    return f"{called(function)}: {wrong}. It takes {takes}."


def called(function: Callable) -> str:
    """What a caller writes: "launch.train", "recipe.explain", "sums.mfu", "Layout", "cluster.slurm"."""
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
    """The class of a constructor as the face of its wing hands it on, where that is another name: "cluster.slurm"."""
    face = ".".join(constructor.__module__.split(".")[:2])
    for name, value in vars(sys.modules.get(face)).items():
        if isinstance(value, type) and getattr(value.__init__, "__wrapped__", None) is constructor:
            return f"{face.rpartition('.')[2]}.{name}"
    return None


def told(cls: type, also: Mapping[str, str] = NONE) -> type:
    """A frozen dataclass, which tells in words what it has not: a field when one is made, an attribute later on.

    What lies in a part of it is found there: a recipe's `lr` is `schedule.lr`.
    """

    def missing(self, name: str):
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            if name.startswith("_") or hasattr(cls, name):  # Python's own, or a property that failed
                raise
        raise AttributeError(lacks(self, name, also), name=name)

    def fixed(self, name: str, value):
        another = f"with_({name}=…)" if hasattr(cls, "with_") else f"dataclasses.replace(it, {name}=…)"
        raise FrozenInstanceError(f"{name}: {cls.__name__} stays as it was made. {another} makes another one.")

    cls.__init__ = named(cls.__init__, also)
    cls.__getattr__, cls.__setattr__ = missing, fixed
    return cls


def lacks(value, name: str, also: Mapping[str, str] = NONE) -> str:
    """The sentence on an attribute that a value has not."""
    parts = [(part, held) for part, held in vars(value).items() if is_dataclass(held)]
    inside = {field.name: f"{part}.{field.name}" for part, held in parts for field in fields(held)}
    own = sorted(one for one in {*vars(value), *dir(type(value))} if one[0].islower())
    known = inside | {one: one for one in own}
    meant = known.get(nearest(name, known, also))
    hint = f"Did you mean {meant}?" if meant else f"It has {', '.join(own)}."
    return f"{type(value).__name__} has no {name!r}. {hint}"
