"""Table 401 of a tutorial, 8.3B parameters in a pipeline on eight H100s, beside our two GPUs with two of its stages."""

import re

from helpers.planner import elsewhere
from helpers.planner.plans import predict
from helpers.recipes import Recipe
from helpers.runs import records
from helpers.runs.results import after_warm_up
from helpers.show.arguments import checked

QUARTER = "gpt_8_3b_quarter"  # of tests/benchmarks/gpu_runs.py: two of the eight stages of table 401
NOT_RUN = "–"
OURS = {"h200": "two H200s", "h100-80gb-hbm3": "two H100s"}


@checked
def beside_ours():
    """Table 401's PP8, 32 samples a step cut in m (pandas): published, planned, and two of its stages on two GPUs.

    All are milliseconds, medians of our steps after two. A slot is a step divided by its m + P - 1 passes forward and
    backward. The last column keeps a micro-batch at four samples, as m = 8 has it, and is scaled to 32 of them.
    """
    import pandas as pd

    found = {}
    for m, row in _micro_batches().items():
        found[m] = {
            ("a micro-batch", "samples"): row.recipe.batch.micro_batch_size,
            ("PP8, eight H100s", "table 401"): f"{row.milliseconds:,.0f}",
            ("PP8, eight H100s", "one slot"): f"{row.milliseconds / (m + 7):,.0f}",
            ("PP8, eight H100s", "planned"): f"{predict(row.recipe, row.machine).step.milliseconds:,.0f}",
        }
        cut = f"pp2_m{m}" + "_batch_32" * (m != 8)
        for label, ours in OURS.items():
            found[m][f"PP2, {ours}", "measured"] = _shown(_median(label, cut))
            found[m][f"PP2, {ours}", "one slot"] = _shown(_median(label, cut), 1 / (m + 1))
        steady = _shown(_median("h200", f"pp2_m{m}"), 8 / m)
        found[m]["PP2, two H200s, 4 a micro-batch", "ms for 32 samples"] = steady
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("m")


@checked
def by_micro_batches() -> dict[str, dict[int, float]]:
    """Milliseconds a sample by the number of micro-batches: published and planned for 32 samples a step, and planned
    for micro-batches of four. 8.3B, PP8, 8 × H100."""
    found = _micro_batches()
    steady = {m: found[8].recipe.with_(global_batch_size=4 * m) for m in found if m > 1}
    return {
        "table 401: 32 samples a step, cut in m": {m: row.milliseconds / 32 for m, row in found.items()},
        "planned: 32 samples a step, cut in m": {
            m: predict(row.recipe, row.machine).step.milliseconds / 32 for m, row in found.items()
        },
        "planned: m micro-batches of 4": {
            m: predict(recipe, found[8].machine).step.milliseconds / (4 * m) for m, recipe in steady.items()
        },
    }


@checked
def by_chunks() -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """Milliseconds a step by the number of chunks v, measured; and what the bubble alone would leave of the first.

    Of table 401 the rows with PP4, and our PP2. The table's "VPP" is the number of layers in a chunk.
    """
    both = [row for row in elsewhere.rows() if row.table == "401" and row.name.startswith("TP2+SP×PP4")]
    four: dict[int, float] = {}
    for row in both:
        four.setdefault(row.recipe.layout.virtual_pipeline_chunks, row.milliseconds)
    ours = {v: _median("h200", "pp2_m8" + f"_v{v}" * (v > 1)) for v in (1, 3, 9)}
    measured = {
        "PP4, m = 4, with TP2, eight H100s": dict(sorted(four.items())),
        "PP2, m = 8, two H200s": {v: ms for v, ms in ours.items() if ms is not None},
    }
    sizes = ((4, both[0].recipe.micro_batches), (2, 8))
    expected = {
        name: {v: points[1] * (1 + (p - 1) / (m * v)) / (1 + (p - 1) / m) for v in points}
        for (name, points), (p, m) in zip(measured.items(), sizes, strict=True)
    }
    return measured, expected


def recipes() -> dict[int, Recipe]:
    """The recipes of table 401's PP8 by their number of micro-batches."""
    return {m: row.recipe for m, row in _micro_batches().items()}


def _micro_batches() -> dict[int, elsewhere.Row]:
    rows = [row for row in elsewhere.rows() if row.table == "401" and re.fullmatch(r"PP8, m=\d+", row.name)]
    return {row.recipe.micro_batches: row for row in rows}


def _median(label: str, name: str) -> float | None:
    """Milliseconds of a recorded run's step; None where it was not run."""
    run = records.recorded(label, f"pipeline/{QUARTER}_{name}")
    return None if run is None else 1e3 * after_warm_up(run.series("iteration-time")).median()


def _shown(milliseconds: float | None, times: float = 1.0) -> str:
    return NOT_RUN if milliseconds is None else f"{times * milliseconds:,.0f}"
