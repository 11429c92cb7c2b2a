"""Megatron runs make for its C++ index helpers at every start; its wheel has them built, and no Makefile."""


def apply() -> None:
    """Leave `make` out where the built helpers import."""
    from megatron.core.datasets import utils

    try:
        import megatron.core.datasets.helpers_cpp  # noqa: F401
    except ImportError:
        return
    utils.compile_helpers = lambda: None
