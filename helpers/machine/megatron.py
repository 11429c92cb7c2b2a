"""Megatron's import, without its warnings."""

import contextlib
import logging
import warnings


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
