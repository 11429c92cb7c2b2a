"""Llama3-8B in speed and memory: by layout and number format, and stock beside our changes."""

from collections.abc import Iterable

from helpers.machine import data_sheets
from helpers.plots.formats import RECIPE_COLOURS
from helpers.recipes import accounting
from helpers.runs import published
from helpers.runs.results import Results
from helpers.show import message, style, tables
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.numbers import billions, shown
from helpers.show.style import GREY, INK, REFERENCE, Picture

NOTHING = message.nothing_recorded("run of Llama3-8B")


@checked
def format_speeds_table(several: Iterable[Results | None]):
    """Tokens/s per GPU and peak memory by layout and format, one row per run (pandas); a sentence where there is none.

    `× bf16` is the speed over that of the bf16 run with the same layout and batch, eager or a CUDA graph as this one;
    "–" where there is no such run. MFU is given against both of the GPU's dense peaks: that of bf16 and, for FP8 runs,
    that of FP8, which is twice as high (`data_sheets.FP8_PEAK`). The last rows are NVIDIA's, 8 × H100.
    """
    import pandas as pd

    rows = _rows(several)
    if not rows:
        return NOTHING
    table = [
        {
            "layout": row["group"],
            "format": row["format"],
            "tokens/s/GPU": round(row["speed"]),
            "× bf16": f"{row['ratio']:.2f}" if row["ratio"] else "–",
            "MFU, bf16 peak": f"{row['MFU']:.1%}" if row["MFU"] else "–",
            "MFU, FP8 peak": _of_fp8_peak(row),
            "peak memory GB": f"{row['GB']:.1f}" if row["GB"] else "–",
            "measured on": row["measured on"],
        }
        for row in rows
    ]
    none = {"× bf16": "–", "MFU, bf16 peak": "–", "MFU, FP8 peak": "–", "peak memory GB": "–"}
    table += [
        {"layout": f"{one.layout}, batch {one.global_batch_size}", "format": one.precision}
        | {"tokens/s/GPU": one.tokens_per_second_per_gpu, "measured on": f"{one.gpus}, NVIDIA {one.source}", **none}
        for one in published.LLAMA3_8B
    ]
    return tables.whole_sentences(pd.DataFrame(table).set_index(["layout", "format"]))


@checked
def format_speeds(several: Iterable[Results | None]) -> Picture | Absence:
    """Tokens/s per GPU and peak memory by layout and number format; grey and dashed: NVIDIA's speeds, a GPU's memory.

    Beside a bar stands its speed and, in FP8, that speed over bf16 in the same layout (see `formats_table`).
    """
    rows = _rows(several)
    if not rows:
        return NOTHING
    places, names = style.in_groups((row["group"], row["format"]) for row in rows)
    last = places[-1]
    lines = [(one.tokens_per_second_per_gpu, f"{one.source}, {one.precision}") for one in published.LLAMA3_8B]
    full = max([row["speed"] for row in rows] + [speed for speed, _ in lines])
    gpu = rows[0]["run"].gpu
    room = gpu.memory_bytes / 1e9 if gpu else max(row["GB"] or 0 for row in rows) or 1
    with style.apply():
        size = {"width": 9.6, "height": 1.5 + 0.34 * (last + 2.4)}
        figure, (left, right) = style.new_figure(1, 2, width_ratios=(5, 3), sharey=True, **size)
        for at, row in zip(places, rows, strict=True):
            look = {
                "height": 0.7,
                "color": RECIPE_COLOURS.get(row["format"].removeprefix("fp8 "), RECIPE_COLOURS["bf16"]),
                "linewidth": 0,
            }
            words = {"va": "center", "color": INK, "fontsize": 10}
            left.barh(at, row["speed"], **look)
            left.text(1.03 * full, at, _beside(row), **words)
            if row["GB"]:
                right.barh(at, row["GB"], **look)
                right.text(1.04 * room, at, f"{row['GB']:.0f} GB", **words)
        named = {"va": "center", "ha": "right", "color": GREY, "fontsize": 10}
        for line, (speed, name) in enumerate(lines):
            top = -1.1 - 0.85 * line
            left.plot([speed, speed], [last + 0.4, top - 0.35], **REFERENCE | {"zorder": 3})
            left.text(speed - 0.01 * full, top, f"{name}: {speed:,}", **named)
        if gpu:
            right.plot([room, room], [last + 0.4, -1.45], **REFERENCE | {"zorder": 3})
            right.text(0.98 * room, -1.1, f"{gpu.name}: {room:.0f}", **named)
        style.name_rows(left, names)
        left.set(xlim=(0, 1.62 * full), ylim=(last + 0.6, -1.1 - 0.85 * len(lines)))
        left.set_xlabel(f"tokens/s per {'GPU' if gpu else 'rank'}")
        left.xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}k" if value else "0")
        right.set(xlim=(0, 1.3 * room), xlabel="peak memory (GB)")
        right.grid(axis="y", visible=False)
        right.tick_params(axis="y", length=0)
        for axes in (left, right):
            axes.spines["left"].set_bounds(last + 0.6, -0.6)
        left.set_title(f"{rows[0]['size']} parameters, {style.places(row['run'] for row in rows)}")
        sources = f"dashed: NVIDIA's speeds on {published.LLAMA3_8B[0].gpus}; the GPU's memory"
        figure.supxlabel(sources, fontsize=9.5, color=GREY)
    words = [f"{row['group']}, {row['format']}: {_beside(row)}, {shown(row['GB'])} GB" for row in rows]
    given = "; ".join(f"{name} {speed:,}" for speed, name in lines)
    return Picture(figure, f"Tokens per second per GPU and peak memory. {'; '.join(words)}. Published: {given}.")


