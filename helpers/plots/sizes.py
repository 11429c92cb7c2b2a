"""A model in parts: its parameters, and the memory of a rank."""

from collections.abc import Callable, Mapping
from functools import partial

from helpers.machine import Machine
from helpers.plots.shapes import canvas, on
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.preflight import ranges
from helpers.recipes.settings import Model
from helpers.runs.results import Results
from helpers.show import style
from helpers.show.arguments import checked
from helpers.show.numbers import decimal_bytes, short_count
from helpers.show.style import GREY, INK, MEMORY_PARTS, RECORDED_HATCH, REFERENCE, RUN_COLOURS, Picture

MODEL_PARTS = dict(zip(("embedding", "position", "attention", "MLP", "experts", "norms"), RUN_COLOURS[1:], strict=True))


@checked
def sizes(recipe: Recipe, compared_with: Recipe | None = None) -> Picture:
    """Two stacked bars of a `recipes.Recipe`: the model's parameters by part, one GPU rank's memory by part.

    Args:
        compared_with: another recipe, whose totals are drawn as lines.
    """
    for one in filter(None, (recipe, compared_with)):
        preflight.require(one)
    counts = accounting.parameter_counts(recipe.model)
    memory = accounting.memory(recipe)
    counted = partial(short_count, tenths=True)
    lines = {}, {}
    if compared_with is not None and compared_with != recipe:
        lines[0][f"{compared_with.name} "] = sum(accounting.parameter_counts(compared_with.model).values())
        lines[1][f"{compared_with.name} "] = sum(accounting.memory(compared_with).values())
    with style.apply():
        figure, axes = canvas(9.0, 2.55)
        title = f"{counted(sum(counts.values()))} parameters in the whole model"
        _stack(axes, 0.3, title, counts, MODEL_PARTS, counted, lines[0])
        title = f"{decimal_bytes(sum(memory.values()))} on each rank ({recipe.layout.name}, {recipe.precision.name})"
        _stack(axes, 1.6, title, memory, MEMORY_PARTS, decimal_bytes, lines[1])
    alt = f"{counted(sum(counts.values()))} parameters: " + _spoken(counts, counted)
    return Picture(figure, f"{alt}. {decimal_bytes(sum(memory.values()))} on a rank: {_spoken(memory, decimal_bytes)}.")


def _spoken(parts: Mapping, words: Callable) -> str:
    return ", ".join(f"{part} {words(size)}" for part, size in parts.items())


