"""What data parallelism costs: the same share of the batch on ever more ranks, with the optimizer whole or split."""

from collections.abc import Iterable

from helpers.runs.results import Results
from helpers.show import message, style, tables
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import MARKERS, RECORDED_LINE, RUN_COLOURS, Picture

NOTHING = message.nothing_recorded("data-parallel run")
WHOLE, SPLIT = "optimizer whole on every rank", "distributed optimizer"


@checked
def data_parallel_table(several: Iterable[Results | None]):
    """One row per run (pandas): step time, what is left of one rank's speed, peak memory; a sentence where none is.

    `efficiency` is the step time of one rank over this one: each rank has as many samples, so that the ideal is the
    same step time. The one rank keeps its optimizer the same way where there is such a run.
    """
    import pandas as pd

    rows = _rows(several)
    if not rows:
        return NOTHING
    found = pd.DataFrame(rows).set_index(["optimizer", "ranks"]).round(1)
    found["efficiency"] = [f"{row['efficiency']:.0%}" if row["efficiency"] else "–" for row in rows]
    return tables.whole_sentences(found[["step ms", "efficiency", "peak memory GB", "measured on"]])


@checked
def data_parallel_cost(several: Iterable[Results | None]) -> Picture | Absence:
    """Step time and peak memory of a rank, over the number of ranks, each with as many samples."""
    rows = _rows(several)
    if not rows:
        return NOTHING
    ranks, words = sorted({row["ranks"] for row in rows}), []
    where = style.places(row["run"] for row in rows)
    largest = max(rows, key=lambda row: row["ranks"])
    each = largest["run"].recipe.batch.global_batch_size // largest["run"].layout.data_parallel
    with style.apply():
        drawn, (time, memory) = style.new_figure(width=8.6, height=3.6, columns=2)
        for index, optimizer in enumerate(dict.fromkeys(row["optimizer"] for row in rows)):
            own = [row for row in rows if row["optimizer"] == optimizer]
            look = {"marker": MARKERS[index], "color": RUN_COLOURS[1 + index], "label": optimizer}
            look["linestyle"] = RECORDED_LINE if own[0]["run"].recorded_on else "-"
            look["markersize"] = 6 if index else 11  # where two meet, both are seen
            at = [row["ranks"] for row in own]
            time.plot(at, [row["step ms"] for row in own], **look)
            memory.plot(at, [row["peak memory GB"] for row in own], **look | {"label": None})
            words += [
                f"{optimizer}, {n} ranks: {row['step ms']:.0f} ms, {row['peak memory GB']:.1f} GB"
                for n, row in zip(at, own, strict=True)
            ]
        for axes, label in ((time, "step time (ms)"), (memory, "peak memory of a rank (GB)")):
            axes.set_xscale("log", base=2)
            axes.set_xticks(ranks, [str(n) for n in ranks])
            axes.minorticks_off()
            axes.set(xlabel=f"ranks, {each} samples each", ylabel=label)
            axes.set_ylim(0, 1.12 * axes.dataLim.ymax)
        drawn.suptitle(where, fontsize=11)
        drawn.legend(loc="outside lower center", ncols=2)
    return Picture(drawn, f"Data parallelism, {where}. {'; '.join(words)}.")


def _rows(several) -> list[dict]:
    """The timed runs, by optimizer and number of ranks, each with the one on one rank that it is compared with."""
    rows = []
    for run in several:
        if run is None or not run.step_milliseconds:
            continue
        rows.append(
            {
                "run": run,
                "optimizer": SPLIT if run.layout.distributed_optimizer else WHOLE,
                "ranks": run.layout.world_size,
                "step ms": run.step_milliseconds,
                "peak memory GB": run.figures()["peak memory GB"],
                "measured on": run.measured_on,
            }
        )
    rows.sort(key=lambda row: (row["optimizer"] == SPLIT, row["ranks"]))
    for row in rows:
        alone = sorted((one for one in rows if one["ranks"] == 1), key=lambda one: one["optimizer"] != row["optimizer"])
        row["efficiency"] = alone[0]["step ms"] / row["step ms"] if alone else None
    return rows
