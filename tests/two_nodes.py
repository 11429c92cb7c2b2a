"""For tests that need two hosts or a Slurm on this machine: what is missing, and what is compared with one machine."""

import pytest

from helpers import cluster


def _needs(missing: str | None):
    return pytest.mark.skipif(missing is not None, reason=str(missing))


needs_hosts = _needs(cluster.why_no_hosts())
needs_slurm = _needs(cluster.why_no_slurm())


def logged(run, steps: int | None = None) -> dict[str, dict[int, float]]:
    """Loss and gradient norm of the first `steps` (None: all), as the last rank wrote them, to the last bit."""
    return {tag: run.series(tag).iloc[:steps].to_dict() for tag in ("lm loss", "grad-norm")}
