"""Pictures of one step on the GPU: one layer's kernels, lane by lane, and what the whole step's time goes to."""

from collections.abc import Mapping

from helpers.plots.shapes import PALE, on
from helpers.runs.kernels import COLLECTIVES, covered, gemms
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
LANES = ("computed", "collectives", "copies")  # of one direction; the last are those of a copy engine
NAMED_WIDTH = 0.04  # share of the longest window from which a kernel has room for its name
UPRIGHT_WIDTH = 0.018  # and from which it has room for one turned by 90°
NOTHING = message.nothing_recorded("timeline")
SEAM = 10  # µs between two pieces of one GEMM
EDGED_WIDTH = 0.008  # and from which an edge would not hide it


@checked
def layer_timeline(named: Mapping[str, Timeline | Absence]) -> Picture | Absence:
    """One layer of each timeline, forward and backward, on one scale; pale is a moment in which nothing is computed.

    Backward, the two GEMMs of a matrix are named dgrad and wgrad. Collectives have a lane of their own below what is
    computed, each named AG, RS, AR or A2A, and so has what a copy engine sends. Above pale a collective is exposed.

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
    lanes = [(key, lane) for key, window in windows.items() for lane in LANES if _kernels(window, lane)]
    with style.apply():
        figure, axes = style.new_figure(width=9.6, height=1.1 + 0.46 * len(lanes))
        for row, (key, lane) in enumerate(lanes):
            window, backward = windows[key], key[1] == "backward"
            _lane(axes, row, window, lane, longest, backward)
            if lane == "computed":
                look = {"va": "center", "color": INK, "fontsize": 10, "linespacing": 1.1}
                axes.text((window.microseconds + 0.012 * longest) / 1e3, row, _pale(window, ",\n"), **look)
        names = [", ".join(key) if lane == "computed" else lane for key, lane in lanes]
        style.name_rows(axes, dict(enumerate(names)))
        axes.set(xlim=(0, 1.24 * longest / 1e3), ylim=(len(lanes) - 0.4, -0.6), xlabel="ms")
        one = next(iter(drawn.values()))
        axes.set_title(f"layer {one.layer} of {one.layers}, recorded on {one.machine}")
        used = {kernel.category for window in windows.values() for kernel in window.kernels}
        _legend(figure, [name for name in CATEGORIES if name in used] + [IDLE], pale="nothing computed")
    spoken = [f"{name}, {direction}: {_pale(window)}" for (name, direction), window in windows.items()]
    return Picture(figure, f"Kernels of layer {one.layer} on {one.machine}. {'; '.join(spoken)}.")


@checked
def time_shares(named: Mapping[str, Timeline | Absence]) -> Picture | Absence:
    """What each timeline's whole step goes to, one stacked bar each in ms; pale is a GPU on which nothing runs.

    Collectives in the bar are exposed; beside it stands how long others ran behind the rest.

    Args:
        named: as for `layer`.
    """
    drawn = {name: one for name, one in named.items() if isinstance(one, Timeline)}
    if not drawn:
        return next(iter(named.values()), NOTHING)
    longest = max(one.step_ms for one in drawn.values())
    with style.apply():
        figure, axes = style.new_figure(width=9.6, height=1.3 + 0.65 * len(drawn))
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


def _lane_of(kernel: Kernel) -> str:
    """A CUDA graph deals its kernels to streams as it likes: a lane is by kind."""
    if kernel.category != "collectives":
        return "computed"
    return "copies" if kernel.collective == "copy" else "collectives"


def _kernels(window: Window, lane: str) -> list[Kernel]:
    return [kernel for kernel in window.kernels if _lane_of(kernel) == lane]


def _pale(window: Window, between: str = ", ") -> str:
    """A window's length, and which share of it is without a kernel that computes, and without any."""
    ends = [(k.start, min(k.end, window.microseconds)) for k in _kernels(window, "computed")]
    free, idle = (one / window.microseconds for one in (window.microseconds - covered(ends), window.idle))
    return f"{window.microseconds / 1e3:.2f} ms{between}{free:.0%} no compute, {idle:.0%} idle"


def _lane(axes, row: int, window: Window, lane: str, longest: float, backward: bool) -> None:
    """One lane's kernels as boxes, in ms, with the names of the long ones."""
    if lane == "computed":  # what stays pale is a moment in which nothing is
        axes.barh(row, window.microseconds / 1e3, height=0.7, color=PALE, edgecolor="none")
    for kernel in _kernels(window, lane):
        start, length = kernel.start / 1e3, kernel.duration / 1e3
        colour = KERNEL_COLOURS[kernel.category]
        axes.barh(row, length, left=start, height=0.7, color=colour, linewidth=0)
        if kernel.duration > EDGED_WIDTH * longest:
            axes.vlines(start, row - 0.35, row + 0.35, color=INK, linewidth=0.4)
    for words, colour, start, end in _names(window, lane, backward):
        share, look = (end - start) / longest, {"ha": "center", "va": "center", "color": on(colour)}
        part, _, grad = words.partition(" ")
        if share > NAMED_WIDTH * max(1, max(len(part), len(grad)) / 3.9):
            size = 8 if grad else 9.5
            axes.text((start + end) / 2e3, row, words.replace(" ", "\n"), fontsize=size, linespacing=1.0, **look)
        elif share > UPRIGHT_WIDTH and part in (*PARTS, *COLLECTIVES):
            upright = {"rotation": 90} if part in PARTS or len(part) > 2 else {}
            axes.text((start + end) / 2e3, row, part, fontsize=7.5, **upright, **look)


def _names(window: Window, lane: str, backward: bool) -> list[tuple[str, str, float, float]]:
    """(words, colour, start, end in µs) of the kernels that have a name; the pieces of one GEMM have it together."""
    named, before = [], None
    of_gemms = dict(zip(map(id, window.kernels), gemms(window, backward), strict=True))
    for kernel in _kernels(window, lane):
        gemm = of_gemms[id(kernel)].removesuffix(" fprop")
        words = gemm or kernel.collective or ("attention" if kernel.category == "attention" else "")
        if gemm and named and named[-1][0] == gemm and kernel.start < before.end + SEAM:
            named[-1] = (*named[-1][:3], kernel.end)
        elif words:
            named.append((words, KERNEL_COLOURS[kernel.category], kernel.start, kernel.end))
        before = kernel if words else before
    return named


def _lengths(one: Timeline) -> str:
    usual = f"\n{one.usual_step_ms:.0f} ms without profiler" if one.usual_step_ms else ""
    hidden = f"\n{one.hidden_ms:.0f} ms of collectives hidden" if one.hidden_ms >= 1 else ""
    return f"{one.step_ms:.0f} ms{usual}{hidden}"


def _legend(figure, names: list[str], pale: str = IDLE) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(fc=KERNEL_COLOURS[name], ec="#888888" if name == IDLE else "white") for name in names]
    columns = len(names) if len(names) <= 7 else -(-len(names) // 2)
    look = {"columnspacing": 1, "handlelength": 1.2, "ncols": columns}
    figure.legend(
        patches, [(SHOWN | {IDLE: pale}).get(name, name) for name in names], loc="outside lower center", **look
    )
