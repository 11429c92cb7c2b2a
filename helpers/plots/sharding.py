"""What the ranks of a data-parallel run hold and send in one step, as `lessons.sharding.listen` heard it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from helpers.plots.shapes import tint
from helpers.recipes import Recipe, accounting
from helpers.show import style
from helpers.show.arguments import checked, fits
from helpers.show.numbers import decimal_bytes
from helpers.show.style import COLOURS, FAINT, INK, MEMORY_PARTS, REFERENCE, Picture

SHADES = {"all-reduce": 0.5, "all-gather": 0.12, "reduce-scatter": 1.0}  # of the colour of data parallelism
GROUNDS = {"forward": "#F4F4F4", "backward": "#DDDDDD", "optimizer": "#F3E6C4"}
STATES = ("weights", "gradients", "optimizer")
HEARD = {  # what each part of a hearing has, all but the first of them numbers
    "held": ("weights", *STATES),
    "phases": ("phase", "start", "end"),
    "collectives": ("collective", "milliseconds", "bytes"),
}
STAGES = {"distributed optimizer": "ZeRO-1", "FSDP, weights whole": "ZeRO-2", "FSDP": "ZeRO-3"}


@checked
def data_parallel_steps(heard: Mapping[str, Mapping]) -> Picture:
    """One step of each run on rank 0: its passes as grounds, each collective where it is called, as tall as the bytes
    that the rank sends for it.

    Every pass is drawn equally wide, and so is every wait: the order is what counts, CPU ranks lend no speed. The width
    of a bar means nothing.

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
            edges = _columns(run["phases"])
            for number, (phase, (left, right)) in enumerate(zip(run["phases"], edges, strict=True)):
                axes.axvspan(left, right, color=GROUNDS[phase["phase"]], lw=0)
                if axes is lanes[0, 0] and phase["phase"] == "forward":
                    words = f"micro-batch {1 + number // 2}"
                    axes.text(left + 0.03, 0.88, words, fontsize=9, color=FAINT, va="center")
            for one, size in zip(run["collectives"], sent(run), strict=True):
                kinds.append(one["collective"])
                place = _place(one["milliseconds"], run["phases"], edges)
                axes.bar(place, size / largest, 0.05, align="edge", linewidth=0.8, **_look(one["collective"]))
            axes.set(xlim=(-0.02, edges[-1][1] + AFTER), ylim=(0, 1.1), xticks=[], yticks=[])
            axes.grid(visible=False)
            for side in axes.spines.values():
                side.set_visible(False)
            words = f"{name}: {said(run)}"
            axes.set_title(words, fontsize=10, color=INK)
            spoken.append(words)
        lanes[-1, 0].set_xlabel("one step; every pass is drawn equally wide", color=FAINT, fontsize=10)
        keys = [Patch(fc=colour, label=phase) for phase, colour in GROUNDS.items()]
        keys += [Patch(label=kind, **_look(kind)) for kind in SHADES if kind in kinds]
        drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return Picture(drawn, "What rank 0 sends in one step. " + "; ".join(spoken) + ".")


WAIT, AFTER = 0.4, 0.3  # before the optimizer's step, and after it, where a pass is 1 wide


def _columns(phases) -> list[tuple[float, float]]:
    """Left and right edge of every phase, side by side, with a wait before the optimizer."""
    edges, right = [], 0.0
    for phase in phases:
        left = right + (WAIT if phase["phase"] == "optimizer" else 0)
        right = left + 1
        edges.append((left, right))
    return edges


def _place(milliseconds: float, phases, edges) -> float:
    """Where a moment stands: within its phase, or in the gap before the next one."""
    for number, (phase, (left, right)) in enumerate(zip(phases, edges, strict=True)):
        if milliseconds < phase["start"]:
            return edges[number - 1][1] + 0.05 if number else left
        if milliseconds <= phase["end"]:
            return left + (right - left) * (milliseconds - phase["start"]) / (phase["end"] - phase["start"])
    return edges[-1][1] + 0.05


