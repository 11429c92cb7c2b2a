"""Training drawn: loss curves, how far two of them lie apart, the learning rate.

Recorded runs are dotted or hatched and named with their machine; reference lines are grey and dashed.
"""

import math
from collections.abc import Mapping
from typing import Annotated

from helpers.corpus import Corpus
from helpers.runs import labels
from helpers.runs.results import Results
from helpers.show import bounds, style
from helpers.show.arguments import checked
from helpers.show.style import GREY, INK, REFERENCE, Picture

MARKS = 8  # markers on a curve: enough to tell two apart, too few to hide it


@checked
def loss(
    *several: Results | None,
    reference: bool = True,
    data: Corpus | None = None,
    mean_of: Annotated[int, bounds.STEPS] = 1,
) -> Picture:
    """Training loss by step of one or more runs, with the loss on the validation part where it was computed.

    Args:
        reference: also the loss of guessing among V tokens, ln V, unless the weights came trained.
        data: a `corpus.Corpus`: also the loss of knowing how often each of its tokens occurs, its unigram entropy.
        mean_of: draw the mean of so many steps, and each step faintly behind it.

    Raises:
        ValueError: none of the runs has taken a step.
    """
    several = with_steps(several)
    with style.apply():
        figure, axes = style.new_figure()
        alt = _losses(axes, several, reference, data, mean_of)
        style.count_steps(axes)
    return Picture(figure, alt)


@checked
def learning_rate(run: Results) -> Picture:
    """The planned learning rate by step, dashed, and on it what the run logged: each value is the next step's.

    Raises:
        ValueError: the run has taken no step.
    """
    (run,) = with_steps([run])
    with style.apply():
        figure, axes = style.new_figure(height=2.6)
        alt = _learning_rates(axes, run)
        style.count_steps(axes)
        axes.set_title(f"{labels([run])[0]}{_on_machine(run)}")
    return Picture(figure, alt)


@checked
def curves(run: Results, reference: bool = True, data: Corpus | None = None) -> Picture:
    """A run's loss (see `loss`) and, below, its learning rate (see `learning_rate`), over the same steps."""
    (run,) = with_steps([run])
    with style.apply():
        figure, (above, below) = style.new_figure(2, 1, height=5.2, sharex=True, height_ratios=(5, 2))
        alt = f"{_losses(above, [run], reference, data)} {_learning_rates(below, run)}"
        style.count_steps(below)
    return Picture(figure, alt)


@checked
def loss_difference(one: Results | None, other: Results | None) -> Picture:
    """Two runs' losses on top of each other, and below, on a logarithmic scale, how far apart they are at each step."""
    pair = with_steps([one, other])
    if len(pair) < 2:
        raise ValueError("A difference needs two runs that have taken steps.")
    distance = (one.losses - other.losses).abs().dropna()
    distance = distance[distance < math.inf]
    if not len(distance):
        raise ValueError("The two runs have no step in common at which both losses are numbers.")
    differing = distance[distance > 0]
    with style.apply():
        figure, (above, below) = style.new_figure(2, 1, height=5.0, sharex=True, height_ratios=(3, 2))
        _curves(above, pair)
        above.lines[0].set(linewidth=4.5, alpha=0.45, markersize=7)
        above.set_ylabel("loss (nats per token)")
        figure.legend(loc="outside lower center")
        below.set_ylabel("difference (nats)")
        style.count_steps(below)
        names = labels(pair)
        start = f"Losses of {names[0]} and {names[1]} over {len(distance)} common steps"
        if not len(differing):
            below.set(yticks=[])
            words = f"the same to the last digit, all {len(distance)} steps"
            below.text(0.5, 0.5, words, ha="center", va="center", transform=below.transAxes, fontsize=12)
            return Picture(figure, f"{start}: {words}.")
        below.set_yscale("log")
        below.yaxis.set_minor_formatter("")  # over less than two powers of ten it would name every tick
        below.plot(differing.index, differing, "o", color=INK, markersize=3)
        step, largest = int(differing.idxmax()), float(differing.max())
        below.axhline(largest, **REFERENCE)
        below.set_ylim(float(differing.min()) / 3, largest * 12)
        words = f"largest: {largest:.2g}, at step {step}"
        if equal := len(distance) - len(differing):
            words += f"; {equal} of {len(distance)} steps exactly equal (not drawn)"
        below.text(0.01, 0.97, words, va="top", transform=below.transAxes, color=GREY)
    return Picture(figure, f"{start}. Absolute difference, {words}.")


