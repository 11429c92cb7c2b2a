"""Pictures of one step on the GPU: one layer's kernels, lane by lane, and what the whole step's time goes to."""

from collections.abc import Mapping

from helpers.plots.shapes import PALE, on
from helpers.runs.kernels import COLLECTIVES
from helpers.runs.timeline import CATEGORIES, IDLE, PARTS, Kernel, Timeline, Window
from helpers.show import message, style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import COLOURS, INK, RUN_COLOURS, Picture

KERNEL_COLOURS = {
    "matrix products": RUN_COLOURS[1],
    "attention": RUN_COLOURS[2],
    "loss": "#DDCC77",
    "norms, elementwise": RUN_COLOURS[4],
    "optimizer": RUN_COLOURS[0],
    "copies, other": "#BBBBBB",
    "collectives": COLOURS["tensor"],
    IDLE: PALE,
}
SHOWN = {"matrix products": "GEMMs"}  # where a figure has a shorter word for a category
GRAD = {1: "dgrad", 2: "wgrad"}  # a backward pass has two products for each matrix, in this order
NAMED_WIDTH = 0.04  # share of the longest window from which a kernel has room for its name
UPRIGHT_WIDTH = 0.018  # and from which it has room for one turned by 90°
NOTHING = message.nothing_recorded("timeline")
EDGED_WIDTH = 0.008  # and from which an edge would not hide it


@checked
def layer_timeline(named: Mapping[str, Timeline | Absence]) -> Picture | Absence:
    """One layer of each timeline, forward and backward, on one scale; pale is a GPU that computes nothing.

    Backward, the two GEMMs of a matrix are named dgrad and wgrad. Collectives have a lane of their own below what is
    computed, each named AG, RS, AR or A2A, or "copy" where a copy engine sends: what they share a moment with, hides
    them.

    Args:
        named: what to call each timeline → the timeline; where there is none, its sentence is passed over.
    """
    drawn = {name: one for name, one in named.items() if isinstance(one, Timeline)}
    if not drawn:
        return next(iter(named.values()), NOTHING)
    windows = {
        (name, direction): getattr(one, direction)
        for name, one in drawn.items()
        for direction in ("forward", "backward")
    }
    longest = max(window.microseconds for window in windows.values())
    lanes = [(key, talks) for key, window in windows.items() for talks in (False, True) if _kernels(window, talks)]
    with style.apply():
        figure, axes = style.new_figure(width=9.6, height=1.1 + 0.46 * len(lanes))
        for row, (key, talks) in enumerate(lanes):
            _lane(axes, row, windows[key], talks, longest, backward=key[1] == "backward")
            if not talks:
                window = windows[key]
                words = f"{window.microseconds / 1e3:.2f} ms, {window.idle / window.microseconds:.0%} idle"
                axes.text(
                    window.microseconds / 1e3 + 0.012 * longest / 1e3, row, words, va="center", color=INK, fontsize=10
                )
        names = ["collectives" if talks else ", ".join(key) for key, talks in lanes]
        style.name_rows(axes, dict(enumerate(names)))
        axes.set(xlim=(0, 1.2 * longest / 1e3), ylim=(len(lanes) - 0.4, -0.6), xlabel="ms")
        one = next(iter(drawn.values()))
        axes.set_title(f"layer {one.layer} of {one.layers}, recorded on {one.machine}")
        used = {kernel.category for window in windows.values() for kernel in window.kernels}
        _legend(figure, [name for name in CATEGORIES if name in used] + [IDLE])
    spoken = [
        f"{name}, {direction}: {window.microseconds / 1e3:.2f} ms, {window.idle / window.microseconds:.0%} idle"
        for (name, direction), window in windows.items()
    ]
    return Picture(figure, f"Kernels of layer {one.layer} on {one.machine}. {'; '.join(spoken)}.")


