"""Plans: the parts of a predicted step beside its memory, and predictions against what was measured."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from helpers.planner.comparison import Comparison
from helpers.planner.plans import Plan
from helpers.plots.timeline import KERNEL_COLOURS
from helpers.show import bounds, numbers, style
from helpers.show.arguments import checked
from helpers.show.style import COLOURS, GREY, INK, MARKERS, MEMORY_PARTS, REFERENCE, RUN_COLOURS, Picture

PART_COLOURS = {
    "GEMMs": KERNEL_COLOURS["matrix products"],
    "attention": KERNEL_COLOURS["attention"],
    "norms, elementwise": KERNEL_COLOURS["norms, elementwise"],
    "FP8 casts": "#BBCC33",
    "loss": KERNEL_COLOURS["loss"],
    "recomputation": "#99DDFF",
    "optimizer": KERNEL_COLOURS["optimizer"],
    "launching": "#DDDDDD",
    "TP collectives": COLOURS["tensor"],
    "CP exchange": COLOURS["context"],
    "EP all-to-all": COLOURS["expert"],
    "p2p": "#77C9AE",
    "pipeline bubble": COLOURS["pipeline"],
    "DP collectives": COLOURS["data"],
    "cores shared": "#999999",
}
IN_SECONDS = 10_000  # ms: from here on the axis counts seconds
LEAST = 0.001  # of the longest bar: shorter parts are not drawn
LETTERS = 0.03  # how high a name is, in the figure of predicted ÷ measured


@checked
def step_parts(plans: Sequence[Plan], measured: Mapping[Plan, float] | None = None) -> Picture:
    """Two bars a plan: the time of a step by part, and gigabytes of the fullest GPU against its memory (dashed).

    `measured`: milliseconds that a plan took, for those that were run; a diamond.

    Raises:
        ValueError: there is no plan.
    """
    if not plans:
        raise ValueError("plots.step_parts: there is no plan to draw. planner.predict(recipe, machine) makes one.")
    gpus = plans[0].step.machine.gpus
    with style.apply():
        figure, (times, sizes) = style.new_figure(
            1, 2, width=9.6, height=1.5 + 0.42 * len(plans), sharey=True, gridspec_kw={"width_ratios": (2.2, 1)}
        )
        longest = max(plan.step.milliseconds for plan in plans)
        for place, plan in enumerate(plans):
            _stack(times, place, {name: 1e3 * s for name, s in plan.step.parts.items()}, PART_COLOURS, LEAST * longest)
            memory = {part: plan.memory[part] / 1e9 for part in MEMORY_PARTS}
            _stack(sizes, place, memory, MEMORY_PARTS, 0)
            times.annotate(
                numbers.duration_ms(plan.step.seconds),
                (plan.step.milliseconds, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK,
            )
        if gpus:
            full = gpus[0].memory_bytes / 1e9
            sizes.axvline(full, **REFERENCE)
        seconds = longest >= IN_SECONDS
        times.set(xlabel="seconds a step" if seconds else "milliseconds a step", xlim=(0, 1.14 * longest))
        times.xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}" if seconds else f"{value:,.0f}")
        for plan, taken in (measured or {}).items():
            times.plot(taken, plans.index(plan), "D", color=INK, markersize=6, label="measured")
        sizes.set_xlabel(f"GB of {full:.1f}, fullest GPU" if gpus else "GB of a rank")
        style.name_rows(times, {place: plan.name for place, plan in enumerate(plans)})
        times.invert_yaxis()
        sizes.tick_params(axis="y", length=0)
        _legend(figure, times, sizes)
        names = {plan.recipe.name for plan in plans}
        of = f"{names.pop()} on " if len(names) == 1 else "on "
        times.set_title(f"Predicted: {of}{plans[0].step.machine.name}")
    words = [f"{plan.name}: {numbers.duration_ms(plan.step.seconds)}, {plan.gigabytes:.1f} GB" for plan in plans]
    return Picture(figure, f"Predicted steps on {plans[0].step.machine.name}. " + "; ".join(words) + ".")


@checked
def predicted_and_measured(*comparisons: Comparison, named: Annotated[int, bounds.PLACE] = 3) -> Picture:
    """Predicted ÷ measured time of every run against its measured step; the bands are 7 and 20 %. `named`: how many of
    the worst of each comparison carry their name.

    Raises:
        ValueError: there is no timed run.
    """
    if not any(one.timed for one in comparisons):
        raise ValueError("plots.predicted_and_measured: there is no timed run to draw. planner.with_own() has some.")
    comparisons = [one for one in comparisons if one.timed]
    with style.apply():
        figure, axes = style.new_figure(width=8.4, height=4.4)
        axes.axhspan(0.8, 1.2, color="#F2F2F2", zorder=0)
        axes.axhspan(0.93, 1.07, color="#E3E3E3", zorder=0)
        axes.axhline(1, **REFERENCE)
        for share in (0.93, 0.8):
            axes.annotate(
                f"{1 - share:.0%}", (1, share), (3, 0), (axes.get_yaxis_transform()), "offset points", va="center"
            )
        words, heights = [], []
        for index, one in enumerate(comparisons):
            colour = (INK, *RUN_COLOURS[1:])[index % len(RUN_COLOURS)]
            points = [(run.measured_ms, 1 + run.error) for run in one.timed]
            axes.plot(
                *zip(*points, strict=True),
                linestyle="",
                marker=MARKERS[index],
                color=colour,
                alpha=0.75,
                label=f"{one.title} ({len(points)} runs)",
            )
            worst = sorted(one.timed, key=lambda run: -abs(run.error))[:named]
            for place, run in enumerate(sorted(worst, key=lambda run: run.measured_ms)):
                left = place % 2 == 0  # neighbours carry their names on different sides
                near = next((height for height in heights if abs(run.error - height) < LETTERS), None)
                aside = 0 if near is None else 9 if run.error > near else -9  # or at different heights
                heights.append(run.error)
                axes.annotate(
                    run.name,
                    (run.measured_ms, 1 + run.error),
                    (-6 if left else 6, aside),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    va="center",
                    fontsize=8,
                    color=GREY,
                )
            words.append(
                f"{one.title}: {len(points)} runs, median error {one.median_error:.1%}, worst {one.worst.error:+.0%}."
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set(xlabel="measured step (ms)", ylabel="predicted ÷ measured", ylim=(0.6, 1.4))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1f}")
        figure.legend(loc="outside lower center", ncols=3)
    return Picture(figure, " ".join(words))


def _stack(axes, place: int, parts: dict[str, float], colours: dict[str, str], least: float) -> None:
    left = 0.0
    for name, value in parts.items():
        if value > least:
            axes.barh(place, value, left=left, height=0.62, color=colours[name], label=name)
        left += value


def _legend(figure, times, sizes) -> None:
    for axes, place, order, columns in (
        (times, "outside lower left", PART_COLOURS, 4),
        (sizes, "outside lower right", MEMORY_PARTS, 2),
    ):
        found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        named = [name for name in (*order, "measured") if name in found]
        figure.legend([found[name] for name in named], named, loc=place, ncols=columns, fontsize=8.5)
