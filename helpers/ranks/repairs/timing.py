"""Microseconds of a piece of work on the GPU, for the `measure()` of repairs."""


def microseconds(work) -> float:
    """The median of many calls, by CUDA events, the L2 cache cleared before each (`triton.testing.do_bench`)."""
    from triton.testing import do_bench

    return do_bench(work, return_mode="median") * 1e3
