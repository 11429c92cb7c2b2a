"""Number formats drawn: their values on a line, and what a loud column leaves of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from helpers.formats import number_formats
from helpers.formats.number_formats import BF16, E4M3, E5M2, FP16, Format, Scaling
from helpers.show import bounds, style
from helpers.show.arguments import checked
from helpers.show.style import FAINT, INK, MARKERS, REFERENCE, RUN_COLOURS, Picture

if TYPE_CHECKING:
    import pandas as pd
    import torch

FORMAT_COLOURS = {"E4M3": RUN_COLOURS[1], "E5M2": RUN_COLOURS[2], "bf16": RUN_COLOURS[3], "fp16": RUN_COLOURS[4]}
RECIPE_COLOURS = {
    "bf16": RUN_COLOURS[6],
    "delayed": RUN_COLOURS[1],
    "tensorwise": RUN_COLOURS[2],
    "blockwise": RUN_COLOURS[3],
    "mxfp8": RUN_COLOURS[4],
}
LOWEST, HIGHEST = -40, 20  # powers of two the number line shows at most
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@checked
def number_line(
    tensor: torch.Tensor | None = None,
    format: Format = E4M3,
    scaling: Scaling | None = None,
    name: Annotated[str, bounds.LINE] = "tensor",
) -> Picture:
    """The values a format can hold on a logarithmic line, and the magnitudes of a tensor above it.

    The histogram shows the tensor times its scale, that is, what is rounded; where there is a scale, a dashed line
    shows the tensor as it was. The other formats stand below for comparison.

    Args:
        tensor: any shape; None draws the formats alone.
        scaling: one of `number_formats`' scalings; None casts as it is.

    Raises:
        ValueError: the tensor has no element.
    """
    if tensor is not None and not tensor.numel():
        raise ValueError(f"plots.number_line: the tensor {name!r} has no element.")
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
    """One format: a band over its range, paler where numbers are subnormal; its values as ticks while they can be told
    apart, its largest value named."""
    import math

    colour = FORMAT_COLOURS[format.name]
    start, normal, end = (math.log2(v) for v in (format.smallest_subnormal, format.smallest_normal, format.largest))
    shown = max(start, low), min(end, high)
    full = max(normal, shown[0])
    strength = 0.3 if chosen else 0.15
    axes.barh(row, shown[1] - full, left=full, height=0.5, color=colour, alpha=strength, lw=0)
    if low < normal:  # subnormal numbers: paler
        axes.barh(row, full - shown[0], left=shown[0], height=0.5, color=colour, alpha=0.4 * strength, lw=0)
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
def outlier(table: pd.DataFrame) -> Picture:
    """Errors of a layer's GEMMs against how loud one column of its activation is, a colour a scaling.

    Left: the weights' gradient of the quiet columns. Right: the output, solid with the loud column's weights as they
    are, dashed with 0 in their place.

    Args:
        table: from `formats.outlier_errors`: index (factor, scaling).
    """
    if "wgrad, quiet" not in table or table.index.nlevels != 2:
        raise ValueError("plots.outlier: it takes a table of formats.outlier_errors.")
    words = []
    with style.apply():
        figure, (left, right) = style.new_figure(1, 2, width=9.0, height=3.8, sharex=True, sharey=True)
        for mark, (name, own) in zip(MARKERS, table.groupby("scaling", sort=False), strict=False):
            own = own.droplevel("scaling")
            look = {"color": RECIPE_COLOURS[name], "marker": mark}
            left.plot(own.index, own["wgrad, quiet"], label=name, **look)
            right.plot(own.index, own["fprop"], **look)
            right.plot(own.index, own["fprop, weight 0"], linestyle="--", **look)
            words.append(f"{name} {own['wgrad, quiet'].iloc[0]:.1%} to {own['wgrad, quiet'].iloc[-1]:.0%}")
        left.set(xscale="log", yscale="log", ylim=(0.005, 2))
        left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        left.set_title("wgrad, the quiet columns")
        right.set_title("fprop; dashed: loud weights set to 0")
        left.set_ylabel("relative error")
        for axes in (left, right):
            axes.set_xlabel("factor of the loud column")
        figure.legend(loc="outside lower center", ncols=3)
    return Picture(figure, f"wgrad's error in the quiet columns as one grows to 10⁶ times: {', '.join(words)}.")
