"""Pictures of a pipeline: which stage computes which micro-batch when."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from helpers.plots.shapes import PALE, on, tint
from helpers.runs.pipeline import DRAWN, REPLAY, PipelineSchedule
from helpers.show import style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import COLOURS, INK, REFERENCE, RUN_COLOURS, Picture

PASS_COLOURS = {"forward": RUN_COLOURS[1], "backward": COLOURS["pipeline"]}
SHOWN = range(1, 65)  # layers, stages
LATER_CHUNK = 0.45  # how much of its colour the last chunk of a stage keeps
NUMBERED = 0.011  # share of the width from which a box has room for its number
FROM = {DRAWN: "drawn", REPLAY: "replay: work is a timed wait"}


@checked
def pipeline_schedule(*schedules: PipelineSchedule | Absence, one_scale: bool = True) -> Picture | Absence:
    """Schedules one below the other: a row a stage, a box a pass with the number of its micro-batch; pale is waiting.

    A later chunk of a stage is paler; a box too thin for its number has none. `one_scale`: all share the axis of time.
    """
    drawn = [one for one in schedules if isinstance(one, PipelineSchedule)]
    if not drawn:
        return next(iter(schedules), Absence("No schedule to draw."))
    heights = [0.62 + 0.34 * one.stages for one in drawn]
    longest = max(one.span_ms for one in drawn)
    with style.apply():
        ratios = {"height_ratios": heights}
        figure, axes = style.new_figure(len(drawn), 1, 9.6, 0.5 + sum(heights), squeeze=False, gridspec_kw=ratios)
        for one, panel in zip(drawn, axes[:, 0], strict=True):
            _panel(panel, one, longest if one_scale else one.span_ms)
        in_units = all(one.kind == DRAWN and not one.machine for one in drawn) and longest < 1000
        axes[-1, 0].set_xlabel("time, in forward passes" if in_units else "ms from the step's first pass")
        _legend(figure, max(one.chunks for one in drawn))
    return Picture(figure, " ".join(map(_spoken, drawn)))


@checked
def against_micro_batches(series: Mapping[str, Mapping[int, float]]) -> Picture:
    """Milliseconds a sample against the number of micro-batches in a step, a line a series; the first is grey."""
    if not any(series.values()):
        raise ValueError("There is no series to draw: lessons.table_401.by_micro_batches() gives some.")
    with style.apply():
        figure, axes = style.new_figure(width=8.0, height=3.9)
        for number, (name, points) in enumerate(series.items()):
            look = REFERENCE | {"marker": "o", "zorder": 3} if number == 0 else style.run_style(number)
            axes.plot(list(points), list(points.values()), label=name, **look)
        counts = sorted({m for points in series.values() for m in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(m) for m in counts])
        axes.set(xlabel="micro-batches in a step, m", ylabel="ms a sample", ylim=(0, None))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0))
    spoken = [f"{name}: " + ", ".join(f"m={m} {ms:.0f}" for m, ms in points.items()) for name, points in series.items()]
    return Picture(figure, f"Milliseconds a sample by micro-batches in a step. {'; '.join(spoken)}.")


@checked
def against_chunks(measured: Mapping[str, Mapping[int, float]], expected: Mapping[str, Mapping[int, float]]) -> Picture:
    """Milliseconds a step against the number of chunks v, measured, and grey what the bubble alone would leave."""
    if not any(measured.values()):
        raise ValueError("There is no series to draw: lessons.table_401.by_chunks() gives some.")
    with style.apply():
        figure, axes = style.new_figure(width=8.0, height=3.6)
        for number, (name, points) in enumerate(measured.items()):
            look = style.run_style(number)
            axes.plot(list(points), list(points.values()), label=name, zorder=3, **look)
            alone = expected.get(name, {})
            axes.plot(
                list(alone),
                list(alone.values()),
                **REFERENCE,
                label="if only the bubble changed" if not number else None,
            )
        counts = sorted({v for points in measured.values() for v in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(v) for v in counts])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="chunks a stage, v", ylabel="ms a step", ylim=(0, None))
        axes.legend(loc="lower left")
    spoken = [
        f"{name}: " + ", ".join(f"v={v} {ms:.0f}" for v, ms in points.items()) for name, points in measured.items()
    ]
    alone = [", ".join(f"v={v} {ms:.0f}" for v, ms in points.items()) for points in expected.values()]
    return Picture(
        figure, f"Milliseconds a step by chunks. {'; '.join(spoken)}. By the bubble alone: {'; '.join(alone)}."
    )


@checked
def layers_on_stages(
    layers: Annotated[int, SHOWN], pipeline_parallel: Annotated[int, SHOWN], chunks: Sequence[int] = (1, 2)
) -> Picture:
    """Which stage holds which layer, a strip for each number of chunks; a stage has one shade and its number.

    Raises:
        ValueError: the layers do not go into so many equal pieces.
    """
    if not chunks:
        raise ValueError("plots.layers_on_stages(chunks=()): there is no number of chunks. chunks=(1, 2), say.")
    if odd := [v for v in chunks if v < 1 or layers % (pipeline_parallel * v)]:
        raise ValueError(f"{layers} layers do not go into {pipeline_parallel} stages × {odd[0]} chunks, all alike.")
    with style.apply():
        figure, axes = style.new_figure(width=8.0, height=0.9 + 0.42 * len(chunks))
        for row, v in enumerate(chunks):
            for layer in range(layers):
                stage = layer * pipeline_parallel * v // layers % pipeline_parallel
                colour = tint(COLOURS["pipeline"], 1 - 0.75 * stage / max(1, pipeline_parallel - 1))
                axes.barh(row, 1, left=layer + 0.5, height=0.8, color=colour, edgecolor="white", linewidth=1.2)
                axes.text(layer + 1, row, stage, ha="center", va="center", color=on(colour), fontsize=9.5)
        style.name_rows(axes, {row: f"v = {v}" for row, v in enumerate(chunks)})
        axes.grid(visible=False)
        axes.set(
            xlim=(0.5, layers + 0.5),
            ylim=(len(chunks) - 0.45, -0.55),
            xlabel="layer; in its box the stage that holds it",
        )
        axes.set_xticks(range(1, layers + 1))
    spoken = [
        f"v={v}: " + " ".join(str(one * pipeline_parallel * v // layers % pipeline_parallel) for one in range(layers))
        for v in chunks
    ]
    return Picture(figure, f"The stage of each of {layers} layers. {'; '.join(spoken)}.")


def _panel(axes, schedule: PipelineSchedule, longest: float) -> None:
    for stage in range(schedule.stages):
        axes.barh(stage, schedule.span_ms, height=0.8, color=PALE, edgecolor="#DDDDDD", linewidth=0.6)
    size = 9.5 if schedule.chunks == 1 else 8
    for one in schedule.passes:
        length, colour = one.end - one.start, _colour(one.direction, one.chunk, schedule.chunks)
        axes.barh(one.stage, length, left=one.start, height=0.8, color=colour, edgecolor="white", linewidth=0.6)
        if length > NUMBERED * longest * len(str(one.micro_batch + 1)):
            middle = (one.start + one.end) / 2
            axes.text(middle, one.stage, one.micro_batch + 1, ha="center", va="center", color=on(colour), fontsize=size)
    style.name_rows(axes, {stage: f"stage {stage}" for stage in range(schedule.stages)})
    axes.grid(visible=False)
    axes.set(xlim=(0, 1.01 * longest), ylim=(schedule.stages - 0.45, -0.55))
    waits = f"waiting ÷ working {schedule.bubble:.1%}, (P − 1) ÷ (m v) = {schedule.formula:.1%}"
    axes.set_title(f"{_named(schedule)} · {waits}", fontsize=10.5, color=INK)


def _named(one: PipelineSchedule) -> str:
    """ "PP2, m = 8, v = 3 · measured on 2 × NVIDIA H200"; what is drawn or replayed goes by its name."""
    if one.kind in FROM:
        return f"{one.name} · {FROM[one.kind]}"
    sizes = f"PP{one.stages}, m = {one.micro_batches}" + f", v = {one.chunks}" * (one.chunks > 1)
    return f"{sizes} · measured" + f" on {one.machine}" * bool(one.machine)


def _colour(direction: str, chunk: int, chunks: int):
    share = 1 - (1 - LATER_CHUNK) * chunk / max(1, chunks - 1)
    return tint(PASS_COLOURS[direction], share)


def _legend(figure, chunks: int) -> None:
    from matplotlib.patches import Patch

    names = {}
    for direction in PASS_COLOURS:
        for chunk in range(chunks):
            words = direction + (f", chunk {chunk}" if chunks > 1 else "")
            names[words] = Patch(fc=_colour(direction, chunk, chunks), ec="white")
    names["waiting"] = Patch(fc=PALE, ec="#888888")
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=min(5, len(names)), handlelength=1.2)


def _spoken(one: PipelineSchedule) -> str:
    return (
        f"{_named(one)}: {one.stages} stages, {one.micro_batches} micro-batches, {one.span_ms:.3g} "
        f"long, waiting is {one.bubble:.1%} of working, the formula says {one.formula:.1%}."
    )