@checked
def signed_differences(
    pairs: Mapping[str, tuple[Results | None, Results | None]], window: Annotated[int, bounds.STEPS] = 10
) -> Picture:
    """Loss of one run minus that of another, step by step: the mean of every `window` steps, with its sign.

    Args:
        pairs: what to call each difference → (one run, the run that is subtracted). A pair of which a run is missing
            (None, where nothing is recorded) is left out of the figure and named in its description.
    """
    drawn = {name: gap for name, (one, other) in pairs.items() if (gap := difference(one, other)) is not None}
    if not drawn:
        raise ValueError("There is no pair of runs that have taken steps: nothing to subtract.")
    if window > (most := max(map(len, drawn.values()))):
        raise ValueError(f"plots.signed_differences(window={window}): the runs have {most} steps in common at most.")
    missing = [name for name in pairs if name not in drawn]
    words = []
    with style.apply():
        figure, axes = style.new_figure(width=8.2, height=3.6)
        axes.axhline(0, **REFERENCE)
        for index, name in enumerate(pairs):
            if name not in drawn:
                continue
            means = drawn[name].groupby((drawn[name].index - 1) // window).mean()
            at = (means.index + 1) * window
            axes.plot(at, means, label=name, **style.run_style(index) | {"markersize": 4})
            words.append(f"{name}: {means.iloc[-1]:+.3f} over the last {window} steps")
        axes.set_ylabel(f"difference (nats),\nmean of {window} steps")
        axes.set_title(style.places(run for name in drawn for run in pairs[name]), fontsize=11)
        style.count_steps(axes)
        figure.legend(loc="outside lower center", ncols=2)
    left_out = f" Not recorded: {', '.join(missing)}." if missing else ""
    return Picture(figure, f"Differences of losses. {'; '.join(words)}.{left_out}")


def difference(one: Results | None, other: Results | None):
    """Loss of `one` minus loss of `other` over the steps both have; None where there is no such step."""
    if one is None or other is None:
        return None
    gap = (one.losses - other.losses).dropna()
    return gap if len(gap) else None


def with_steps(several) -> list:
    """The runs that have something to draw; None (no recorded run, say) is passed over."""
    given = [run for run in several if run is not None]
    drawn = [run for run in given if len(run.losses)]
    if not drawn:
        told = "; ".join(run.headline for run in given) or "no run was given"
        raise ValueError(f"There is nothing to draw: {told}.")
    return drawn


def _curves(axes, several, mean_of: int = 1) -> None:
    for index, (run, name) in enumerate(zip(several, labels(several), strict=True)):
        look = style.run_style(index, bool(run.recorded_on))
        losses = run.losses.rolling(mean_of).mean().dropna()
        if not len(losses):
            why = f"{name} took {len(run.losses)}. Draw the mean of fewer."
            raise ValueError(f"plots.loss(mean_of={mean_of}): it is a mean of steps, and {why}")
        every = max(1, len(losses) // MARKS)
        marks = (index * every // len(several), every)
        axes.plot(losses.index, losses, label=name, markevery=marks, **look)
        if mean_of > 1:
            axes.plot(run.losses.index, run.losses, color=look["color"], linewidth=0.7, alpha=0.35, zorder=1)


def _losses(axes, several, reference: bool, data, mean_of: int = 1) -> str:
    """Draw losses, those of the validation part, and reference lines; returns all that in words."""
    _curves(axes, several, mean_of)
    axes.set_ylabel("loss (nats per token)")
    alone, names = len(several) == 1, labels(several)
    words = [f"{name} from {a:.3f} to {b:.3f}" for name, a, b in _ends(several, mean_of)]
    means = f", means of {mean_of} steps" if mean_of > 1 else ""
    alt = f"Training loss by step{means}: " + "; ".join(words) + "."
    for index, (run, name) in enumerate(zip(several, names, strict=True)):
        held_out = run.validation_losses
        if not len(held_out):
            continue
        label = f"on the validation part: {held_out.iloc[-1]:.2f}" if alone else f"{name}, on the validation part"
        look = style.run_style(index) | {"linestyle": "", "marker": "D", "markersize": 8, "fillstyle": "none"}
        axes.plot(held_out.index, held_out, label=label, **look)
        alt += f" On the validation part {name} had {held_out.iloc[-1]:.3f} at step {held_out.index[-1]}."
    if reference:
        for size in sorted({run.model.vocab_size for run in several if run.model and not run.recipe.pretrained}):
            alt += f" Guessing among {size:,} tokens would give ln V = {math.log(size):.2f}."
            _line(axes, math.log(size), "ln V = {:.2f} (guessing)")
    if data is not None:
        level = data.unigram_entropy
        alt += f" Knowing how often each token occurs would give {level:.2f}."
        _line(axes, level, "{:.2f} (unigram entropy)")
    if alone:
        axes.set_title(f"{names[0]}{_on_machine(several[0])}")
        axes.lines[0].set_label("in training" + means)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    return alt


def _learning_rates(axes, run) -> str:
    if run.recipe is None:
        raise ValueError(f"{run.headline}. Its recipe.json holds no recipe, so there is no plan to draw.")
    schedule, logged = run.recipe.schedule, run.series("learning-rate")
    steps = range(schedule.train_iters + 1)
    axes.plot(steps, [schedule.learning_rate(step) for step in steps], **REFERENCE, label="planned")
    every = max(1, len(logged) // 40)
    axes.plot(logged.index[::every], logged.iloc[::every], "o", color=INK, markersize=3, label="logged")
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.legend(loc="upper right")
    return (
        f"The learning rate climbs to {schedule.lr:g} in {schedule.lr_warmup_iters} steps and falls along a cosine to "
        f"{schedule.min_lr:g} at step {schedule.train_iters}; {len(logged)} values were logged."
    )


def _line(axes, level: float, words: str) -> None:
    """A dashed reference line with its name."""
    axes.axhline(level, **REFERENCE)
    axes.annotate(
        words.format(level),
        (0.99, level),
        (0, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        color=GREY,
    )


def _ends(several, mean_of: int = 1):
    """Of each run its name and the loss, or the mean of so many, at either end."""
    for name, run in zip(labels(several), several, strict=True):
        yield name, run.losses.iloc[:mean_of].mean(), run.losses.iloc[-mean_of:].mean()


def _on_machine(run) -> str:
    return f" on {run.machine}" if run.machine and not run.recorded_on else ""
