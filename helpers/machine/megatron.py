"""Megatron as it is installed: imported without its warnings, or its source read without an import."""

import contextlib
import importlib.util
import logging
import warnings
from pathlib import Path


@contextlib.contextmanager
def quietly():
    """Megatron's import and data code without their warnings about what a single process does not have."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def megatron_source(path: str) -> Path:
    """A file of the installed Megatron: `megatron_source("training/training.py")`; nothing of it is imported."""
    package, _, inside = path.partition("/")
    return Path(importlib.util.find_spec(f"megatron.{package}").submodule_search_locations[0]) / inside
