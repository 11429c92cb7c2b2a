"""Megatron as it is installed: imported without its warnings, or its source read without an import."""

import __future__

import ast
import contextlib
import gc
import importlib.util
import logging
import math
import sys
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from helpers.show.names import named
from helpers.show.numbers import as_typed


@contextlib.contextmanager
def quietly():
    """Megatron's import and data code without their warnings about what a single process does not have.

    And at their fastest: no garbage is looked for among what they import, and what is compiled meanwhile is kept for
    the next start, even with PYTHONDONTWRITEBYTECODE set, as in many containers.
    """
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level, sys.dont_write_bytecode, gc.isenabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        sys.dont_write_bytecode = False
        gc.disable()
        try:
            yield
        finally:
            level, sys.dont_write_bytecode, collects = before
            logger.setLevel(level)
            if collects:
                gc.enable()


@named
def megatron_source(path: str) -> Path:
    """A file of the installed Megatron: `megatron_source("training/training.py")`; nothing of it is imported.

    Raises:
        ModuleNotFoundError: there is no such package in it. TypeError: that is no text.
    """
    if not isinstance(path, str):
        raise TypeError(
            f'megatron_source({as_typed(path)}): it takes a file of Megatron\'s, "training/training.py" say.'
        )
    package, _, inside = path.partition("/")
    found = importlib.util.find_spec(f"megatron.{package}") if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"Megatron, as it is installed here, has no package {package!r}.")
    if ".." in Path(inside).parts:
        raise ModuleNotFoundError(f"megatron_source({as_typed(path)}) leaves Megatron: no '..' is taken.")
    return Path(found.submodule_search_locations[0]) / inside


@cache
def megatron_definitions(path: str, *names: str) -> SimpleNamespace:
    """Functions, classes and constants of one of Megatron's files, by themselves: to import the file takes ten seconds.

    They can use one another, and of what the file imports `math` alone.
    """
    kept, known = [], {"math": math}
    for statement in ast.parse(megatron_source(path).read_text()).body:
        targets = [target.id for target in getattr(statement, "targets", ()) if isinstance(target, ast.Name)]
        if {getattr(statement, "name", None), *targets} & set(names):
            kept.append(statement)
    module = ast.Module(kept, type_ignores=[])
    exec(compile(module, path, "exec", flags=__future__.annotations.compiler_flag), known)
    if missing := [name for name in names if name not in known]:
        raise AttributeError(f"megatron/{path} defines no {', '.join(missing)}.")
    return SimpleNamespace(**{name: known[name] for name in names})