def _stack(axes, top: float, title: str, parts: Mapping, colours: Mapping, words: Callable, lines: Mapping) -> None:
    """One stacked bar, its title above and its parts named below; `lines` are dashed, on the same scale."""
    from matplotlib.patches import Rectangle

    left, width, columns = 0.15, 8.7, 5
    full = max(sum(parts.values()), *lines.values(), 1) * 1.01
    axes.text(left, top - 0.1, title, va="center", fontsize=11.5, weight="bold", color=INK)
    x = left
    for part, size in parts.items():
        share = width * size / full
        axes.add_patch(Rectangle((x, top + 0.12), share, 0.42, fc=colours[part], ec="white", lw=0.8))
        x += share
    grey = {"va": "center", "fontsize": 10, "color": GREY}
    for size in lines.values():
        at = left + width * size / full
        axes.plot([at, at], [top + 0.04, top + 0.62], **REFERENCE | {"zorder": 3})
    words_of_lines = "   ".join(f"┊ {name}{words(size)}" for name, size in lines.items())
    axes.text(left + width, top - 0.1, words_of_lines, ha="right", **grey)
    for i, (part, size) in enumerate(parts.items()):
        at = left + width / columns * (i % columns) + 0.08, top + 0.76 + 0.25 * (i // columns)
        axes.scatter(*at, s=70, marker="s", fc=colours[part], lw=0)
        axes.text(at[0] + 0.14, at[1], f"{part} {words(size)}", va="center", fontsize=9.5, color=INK)


MEASURED = "measured"


@checked
def memory(recipe: Recipe, run: Results | None = None, machine: Machine | None = None) -> Picture:
    """Memory of the fullest rank, predicted part by part, and beside it what a run measured.

    Args:
        recipe: a `recipes.Recipe`.
        run: a run of that recipe; its machine is taken for the prediction.
        machine: where to predict for; None plans for GPUs with Transformer Engine.
    """
    preflight.require(recipe)
    machine = _machine_of(run) if run is not None else machine
    bars = {"predicted": accounting.memory(recipe, machine)}
    colours = dict(MEMORY_PARTS)
    peak = run and run.peak_memory_bytes
    if peak:
        bars[MEASURED] = {MEASURED: peak}
        colours[MEASURED] = INK
    words = [f"{name}: {decimal_bytes(sum(parts.values()))}" for name, parts in bars.items()]
    parts = ", ".join(f"{part} {decimal_bytes(size)}" for part, size in bars["predicted"].items())
    with style.apply():
        figure, axes = style.new_figure(height=1.4 + 0.5 * len(bars))
        other = bars["predicted"].get("other", 0)
        ends = {"predicted": f"{decimal_bytes(sum(bars['predicted'].values()) - other)} + {decimal_bytes(other)} other"}
        hatched = bool(run is not None and run.recorded_on)
        _stacked(axes, bars, colours, decimal_bytes, hatched, ends if peak else None)
        axes.set_xlabel("GB on the fullest rank" + (f" ({_what_is_measured(run)})" if peak else ""))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
        where = f", {run.machine}" if run is not None else ""
        axes.set_title(f"{recipe.name}: {recipe.layout.name}, {recipe.precision.name}{where}")
        _legend_below(figure, MEMORY_PARTS)
    return Picture(figure, f"Memory of one rank, {'; '.join(words)}. Predicted parts: {parts}.")


@checked
def parameters(*models: Recipe | Model) -> Picture:
    """Parameters by part, one stacked bar for each `recipes.Recipe` (or `settings.Model`)."""
    if not models:
        raise ValueError("plots.parameters: there is no model. It takes recipes: plots.parameters(recipe, other).")
    for one in models:
        preflight.require_values(one) if isinstance(one, Recipe) else ranges.require(one)
    names = [getattr(m, "name", None) or f"{m.num_layers} × {m.hidden_size}" for m in models]
    bars = {n: accounting.parameter_counts(getattr(m, "model", m)) for n, m in zip(names, models, strict=True)}
    present = {part: MODEL_PARTS[part] for part in MODEL_PARTS if any(part in parts for parts in bars.values())}
    with style.apply():
        figure, axes = style.new_figure(height=1.3 + 0.5 * len(bars))
        _stacked(axes, bars, MODEL_PARTS, short_count)
        axes.set_xlabel("parameters")
        axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
        _legend_below(figure, present)
    words = [
        f"{name} {sum(parts.values()):,} (" + ", ".join(f"{part} {short_count(n)}" for part, n in parts.items()) + ")"
        for name, parts in bars.items()
    ]
    return Picture(figure, f"Parameters by part: {'; '.join(words)}.")


def _stacked(axes, bars: dict[str, dict], colours: dict[str, str], words, hatched=False, ends=None) -> None:
    """Horizontal stacked bars, the first on top, each with its total, or its words of `ends`, at its end."""
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
        axes.text(left + 0.01 * full, row, (ends or {}).get(name, words(left)), va="center", color=INK)
    style.name_rows(axes, dict(enumerate(bars)))
    axes.invert_yaxis()
    axes.set_xlim(0, (1.45 if ends else 1.17) * full)


def _what_is_measured(run) -> str:
    """Tensors on a GPU; on a CPU all that the process grew by, some of "other" among it."""
    machine = _machine_of(run)
    on_cpu = machine is not None and machine.device == "cpu"
    return "measured: what the process grew by" if on_cpu else 'measured without "other"'


def _legend_below(figure, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour) for colour in colours.values()]
    look = {"columnspacing": 1, "handlelength": 1.2, "ncols": len(colours)}
    figure.legend(patches, list(colours), loc="outside lower center", **look)


def _machine_of(run) -> Machine | None:
    known = run.environment.get("machine")
    return Machine.from_json(known) if known else None
