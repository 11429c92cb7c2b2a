"""Number formats drawn: their values on a line, what casts lose, and what they bring in speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from helpers.formats import number_formats
from helpers.formats.number_formats import BF16, E4M3, E5M2, FP16, Format, Scaling
from helpers.recipes import accounting
from helpers.runs import published
from helpers.runs.results import Results
from helpers.show import message, style, tables
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.numbers import billions, shown
from helpers.show.style import FAINT, GREY, INK, RECORDED_HATCH, REFERENCE, RUN_COLOURS, Picture

if TYPE_CHECKING:
    import pandas as pd
    import torch

FORMAT_COLOURS = {"E4M3": RUN_COLOURS[1], "E5M2": RUN_COLOURS[2], "bf16": RUN_COLOURS[3], "fp16": RUN_COLOURS[4]}
RECIPE_STYLE = {  # recipe -> colour and hatch
    "bf16": ("#BBBBBB", ""),
    "delayed": (RUN_COLOURS[1], "//"),
    "tensorwise": (RUN_COLOURS[2], ""),
    "blockwise": (RUN_COLOURS[3], "\\\\"),
    "mxfp8": (RUN_COLOURS[4], "xx"),
}
LOWEST, HIGHEST = -40, 20  # powers of two the number line shows at most
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@checked
def number_line(
    tensor: torch.Tensor | None = None, format: Format = E4M3, scaling: Scaling | None = None, name: str = "tensor"
) -> Picture:
    """The values a format can hold on a logarithmic line, and the magnitudes of a tensor above it.

    The histogram shows the tensor times its scale, that is, what is rounded; where there is a scale, a dashed line
    shows the tensor as it was. The other formats stand below for comparison.

    Args:
        tensor: any shape; None draws the formats alone.
        scaling: one of `number_formats`' scalings; None casts as it is.
    """
    rows = [E4M3, E5M2, FP16 if format == FP16 else BF16]
    result = None if tensor is None else number_formats.cast(tensor, format, scaling)
    low, high = _span(tensor, result)
    tall = 0 if tensor is None else 1.75
    height = 0.55 + tall + 0.42 * len(rows)
    with style.apply():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.2, height))
        left, width = 0.085, 0.735
        lines = figure.add_axes((left, 0.48 / height, width, 0.42 * len(rows) / height))
        for row, each in enumerate(rows):
            _format_row(lines, row, each, low, high, chosen=each == format)
        lines.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        lines.set_yticklabels([f.name for f in rows])
        lines.get_yticklabels()[rows.index(format)].set_fontweight("bold")
        step = 4 if high - low <= 44 else 8
        ticks = range(-(-low // step) * step, high + 1, step)
        lines.set_xticks(ticks, ["1" if t == 0 else "2" + str(t).translate(SUPERSCRIPT) for t in ticks])
        lines.tick_params(length=0)
        lines.set_xlabel("magnitude")
        lines.spines[["left", "bottom"]].set_visible(False)
        alt = f"Number line of {', '.join(f.name for f in rows)} on a logarithmic axis"
        if tensor is not None:
            bars = figure.add_axes((left, 1 - (tall + 0.02) / height, width, (tall - 0.3) / height), sharex=lines)
            _histogram(bars, tensor, result, low, high)
            bars.set_title(f"{name}, {format.name}, {result.scaling.name}", loc="left", pad=6)
            found = number_formats.errors(tensor, result)
            text = (
                f"become zero\n{found.underflow:.2%}\n\ncut at the largest\n{found.saturated:.2%}\n\n"
                f"relative error\n{found.relative_error:.2%}"
            )
            figure.text(
                left + width + 0.02, 1 - 0.32 / height, text, va="top", fontsize=10, color=INK, linespacing=1.25
            )
            alt += (
                f", with a histogram of {name} under {result.scaling.name} scaling: {found.underflow:.2%} of it become "
                f"zero in {format.name}, {found.saturated:.2%} are cut, relative error {found.relative_error:.2%}"
            )
    return Picture(figure, alt + ".")


def _span(tensor, result) -> tuple[int, int]:
    """The powers of two to show: E4M3 and E5M2 whole, and the bulk of the tensor."""
    low, high = -18, 17
    if tensor is not None:
        for values in (tensor.detach().float(), tensor.detach().float() * result.scale):
            logs = values.abs()[(values != 0) & values.isfinite()].log2()
            if logs.numel():
                low = min(low, int(logs.kthvalue(1 + logs.numel() // 500).values) - 1)
                high = max(high, int(logs.max()) + 2)
    return max(low, LOWEST), min(high, HIGHEST)


def _format_row(axes, row: int, format: Format, low: int, high: int, chosen: bool):
    """One format: a band over its range, its values as ticks while they can be told apart, its largest value named."""
    import math

    colour = FORMAT_COLOURS[format.name]
    start, normal, end = (math.log2(v) for v in (format.smallest_subnormal, format.smallest_normal, format.largest))
    shown = max(start, low), min(end, high)
    axes.barh(row, shown[1] - shown[0], left=shown[0], height=0.5, color=colour, alpha=0.3 if chosen else 0.15, lw=0)
    if low < normal:
        axes.barh(
            row, normal - shown[0], left=shown[0], height=0.5, fc="none", ec=colour, hatch="////", lw=0, alpha=0.7
        )
    if format.bits == 8:
        values = format.values()
        axes.vlines(values[values > 0].log2().tolist(), row - 0.25, row + 0.25, color=INK if chosen else FAINT, lw=0.6)
    if end < high:
        text = f" {format.largest:,.0f}"
        axes.text(end + 0.15, row, text, va="center", fontsize=9.5, color=INK if chosen else FAINT)
    else:
        axes.text(high - 0.2, row, "→", va="center", ha="right", fontsize=11, color=FAINT)
    if start <= low:
        axes.text(low + 0.2, row, "←", va="center", fontsize=11, color=FAINT)


def _histogram(axes, tensor, result, low: int, high: int):
    """Shares of the elements per half power of two; what becomes zero or is cut is hatched."""
    import torch

    def shares(values):
        logs = values[values != 0].abs().log2().clamp(low + 0.01, high - 0.01)
        counts = torch.histc(logs, bins=2 * (high - low), min=low, max=high)
        return (counts / max(1, values.numel()) * 100).tolist()

    original = tensor.detach().float().flatten()
    scaled = (tensor.detach().float() * result.scale).flatten()
    edges = [low + i / 2 for i in range(2 * (high - low) + 1)]
    colour = FORMAT_COLOURS[result.format.name]
    kept = (result.codes.float().flatten() != 0) & (scaled.abs() <= result.format.largest)
    total, held = shares(scaled), shares(scaled.where(kept, torch.zeros(())))
    axes.stairs(held, edges, fill=True, fc=colour)
    if any(t > h for t, h in zip(total, held, strict=True)):
        axes.stairs(total, edges, baseline=held, fill=True, fc="white", ec=INK, hatch="xxxx", lw=0)
    if not torch.equal(original, scaled):
        axes.stairs(shares(original), edges, **{**REFERENCE, "zorder": 3})
    axes.tick_params(labelbottom=False, length=0)
    axes.set_ylabel("% of elements")
    axes.set_ylim(0, 1.12 * max(*total, *shares(original), 1))


@checked
def quantization_error(table: pd.DataFrame) -> Picture:
    """Bars of the relative error by tensor and FP8 recipe, in percent.

    Args:
        table: from `formats.cast_errors` or `product_errors`: index (what, recipe).
    """
    if "relative_error" not in table or table.index.nlevels != 2:
        raise ValueError("plots.quantization_error: it takes a table of formats.cast_errors or formats.product_errors.")
    errors = table["relative_error"]
    groups = list(dict.fromkeys(table.index.get_level_values(0)))
    recipes = [r for r in RECIPE_STYLE if r in table.index.get_level_values(1)]
    figure, axes = style.new_figure(width=8.2, height=3.5)
    with style.apply():
        width = 0.84 / len(recipes)
        for i, recipe in enumerate(recipes):
            values = [float(errors[group, recipe]) for group in groups]
            places = [g - 0.42 + (i + 0.5) * width for g in range(len(groups))]
            colour, hatch = RECIPE_STYLE[recipe]
            axes.bar(places, values, 0.92 * width, label=recipe, fc=colour, ec="white", hatch=hatch, lw=0)
            for x, value in zip(places, values, strict=True):
                words = f"{value:.2%}" if value == 0 or value >= 1e-4 else "<0.01%"
                axes.annotate(
                    words, (x, value), (0, 3), textcoords="offset points", ha="center", fontsize=8.5, color=INK
                )
        axes.set_ylim(0, 1.12 * float(errors.max()))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(False, axis="x")
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("relative error")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(recipes))
    worst = errors.idxmax()
    alt = f"Bars of relative error for {', '.join(groups)} under {', '.join(recipes)}; largest: "
    return Picture(figure, alt + f"{worst[0]} under {worst[1]}, {errors.max():.2%}.")


NOTHING = message.nothing_recorded("run of Llama3-8B")


@checked
def format_speeds_table(several: Iterable[Results | None]):
    """Tokens/s per GPU and peak memory by layout and format, one row per run (pandas); a sentence where there is none.

    `× bf16` is the speed over that of the bf16 run with the same layout and batch, eager or a CUDA graph as this one;
    "–" where there is no such run. MFU is of the bf16 peak for every format. The last rows are NVIDIA's, 8 × H100.
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
            "MFU": f"{row['MFU']:.1%}" if row["MFU"] else "–",
            "peak memory GB": f"{row['GB']:.1f}" if row["GB"] else "–",
            "measured on": row["measured on"],
        }
        for row in rows
    ]
    none = {"× bf16": "–", "MFU": "–", "peak memory GB": "–"}
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
            colour = RECIPE_STYLE.get(row["format"].removeprefix("fp8 "), RECIPE_STYLE["bf16"])[0]
            hatch = RECORDED_HATCH if row["run"].recorded_on else None
            look = {"height": 0.7, "color": colour, "edgecolor": "white", "linewidth": 0, "hatch": hatch}
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
