"""Pictures of numbers and bytes: a tensor on a format's number line, what casts lose, an index, packed documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers import drawings
from helpers.corpus import index
from helpers.formats import number_formats
from helpers.formats.number_formats import BF16, E4M3, E5M2, FP16, Format, Scaling
from helpers.show import style
from helpers.show.style import FAINT, INK, REFERENCE, RUN_COLOURS, Picture

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
INDEX_SECTIONS = {  # field of the index -> section, which gives its colour
    "magic": 0,
    "version": 1,
    "dtype code": 1,
    "sequences": 2,
    "document indices": 2,
    "sequence length": 3,
    "sequence pointer": 4,
    "document index": 5,
}
LOWEST, HIGHEST = -40, 20  # powers of two the number line shows at most
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
            logs = values.abs()[values != 0].log2()
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


def quantization_error(table: pd.DataFrame, measure: str = "relative_error") -> Picture:
    """Bars of an error measure by tensor and FP8 recipe, in percent.

    Args:
        table: from `layer_tensors.cast_errors` or `product_errors`: index (what, recipe), a column a measure.
        measure: a column of it.
    """
    groups = list(dict.fromkeys(table.index.get_level_values(0)))
    recipes = [r for r in RECIPE_STYLE if r in table.index.get_level_values(1)]
    figure, axes = style.new_figure(width=8.2, height=3.5)
    with style.apply():
        width = 0.84 / len(recipes)
        for i, recipe in enumerate(recipes):
            values = [float(table.loc[(group, recipe), measure]) for group in groups]
            places = [g - 0.42 + (i + 0.5) * width for g in range(len(groups))]
            colour, hatch = RECIPE_STYLE[recipe]
            axes.bar(places, values, 0.92 * width, label=recipe, fc=colour, ec="white", hatch=hatch, lw=0)
            for x, value in zip(places, values, strict=True):
                words = f"{value:.2%}" if value == 0 or value >= 1e-4 else "<0.01%"
                axes.annotate(
                    words, (x, value), (0, 3), textcoords="offset points", ha="center", fontsize=8.5, color=INK
                )
        axes.set_ylim(0, 1.12 * float(table[measure].max()))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(False, axis="x")
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel(measure.replace("_", " "))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(recipes))
    worst = table[measure].idxmax()
    alt = f"Bars of {measure.replace('_', ' ')} for {', '.join(groups)} under {', '.join(recipes)}; largest: "
    return Picture(figure, alt + f"{worst[0]} under {worst[1]}, {table[measure].max():.2%}.")


def index_bytes(prefix, first: int = 2) -> Picture:
    """The bytes of `<prefix>.idx`, one line a field: where it lies, its bytes as hexadecimal boxes, what they say.

    Args:
        first: how many entries of each of the three arrays to show.
    """
    from matplotlib.patches import Rectangle

    table = index.fields(prefix, first)
    raw = index.idx_path(prefix).read_bytes()
    with style.apply():
        from matplotlib.figure import Figure

        height = 0.3 * len(table) + 0.5
        figure = Figure(figsize=(9.6, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 32), ylim=(len(table) + 0.35, -1.3))
        axes.axis("off")
        words = {"va": "center", "fontsize": 10, "color": INK}
        for x, title, side in ((2.1, "byte", "right"), (2.6, "bytes, hexadecimal", "left"), (15.6, "field", "left")):
            axes.text(x, -0.75, title, ha=side, **words | {"color": FAINT})
        axes.text(27.6, -0.75, "value", ha="right", **words | {"color": FAINT})
        for y, row in enumerate(table.itertuples()):
            colour = RUN_COLOURS[1 + INDEX_SECTIONS[row.field.split(" [")[0]]]
            axes.text(2.1, y, f"{row.offset:,}", ha="right", **words)
            for i, byte in enumerate(raw[row.offset : row.offset + row.bytes]):
                axes.add_patch(Rectangle((2.6 + 1.4 * i, y - 0.43), 1.32, 0.86, fc=colour, alpha=0.35, lw=0))
                code = {"ha": "center", "family": "DejaVu Sans Mono", "fontsize": 9.5, "va": "center"}
                axes.text(2.6 + 1.4 * i + 0.66, y, f"{byte:02x}", color=INK if byte else "#8A8A8A", **code)
            axes.text(15.6, y, row.field, **words)
            value = "MMIDIDX" if row.field == "magic" else f"{row.value:,}"
            axes.text(27.6, y, value, ha="right", **words | {"weight": "bold"})
            axes.text(28.0, y, row.type if row.field != "magic" else "", **words | {"color": FAINT})
    listed = ", ".join(
        f"{row.field} = {'MMIDIDX' if row.field == 'magic' else row.value}" for row in table.itertuples()
    )
    return Picture(figure, f"Bytes of {index.idx_path(prefix).name}, field by field: {listed}.")


def packing(samples) -> Picture:
    """Samples as bars of tokens, a colour a document with its number, a black mark at every end-of-document token.

    A jagged edge marks where a sample cuts a document: the rest of it lies in another sample.

    Args:
        samples: a `samples.Samples`, from `samples.draw`.
    """
    count, length = samples.tokens.shape
    documents = list(dict.fromkeys(samples.parts["document"]))
    figure, axes = style.new_figure(width=8.2, height=0.75 + 0.42 * count)
    with style.apply():
        for part in samples.parts.itertuples():
            colour = RUN_COLOURS[1 + documents.index(part.document) % 6]
            pale = drawings.tint(colour, 0.45)
            axes.barh(part.sample, part.tokens, left=part.position, height=0.66, fc=pale, ec="white", lw=0.8)
            label = f"document {part.document:,}"
            label = label if part.tokens > 0.17 * length else f"{part.document}" if part.tokens > 0.05 * length else ""
            middle = part.position + part.tokens / 2
            axes.text(middle, part.sample, label, ha="center", va="center", fontsize=9.5, color=INK)
            if part.first_token:
                _jag(axes, part.position, part.sample, length)
        ends = [(i, end + 1) for i in range(count) for end in samples.document_ends(i)]
        width = max(1.0, length / 300)
        axes.barh([i for i, _ in ends], width, left=[at - width for _, at in ends], height=0.8, color=INK, lw=0)
        for i in range(count):
            if not ends or (i, length) not in ends:
                _jag(axes, length, i, length)
        axes.set(xlim=(-length / 100, length * 1.01), ylim=(count - 0.5, -0.5), yticks=range(count))
        axes.set_yticklabels([f"sample {i}" for i in range(count)])
        axes.set_xlabel("token")
        axes.grid(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[["left"]].set_visible(False)
    held = samples.parts.groupby("sample")["document"].nunique()
    alt = f"{count} samples of {length} tokens from {len(documents)} documents; they hold parts of "
    return Picture(figure, alt + ", ".join(map(str, held)) + f" documents, with {len(ends)} ends of documents in all.")


def _jag(axes, x: float, row: int, length: int) -> None:
    """A white zigzag across a bar: here a document is cut."""
    reach = length / 160
    heights = [row - 0.36 + 0.09 * i for i in range(9)]
    axes.plot([x + reach * (-1) ** i for i in range(9)], heights, color="white", lw=2.4, clip_on=False)
