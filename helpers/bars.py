"""Stacked bars: where memory and parameters are."""

from helpers.drawings import MODEL_PARTS
from helpers.machine import GPU, Machine
from helpers.recipes import accounting
from helpers.show import numbers, style
from helpers.show.style import INK, MEMORY_PARTS, RECORDED_HATCH, Picture

MEASURED = "measured"


def memory(recipe, run=None, machine: Machine | None = None) -> Picture:
    """Memory of the fullest rank, predicted part by part, and beside it what a run measured.

    Args:
        recipe: a `recipes.Recipe`.
        run: a run of that recipe; its machine is taken for the prediction.
        machine: where to predict for; None plans for GPUs with Transformer Engine.
    """
    machine = _machine_of(run) if run is not None else machine
    bars = {"predicted": accounting.memory(recipe, machine)}
    colours = dict(MEMORY_PARTS)
    peak = run and run.peak_memory_bytes
    if peak:
        bars[MEASURED] = {MEASURED: peak}
        colours[MEASURED] = INK
    words = [f"{name}: {numbers.decimal_bytes(sum(parts.values()))}" for name, parts in bars.items()]
    parts = ", ".join(f"{part} {numbers.decimal_bytes(size)}" for part, size in bars["predicted"].items())
    with style.apply():
        figure, axes = style.new_figure(height=1.4 + 0.5 * len(bars))
        _stacked(axes, bars, colours, numbers.decimal_bytes, hatched=bool(run is not None and run.recorded_on))
        axes.set_xlabel("GB on the fullest rank" + (' ("other" is not in the measured bar)' if peak else ""))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
        where = f", {run.machine}" if run is not None else ""
        axes.set_title(f"{recipe.name}: {recipe.layout.name}, {recipe.precision.name}{where}")
        _legend_below(figure, MEMORY_PARTS)
    return Picture(figure, f"Memory of one rank, {'; '.join(words)}. Predicted parts: {parts}.")


def parameters(*models) -> Picture:
    """Parameters by part, one stacked bar for each `recipes.Recipe` (or `settings.Model`)."""
    names = [getattr(m, "name", None) or f"{m.num_layers} × {m.hidden_size}" for m in models]
    bars = {n: accounting.parameter_counts(getattr(m, "model", m)) for n, m in zip(names, models, strict=True)}
    present = {part: MODEL_PARTS[part] for part in MODEL_PARTS if any(part in parts for parts in bars.values())}
    with style.apply():
        figure, axes = style.new_figure(height=1.3 + 0.5 * len(bars))
        _stacked(axes, bars, MODEL_PARTS, _count)
        axes.set_xlabel("parameters")
        axes.xaxis.set_major_formatter(lambda value, _: _count(value))
        _legend_below(figure, present)
    words = [
        f"{name} {sum(parts.values()):,} (" + ", ".join(f"{part} {_count(n)}" for part, n in parts.items()) + ")"
        for name, parts in bars.items()
    ]
    return Picture(figure, f"Parameters by part: {'; '.join(words)}.")


def _stacked(axes, bars: dict[str, dict[str, float]], colours: dict[str, str], words, hatched: bool = False) -> None:
    """Horizontal stacked bars, the first on top, each with its total at its end."""
    full = max(sum(parts.values()) for parts in bars.values())
    for row, (name, parts) in enumerate(bars.items()):
        left = 0.0
        for part, size in parts.items():
            hatch = RECORDED_HATCH if hatched and name == MEASURED else None
            face = "white" if name == MEASURED else colours[part]
            edge = INK if name == MEASURED else "white"
            axes.barh(row, size, left=left, height=0.62, color=face, hatch=hatch, edgecolor=edge)
            if size > 0.1 * full and name != MEASURED:
                axes.text(left + size / 2, row, words(size), ha="center", va="center", color=on(face), fontsize=10)
            left += size
        axes.text(left + 0.01 * full, row, words(left), va="center", color=INK)
    style.name_rows(axes, dict(enumerate(bars)))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.17 * full)


def on(colour: str) -> str:
    """Black or white, whichever can be read on a colour (relative luminance, WCAG 2)."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else INK


def _legend_below(figure, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour) for colour in colours.values()]
    look = {"columnspacing": 1, "handlelength": 1.2, "ncols": len(colours)}
    figure.legend(patches, list(colours), loc="outside lower center", **look)


def _machine_of(run) -> Machine | None:
    known = dict(run.environment.get("machine", {}))
    if not known:
        return None
    gpus = tuple(GPU(g["name"], g["memory_bytes"], tuple(g["compute_capability"])) for g in known.get("gpus", ()))
    return Machine(gpus=gpus, transformer_engine=bool(known.get("transformer_engine")))


def _count(number: float) -> str:
    """Parameters in words: "355M", "8.03B"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
