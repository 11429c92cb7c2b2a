"""What the ranks of a data-parallel run hold and send in one step, as `lessons.sharding.listen` heard it."""

from collections import Counter
from collections.abc import Mapping

from helpers.plots.shapes import tint
from helpers.recipes import Recipe, accounting
from helpers.show import style
from helpers.show.arguments import checked
from helpers.show.numbers import decimal_bytes
from helpers.show.style import COLOURS, FAINT, INK, MEMORY_PARTS, Picture

HATCHES = {"all-reduce": "", "all-gather": "////", "reduce-scatter": "\\\\\\\\"}
GROUNDS = {"forward": "#F4F4F4", "backward": "#DDDDDD", "optimizer": "#F3E6C4"}
STATES = ("weights", "gradients", "optimizer")
STAGES = {"distributed optimizer": "ZeRO-1", "FSDP, weights whole": "ZeRO-2", "FSDP": "ZeRO-3"}


@checked
def data_parallel_steps(heard: Mapping[str, Mapping]) -> Picture:
    """One step of each run on rank 0: its passes as grounds, each collective where it is called, as tall as the bytes
    that the rank sends for it.

    Each lane has its own time, from the step's start to its end: the order is what counts, CPU ranks lend no speed. The
    width of a bar means nothing.

    Raises:
        ValueError: there is no run, or one of something else.
    """
    from matplotlib.patches import Patch

    if not heard:
        raise ValueError(
            "plots.data_parallel_steps: there is no run. lessons.sharding.listen(recipe, data, …) hears one."
        )
    _require(heard, "phases", "collectives", "held")
    largest = max((size for run in heard.values() for size in sent(run)), default=1)
    spoken, kinds = [], []
    with style.apply():
        drawn, lanes = style.new_figure(rows=len(heard), width=9.2, height=0.5 + 0.95 * len(heard), squeeze=False)
        for (name, run), axes in zip(heard.items(), lanes[:, 0], strict=True):
            end = max([p["end"] for p in run["phases"]] + [c["milliseconds"] for c in run["collectives"]])
            for phase in run["phases"]:
                axes.axvspan(phase["start"] / end, phase["end"] / end, color=GROUNDS[phase["phase"]], lw=0)
            for one, size in zip(run["collectives"], sent(run), strict=True):
                kinds.append(one["collective"])
                look = {"hatch": HATCHES.get(one["collective"], ""), "edgecolor": COLOURS["data"], "linewidth": 0.8}
                look["color"] = tint(COLOURS["data"], 0.45)
                axes.bar(one["milliseconds"] / end, size / largest, 0.012, align="edge", **look)
            axes.set(xlim=(-0.005, 1.03), ylim=(0, 1.1), xticks=[], yticks=[])
            axes.grid(visible=False)
            for side in axes.spines.values():
                side.set_visible(False)
            words = f"{name}: {said(run)}"
            axes.set_title(words, fontsize=10, color=INK)
            spoken.append(words)
        lanes[-1, 0].set_xlabel("the step's time, from its start to its end", color=FAINT, fontsize=10)
        keys = [Patch(fc=colour, label=phase) for phase, colour in GROUNDS.items()]
        for kind in dict.fromkeys(kinds):
            keys.append(
                Patch(fc=tint(COLOURS["data"], 0.45), ec=COLOURS["data"], hatch=HATCHES.get(kind, ""), label=kind)
            )
        drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return Picture(drawn, "What rank 0 sends in one step. " + "; ".join(spoken) + ".")


def _require(heard: Mapping[str, Mapping], *names: str) -> None:
    for name, run in heard.items():
        if missing := [one for one in names if not run.get(one)]:
            raise ValueError(
                f"{name!r} has no {missing[0]}: it is nothing that lessons.sharding.listen(recipe, data, …) returns."
            )


def sent(run: Mapping) -> list[float]:
    """Bytes that one rank sends for each collective of `run`, around a ring: of d ranks (d - 1) / d of the tensor for a
    gather or a scatter, twice that for an all-reduce."""
    ranks = len(run["held"])
    return [
        one["bytes"] * (ranks - 1) / ranks * (2 if one["collective"] == "all-reduce" else 1)
        for one in run["collectives"]
    ]


def said(run: Mapping) -> str:
    """ "5 reduce-scatters, 5 all-gathers, 1.8 MB sent"."""
    counts = Counter(one["collective"] for one in run["collectives"])
    listed = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items()) or "nothing"
    return f"{listed}, {decimal_bytes(sum(sent(run)))} sent"


@checked
def held(recipe: Recipe, heard: Mapping[str, Mapping], planned: Mapping[str, Mapping] | None = None) -> Picture:
    """Bytes a parameter on rank 0 between two steps: what it keeps, what FSDP has gathered already, and the plan.

    Args:
        planned: `accounting.memory` by the same names; a run without one has no line.

    Raises:
        ValueError: there is no run, or one of something else.
    """
    if not heard:
        raise ValueError("plots.held: there is no run. lessons.sharding.listen(recipe, data, …) hears one.")
    _require(heard, "held")
    count = sum(accounting.parameter_counts(recipe.model).values())
    spoken, labels = [], set()
    with style.apply():
        drawn, axes = style.new_figure(width=8.6, height=1.1 + 0.42 * len(heard))
        for place, (name, run) in enumerate(heard.items()):
            left, mine = 0.0, {part: size / count for part, size in run["held"][0].items()}
            for part in (*STATES, "gathered"):
                if not (size := mine.get(part, 0)):
                    continue
                look = {"color": MEMORY_PARTS.get(part, "none")}
                if part == "gathered":
                    look = {"fc": "white", "ec": MEMORY_PARTS["weights"], "hatch": "////", "lw": 0.8}
                label = {"gathered": "weights gathered for the next forward"}.get(part, part)
                axes.barh(place, size, 0.62, left=left, label=None if label in labels else label, **look)
                labels.add(label)
                axes.text(left + size / 2, place, f"{size:.2g}", ha="center", va="center", color=INK, fontsize=9,
                          bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.75})  # fmt: skip
                left += size
            if plan := (planned or {}).get(name):
                whole = sum(plan[part] for part in STATES) / count
                label = None if "planned" in labels else "planned"
                labels.add("planned")
                axes.plot([whole, whole], [place - 0.42, place + 0.42], color="#555555", ls="--", lw=1.8, label=label)
            kept = sum(mine[part] for part in STATES)
            words = f"{kept:.0f}{', ' + STAGES[name] if name in STAGES else ''}"
            axes.text(17.2, place, words, va="center", color=INK, fontsize=10)
            spoken.append(f"{name}: " + ", ".join(f"{part} {size:.3g}" for part, size in mine.items() if size))
        style.name_rows(axes, dict(enumerate(heard)))
        axes.invert_yaxis()
        axes.set(xlim=(0, 21), xticks=range(0, 17, 4))
        axes.set_xlabel("bytes a parameter on rank 0 between two steps")
        drawn.legend(loc="outside lower center", ncols=5)
    return Picture(drawn, "Bytes a parameter that rank 0 holds. " + "; ".join(spoken) + ".")