@checked
def time_shares(named: Mapping[str, Timeline | Absence]) -> Picture | Absence:
    """What each timeline's whole step goes to, one stacked bar each in ms; pale is a GPU that waits.

    Args:
        named: as for `layer`.
    """
    drawn = {name: one for name, one in named.items() if isinstance(one, Timeline)}
    if not drawn:
        return next(iter(named.values()), NOTHING)
    longest = max(one.step_ms for one in drawn.values())
    with style.apply():
        figure, axes = style.new_figure(width=9.6, height=1.3 + 0.55 * len(drawn))
        for row, one in enumerate(drawn.values()):
            left = 0.0
            for name, milliseconds in one.milliseconds.items():
                colour = KERNEL_COLOURS[name]
                look = {"edgecolor": "#888888" if name == IDLE else "white"}
                axes.barh(row, milliseconds, left=left, height=0.62, color=colour, linewidth=0.8, **look)
                if milliseconds > 0.06 * longest:
                    box = {"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none"}
                    share = f"{milliseconds / one.step_ms:.0%}"
                    middle = left + milliseconds / 2
                    axes.text(middle, row, share, ha="center", va="center", color=on(colour), fontsize=10, bbox=box)
                left += milliseconds
            axes.text(one.step_ms + 0.01 * longest, row, _lengths(one), va="center", color=INK, fontsize=10)
        style.name_rows(axes, dict(enumerate(drawn)))
        axes.set(xlim=(0, 1.3 * longest), ylim=(len(drawn) - 0.5, -0.5), xlabel="ms of the profiled step")
        axes.set_title(f"recorded on {next(iter(drawn.values())).machine}")
        used = {name for one in drawn.values() for name, milliseconds in one.milliseconds.items() if milliseconds > 0}
        _legend(figure, [name for name in KERNEL_COLOURS if name in used])
    spoken = [
        f"{name}, {one.step_ms:.0f} ms: "
        + ", ".join(f"{SHOWN.get(c, c)} {ms / one.step_ms:.0%}" for c, ms in one.milliseconds.items() if ms)
        for name, one in drawn.items()
    ]
    return Picture(figure, f"Share of a step by kind of kernel. {'; '.join(spoken)}.")


def _kernels(window: Window, talks: bool) -> list[Kernel]:
    """The window's collectives, or all but them. A CUDA graph deals its kernels to streams as it likes."""
    return [kernel for kernel in window.kernels if (kernel.category == "collectives") == talks]


def _lane(axes, row: int, window: Window, talks: bool, longest: float, backward: bool) -> None:
    """One lane's kernels as boxes, in ms, with the names of the long ones."""
    if not talks:  # what stays pale is a moment without a kernel
        axes.barh(row, window.microseconds / 1e3, height=0.7, color=PALE, edgecolor="none")
    for kernel in _kernels(window, talks):
        start, length = kernel.start / 1e3, kernel.duration / 1e3
        colour = KERNEL_COLOURS[kernel.category]
        axes.barh(row, length, left=start, height=0.7, color=colour, linewidth=0)
        if kernel.duration > EDGED_WIDTH * longest:
            axes.vlines(start, row - 0.35, row + 0.35, color=INK, linewidth=0.4)
    named = _names(window, talks)
    parts = [words for words, *_ in named]
    for place, (words, colour, start, end) in enumerate(named):
        share, look = (end - start) / longest, {"ha": "center", "va": "center", "color": on(colour)}
        twice = backward and words in PARTS and parts.count(words) == 2
        grad = GRAD[parts[: place + 1].count(words)] if twice else ""
        if share > NAMED_WIDTH * max(1, max(len(words), len(grad)) / 4.4):
            size = 8 if grad else 9.5
            axes.text((start + end) / 2e3, row, f"{words}\n{grad}".strip(), fontsize=size, linespacing=1.0, **look)
        elif share > UPRIGHT_WIDTH and words in (*PARTS, *COLLECTIVES):
            upright = {"rotation": 90} if words in PARTS or len(words) > 2 else {}
            axes.text((start + end) / 2e3, row, words, fontsize=7.5, **upright, **look)


def _names(window: Window, talks: bool) -> list[tuple[str, str, float, float]]:
    """(words, colour, start, end in µs) of the kernels that have a name; the pieces of one product have it together."""
    named, before = [], None
    for kernel in _kernels(window, talks):
        words = kernel.part or kernel.collective or ("attention" if kernel.category == "attention" else "")
        goes_on = before and (before.part, before.name) == (kernel.part, kernel.name) and kernel.start < before.end + 10
        if kernel.part and goes_on:
            named[-1] = (*named[-1][:3], kernel.end)
        elif words:
            named.append((words, KERNEL_COLOURS[kernel.category], kernel.start, kernel.end))
        before = kernel if words else before
    return named


def _lengths(one: Timeline) -> str:
    usual = f"\n{one.usual_step_ms:.0f} ms without profiler" if one.usual_step_ms else ""
    return f"{one.step_ms:.0f} ms{usual}"


def _legend(figure, names: list[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(fc=KERNEL_COLOURS[name], ec="#888888" if name == IDLE else "white") for name in names]
    columns = len(names) if len(names) <= 7 else -(-len(names) // 2)
    look = {"columnspacing": 1, "handlelength": 1.2, "ncols": columns}
    figure.legend(patches, [SHOWN.get(name, name) for name in names], loc="outside lower center", **look)