def _look(collective: str) -> dict:
    return {"fc": tint(COLOURS["data"], SHADES.get(collective, 0.5)), "ec": COLOURS["data"]}


def _is_heard(rows, names: tuple[str, ...]) -> bool:
    numbers = (row[name] for row in rows for name in names[1:]) if _have(rows, names) else [None]
    return all(fits(number, float) for number in numbers)


def _have(rows, names: tuple[str, ...]) -> bool:
    return fits(rows, Sequence[Mapping]) and all(name in row for row in rows for name in names)


def _require(heard: Mapping[str, Mapping], *names: str) -> None:
    for name, run in heard.items():
        if missing := [one for one in names if not run.get(one) or not _is_heard(run[one], HEARD[one])]:
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


@checked
def zero_stages(table: "pd.DataFrame", room: float = 80) -> Picture:  # noqa: F821
    """What a rank keeps at each stage of ZeRO, beside a GPU of `room` GB, and what it sends in a step.

    Args:
        table: as `lessons.sharding.zero_stages` returns it, in GB.

    Raises:
        ValueError: it is another table.
    """
    if not {*STATES, "fp32 gradients"} <= set(table.columns):
        raise ValueError("plots.zero_stages draws what lessons.sharding.zero_stages(parameters, ranks) returns.")
    travels = [name for name in table.columns if name.startswith("sends, ")]
    spoken = []
    with style.apply():
        drawn, (keeps, sends) = style.new_figure(1, 2, width=9.6, height=3.7, sharey=True)
        for place, (name, row) in enumerate(table.iterrows()):
            left = 0.0
            for part in STATES:
                keeps.barh(place, row[part], 0.6, left=left, color=MEMORY_PARTS[part], label=None if place else part)
                left += row[part]
            label = "gradients once more in fp32" if place == len(table) - 1 else None
            look = {"fc": "white", "ec": MEMORY_PARTS["gradients"], "hatch": "////", "lw": 0.8, "label": label}
            keeps.barh(place, row["fp32 gradients"], 0.6, left=left, **look)
            words = f"{left:.4g}" + (f" + {row['fp32 gradients']:.2g}" if row["fp32 gradients"] else "")
            keeps.text(left + row["fp32 gradients"] + 2, place, words, va="center", fontsize=9, color=INK)
            for number, column in enumerate(travels):
                at, share = place + 0.25 * (number - (len(travels) - 1) / 2), (1 + number) / len(travels)
                look = {"fc": tint(COLOURS["data"], share), "ec": COLOURS["data"]}
                sends.barh(at, row[column], 0.23, label=None if place else column.removeprefix("sends, "), **look)
                sends.text(row[column] + 2, at, f"{row[column]:.4g}", va="center", fontsize=8, color=INK)
            spoken.append(
                f"{name}: keeps {left:.4g} GB; " + ", ".join(f"{column} {row[column]:.4g} GB" for column in travels)
            )
        keeps.axvline(room, **REFERENCE)
        keeps.text(room + 1, 3.42, f"{room:g} GB", color=FAINT, fontsize=9, va="bottom")
        style.name_rows(keeps, dict(enumerate(table.index)))
        keeps.invert_yaxis()
        sends.grid(axis="y", visible=False)
        sends.tick_params(axis="y", length=0)
        keeps.set(xlabel="GB that a rank keeps", xlim=(0, 1.15 * table[list(STATES)].sum(axis=1).max()))
        sends.set(xlabel="GB that a rank sends in a step, m micro-batches", xlim=(0, 1.15 * table[travels].max().max()))
        drawn.suptitle(f"{table.index.name}, bf16", fontsize=11)
        drawn.legend(loc="outside lower center", ncols=7)
    return Picture(drawn, f"{table.index.name}, bf16. " + "; ".join(spoken) + ".")