def _rows(several) -> list[dict]:
    """What is drawn of each run timed without a profiler: by layout, smaller batch first, bf16 first in its group."""
    rows = []
    for run in several:
        figures = run.figures() if run is not None else {}
        if not figures.get("tokens/s/GPU") or run.is_profiled:
            continue
        batch = run.recipe.batch.global_batch_size
        layout, precision = f"{run.layout.name}, {run.speed.name}", run.recipe.precision
        eight = precision.fp8_format is not None
        rows.append(
            {
                "run": run,
                "layout": layout,
                "batch": batch,
                "group": f"{layout}, batch {batch}",
                "format": f"fp8 {precision.fp8_recipe}" if eight else precision.dtype,
                "size": billions(accounting.parameters(run.model)["parameters"].sum()),
                "speed": figures["tokens/s/GPU"],
                "MFU": figures["MFU"],
                "GB": figures["peak memory GB"],
                "measured on": run.measured_on,
            }
        )
    order = list(dict.fromkeys(row["layout"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["layout"]), row["batch"], row["format"] != "bf16", -row["speed"]))
    for row in rows:
        plain = next((r for r in rows if (r["group"], r["format"]) == (row["group"], "bf16")), None)
        row["ratio"] = row["speed"] / plain["speed"] if plain and plain is not row else None
    return rows


def _beside(row: dict) -> str:
    return f"{row['speed']:,.0f}" + (f"  ·  {row['ratio']:.2f}× bf16" if row["ratio"] else "")


def _of_fp8_peak(row: dict) -> str:
    return f"{row['MFU'] / data_sheets.FP8_PEAK:.1%}" if row["MFU"] and row["format"] != "bf16" else "–"


@checked
def stock_formats_table(several: Iterable[Results | None]):
    """bf16 and FP8 without our changes and with them, one row a layout, batch and machine (pandas).

    tokens/s per GPU of the four runs, and FP8 over bf16 among the stock ones and among the changed ones; "–" where one
    was not recorded. Runs without a single change, and profiled ones, are passed over.
    """
    import pandas as pd

    found: dict[tuple, dict] = {}
    for run in several:
        speed = run.figures().get("tokens/s/GPU") if run is not None else None
        if not speed or run.is_profiled or run.recipe.without:
            continue
        ranks, batch = run.layout.world_size, run.recipe.batch.global_batch_size
        key = (run.measured_on, f"{run.layout.name}, {run.speed.name}", f"{batch / ranks:g}")
        eight = "FP8" if run.recipe.precision.fp8_format else "bf16"
        found.setdefault(key, {})[eight, bool(run.recipe.stock)] = speed
    rows = []
    for (machine, layout, batch), speeds in found.items():
        row = {"measured on": machine, "layout": layout, "samples a GPU": batch}
        for stock, name in ((True, "stock"), (False, "changed")):
            bf16, fp8 = speeds.get(("bf16", stock)), speeds.get(("FP8", stock))
            row |= {f"bf16, {name}": _thousands(bf16), f"FP8, {name}": _thousands(fp8)}
            row[f"FP8 ÷ bf16, {name}"] = f"{fp8 / bf16:.2f}" if bf16 and fp8 else "–"
        rows.append(row)
    if not rows:
        return NOTHING
    return tables.whole_sentences(pd.DataFrame(rows).set_index(["measured on", "layout", "samples a GPU"]))


def _thousands(speed: float | None) -> str:
    return f"{speed:,.0f}" if speed else "–"
