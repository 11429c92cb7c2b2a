"""How long one micro-batch takes against its size: a floor, then work that grows with it."""

from collections.abc import Iterable, Sequence

from helpers.runs.micro_batches import MicroBatches
from helpers.runs.results import Results
from helpers.show import message, style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import COLOURS, GREY, INK, REFERENCE, RUN_COLOURS, Picture

BUSY, GRAPH = RUN_COLOURS[1], COLOURS["pipeline"]


@checked
def micro_batches(*several: MicroBatches | Absence, graphs: Iterable[Results] = ()) -> Picture | Absence:
    """Milliseconds of one micro-batch, forward and backward, by its size, on logarithmic scales that all panels share.

    Dashed: the floor. On a GPU also the time in which kernels really ran, and, from `graphs` (runs of the same model
    with a CUDA graph, on the machine of the last panel), a micro-batch's share of a whole step.
    """
    graphs = list(graphs)
    drawn = [one for one in several if isinstance(one, MicroBatches)]
    if not drawn:
        return next(iter(several), message.nothing_recorded("micro-batch"))
    with style.apply():
        shared = {"sharex": True, "sharey": True, "squeeze": False}
        figure, all_axes = style.new_figure(1, len(drawn), width=4.6 * len(drawn), height=3.9, **shared)
        words = []
        for place, (one, axes) in enumerate(zip(drawn, all_axes[0], strict=True)):
            words.append(_panel(axes, one, graphs if place == len(drawn) - 1 else ()))
        _scales(all_axes[0], sorted({size.size for one in drawn for size in one.sizes}))
        handles = {
            text: line for axes in all_axes[0] for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)))
    return Picture(figure, " ".join(words))


def _panel(axes, one: MicroBatches, graphs: Sequence) -> str:
    sizes = [size.size for size in one.sizes]
    axes.plot(sizes, [size.milliseconds for size in one.sizes], "o-", color=INK, label="launched one by one")
    words = [f"{one.machine}, {_samples(one)}:"]
    words.append(", ".join(f"{size.size}: {size.milliseconds:.1f} ms" for size in one.sizes) + ".")
    busy = [size.busy_milliseconds for size in one.sizes]
    if busy[0] is not None:
        axes.plot(sizes, busy, "s-", color=BUSY, label="time in which kernels run")
        words.append(f"Kernels run for {busy[0]:.1f} of {one.sizes[0].milliseconds:.1f} ms at the smallest.")
    if graphs:
        points = [(run.recipe.batch.micro_batch_size, _share(run)) for run in graphs]
        label = f"step with a CUDA graph ÷ micro-batches ({one.machine})"
        axes.plot(*zip(*points, strict=True), "D", color=GRAPH, label=label)
        words.append("CUDA graph: " + ", ".join(f"{size}: {share:.1f} ms" for size, share in points) + ".")
    axes.axhline(one.floor, **REFERENCE)
    axes.annotate(
        f"floor: {one.floor:.0f} ms" if one.floor >= 10 else f"floor: {one.floor:.1f} ms",
        (sizes[0], one.floor),
        (0, -4),
        textcoords="offset points",
        va="top",
        color=GREY,
    )
    axes.set(xlabel=f"samples of {one.sequence_length:,} tokens in a micro-batch")
    axes.set_title(
        f"{one.recipe}{', stock' if one.stock else ''}\n{'recorded on ' if one.recorded_on else ''}{one.machine}"
    )
    return " ".join(words)


def _scales(panels, sizes: Sequence[int]) -> None:
    """Both axes logarithmic, and the same in all panels."""
    from matplotlib.ticker import LogLocator

    first = panels[0]
    first.set_xscale("log", base=2)
    first.set_yscale("log")
    first.set_xticks(sizes, [str(size) for size in sizes])
    first.set_ylim(bottom=0.7 * min(axes.dataLim.y0 for axes in panels))
    first.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    first.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    first.yaxis.set_minor_formatter("")
    first.set_ylabel("one micro-batch (ms)")


def _samples(one: MicroBatches) -> str:
    return f"samples of {one.sequence_length:,} tokens, floor {one.floor:.1f} ms"


def _share(run) -> float:
    """Milliseconds of a step for each of its micro-batches; the optimizer's few are in it."""
    batch = run.recipe.batch
    step = 1e3 * run.tokens_per_step / run.measured("tokens/s/GPU")
    return step * batch.micro_batch_size / batch.global_batch_size
