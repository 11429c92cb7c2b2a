"""A job that loses a node: the steps of each of its starts against the clock."""

from collections.abc import Mapping
from typing import Any

from helpers.show import message, style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import GREY, REFERENCE, Picture


@checked
def two_starts(story: Mapping[str, Any]) -> Picture | Absence:
    """Steps over seconds since the submission, a line a start, from `lessons.node_dies.story`. Rings are checkpoints;
    the dashed line is the death of the node; the band holds the steps that are done twice."""
    starts = [one for one in story.get("starts", []) if one["steps"]]
    if not starts:
        return message.nothing_recorded("job whose node died")
    with style.apply():
        figure, axes = style.new_figure(width=7.8, height=3.4)
        for number, one in enumerate(starts):
            steps, seconds = zip(*one["steps"], strict=True)
            look = style.run_style(number)
            axes.plot(seconds, steps, **look, label=f"start {number + 1}")
            rings = [(second, step) for step, second in one["saved"]]
            if rings:
                axes.scatter(*zip(*rings, strict=True), s=130, fc="none", ec=look["color"], lw=1.6, zorder=3)
        axes.scatter([], [], s=130, fc="none", ec=GREY, lw=1.6, label="checkpoint")
        axes.axvline(story["dead"], **REFERENCE)
        top = max(step for one in starts for step, _ in one["steps"]) + 1
        beside = {"textcoords": "offset points", "color": GREY, "fontsize": 10}
        axes.annotate(f"{story['node']} dies", (story["dead"], top), (5, -4), va="top", **beside)
        twice = steps_twice(starts)
        if twice:
            axes.axhspan(twice[0] - 0.5, twice[-1] + 0.5, color="#EEEEEE", zorder=0)
            middle = (starts[0]["steps"][-1][1] + starts[1]["steps"][0][1]) / 2
            axes.annotate(
                "done twice", (middle, (twice[0] + twice[-1]) / 2), (0, 0), ha="center", va="center", **beside
            )
        style.count_steps(axes)
        axes.set(xlabel="seconds since the job was submitted", ylabel="step", ylim=(0, top))
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower right")
    spoken = [
        f"start {number}: steps {one['steps'][0][0]} to {one['steps'][-1][0]}, from second {one['steps'][0][1]:.0f} to "
        f"{one['steps'][-1][1]:.0f}"
        for number, one in enumerate(starts, start=1)
    ]
    again = f" Done twice: {', '.join(map(str, twice))}." if twice else ""
    return Picture(
        figure, f"Steps by the clock. {story['node']} dies at {story['dead']:.0f} s. {'; '.join(spoken)}.{again}"
    )


def steps_twice(starts: list) -> list[int]:
    """Steps of the first start that the second one takes again."""
    if len(starts) < 2:
        return []
    return list(range(starts[1]["steps"][0][0], starts[0]["steps"][-1][0] + 1))
