"""Strong and weak scaling: how speed grows with ranks, ours beside published runs."""

import math
from collections.abc import Iterable

from helpers.plots.training import with_steps
from helpers.recipes import accounting
from helpers.runs import published
from helpers.runs.published import PAPER, PAPER_BATCH, PAPER_GPUS, TUTORIALS, TUTORIALS_GPUS
from helpers.runs.results import Results
from helpers.show import message, style, tables
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.numbers import billions, percent, shown
from helpers.show.style import COLOURS, GREY, INK, REFERENCE, Picture
from helpers.show.tables import dashed


@checked
def scaling(several: Iterable[Results | None]) -> Picture:
    """Tokens per second of all ranks together against the number of ranks, beside the ideal line.

    The run with the fewest ranks is the start. Strong scaling keeps its global batch, weak scaling lets the batch grow
    with the ranks; each point carries its efficiency, the share of the ideal. A curve has the colour of the parallel
    dimension that grows.
    """
    several = sorted(with_steps(several), key=lambda run: run.layout.world_size)
    totals = {run: (run.figures()["tokens/s/GPU"] or math.nan) * run.layout.world_size for run in several}
    base, start = several[0].layout.world_size, totals[several[0]]
    curves: dict[tuple[str, str], list] = {}
    for run in several[1:]:
        strong = run.tokens_per_step == several[0].tokens_per_step
        curves.setdefault((_dimension(run.layout), "strong" if strong else "weak"), []).append(run)
    ranks = sorted({run.layout.world_size for run in several})
    with style.apply():
        figure, axes = style.new_figure(width=6.4, height=4.0)
        axes.plot(ranks, [start * n / base for n in ranks], label="ideal", **REFERENCE)
        words = []
        for (dimension, kind), own in curves.items():
            at = [base, *(run.layout.world_size for run in own)]
            speeds = [start, *(totals[run] for run in own)]
            look = {"color": COLOURS.get(dimension, INK), "marker": "o" if kind == "strong" else "s"}
            axes.plot(at, speeds, label=f"{dimension} parallel, {kind}", linestyle=_dots(own[0]), **look)
            for n, speed in zip(at[1:], speeds[1:], strict=True):
                efficiency = speed / (start * n / base)
                axes.annotate(
                    f"{efficiency:.0%}", (n, speed), (6, -12), textcoords="offset points", color=look["color"]
                )
                words.append(f"{dimension} parallel, {kind}, {n} ranks: {shown(speed)} tokens/s, {efficiency:.0%}")
        axes.set(xlabel="ranks", ylabel="tokens/s of all ranks", xticks=ranks, title=several[0].machine)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.margins(x=0.12)
        axes.legend(loc="upper left")
    first = f"{base} rank{'s' * (base > 1)}: {shown(start)} tokens/s"
    return Picture(figure, f"Scaling on {several[0].machine}. {first}; {'; '.join(words)}; 100% is ideal.")


def _dots(run) -> str:
    return style.RECORDED_LINE if run.recorded_on else "-"


def _dimension(layout) -> str:
    """The one parallel dimension that a layout uses, else the layout's name."""
    sizes = {
        "tensor": layout.tensor_parallel,
        "pipeline": layout.pipeline_parallel,
        "context": layout.context_parallel,
        "data": layout.data_parallel,
    }
    used = [name for name, size in sizes.items() if size > 1]
    return used[0] if len(used) == 1 else layout.name


NOTHING = message.nothing_recorded("scaling run")


@checked
def strong_scaling_table(several: Iterable[Results | None]):
    """The same model and batch on one rank and on more, one row per run (pandas); a sentence where there is no run.

    `speed-up`, and `efficiency` as the share of the ideal, are against the run on one rank with the same batch that is
    eager, or a CUDA graph, as this one is. The last column says whose figures they are.
    """
    import pandas as pd

    rows = _strong(several)
    if not rows:
        return NOTHING
    batches, sizes = {row["batch"] for row in rows}, {row["ranks"] for row in rows}
    rows += [row for row in _published_strong() if row["batch"] in batches and row["ranks"] in sizes]
    for row in rows:
        row["efficiency"] = percent(row["speed-up"] / row["ranks"])
    columns = ["batch", "layout", "how", "step ms", "speed-up", "efficiency", "measured on"]
    table = pd.DataFrame(sorted(rows, key=lambda row: -row["batch"]))[columns]
    return tables.whole_sentences(dashed(table.set_index(["batch", "layout", "how"]).round(2)))


@checked
def weak_scaling_table(several: Iterable[Results | None]):
    """A model that grows with the ranks, one row per run (pandas); a sentence where there is no run.

    `time efficiency` is the step time on one rank over this one: the usual figure. `FLOP/s efficiency` counts what was
    done in that time: FLOP/s of a rank over those of the one rank. They differ where the ranks' work does.
    """
    import pandas as pd

    rows = _weak(several)
    if not rows:
        return NOTHING
    batches = {row["batch"] for row in rows}
    rows += [row for row in _published_weak() if row["batch"] in batches]
    for row in rows:
        row["time efficiency"], row["FLOP/s efficiency"] = percent(row["time"]), percent(row["FLOP/s"])
    columns = ["batch", "model", "layout", "how", "step ms", "time efficiency", "FLOP/s efficiency", "measured on"]
    table = pd.DataFrame(sorted(rows, key=lambda row: -row["batch"]))[columns]
    return tables.whole_sentences(dashed(table.set_index(["batch", "model", "layout"]).round(1)))


@checked
def strong_scaling(several: Iterable[Results | None]) -> Picture | Absence:
    """Speed-up over one rank with the same model and batch, one bar per run; grey: published ones; dashed: the ideal.

    Each run is compared with the run on one rank that is eager, or a CUDA graph, as it is.
    """
    ours = [row for row in _strong(several) if row["ranks"] > 1 and not math.isnan(row["speed-up"])]
    if not ours:
        return NOTHING
    groups = sorted({(row["batch"], row["ranks"]) for row in ours}, key=lambda group: (-group[0], group[1]))
    known = [row for row in _published_strong() if (row["batch"], row["ranks"]) in groups]
    rows = sorted([*ours, *known], key=lambda row: groups.index((row["batch"], row["ranks"])))
    places, names = style.in_groups((f"batch {row['batch']}, {row['ranks']} GPUs", row["name"]) for row in rows)
    end = max(max(row["ranks"], row["speed-up"]) for row in rows)
    step = 0.5 if end < 3 else 1
    words = []
    with style.apply():
        figure, axes = style.new_figure(width=9.6, height=1.2 + 0.34 * (places[-1] + 2.4))
        for place, row in zip(places, rows, strict=True):
            look = {"color": COLOURS["tensor"], "alpha": 0.8} if row["run"] else {"color": GREY, "alpha": 0.5}
            axes.barh(place, row["speed-up"], height=0.7, linewidth=0, **look)
            text = f"{row['speed-up']:.2f}×  ·  {percent(row['speed-up'] / row['ranks'])}"
            text += f"  ·  {row['one ms']:.0f} → {row['step ms']:.0f} ms" if row["step ms"] else ""
            axes.text(end * 1.03, place, text, va="center", color=INK, fontsize=10)
            words.append(f"batch {row['batch']}, {row['name']}: {text}")
        for batch, ranks in groups:
            own = [at for at, row in zip(places, rows, strict=True) if (row["batch"], row["ranks"]) == (batch, ranks)]
            axes.plot([ranks, ranks], [own[0] - 1.35, own[-1] + 0.5], **REFERENCE | {"zorder": 3})
            ideal = {"ha": "right", "xytext": (-4, 0), "va": "center", "color": GREY, "fontsize": 10}
            axes.annotate(f"ideal: {ranks}×", (ranks, own[0] - 1), textcoords="offset points", **ideal)
        style.name_rows(axes, names)
        axes.set(xlim=(0, end * 1.9), ylim=(places[-1] + 0.7, -0.8), xlabel="speed-up over one GPU")
        axes.set_xticks([step * x for x in range(math.ceil(end / step) + 1)])
        axes.set_title(f"{ours[0]['model']} parameters, each against one GPU of its own machine")
        sources = "; ".join(dict.fromkeys(row["measured on"] for row in known))
        figure.supxlabel(f"grey: {sources}" if sources else "", fontsize=9.5, color=GREY)
    given = f" Published: {sources}." if sources else ""
    return Picture(figure, f"Strong scaling of {ours[0]['model']} parameters. {'; '.join(words)}.{given}")


@checked
def weak_scaling(several: Iterable[Results | None]) -> Picture | Absence:
    """Step time on one rank over that of a model that grew with the ranks, a panel for each batch.

    Grey and dashed: what others published. Each way to split keeps its colour and marker in all panels.
    """
    rows = _weak(several)
    if not rows:
        return NOTHING
    curves: dict[int, dict[str, list[dict]]] = {}  # batch → whose → rows, ours first
    for row in rows:
        if row["ranks"] > 1:
            way = f"TP{'+SP' * ('+SP' in row['layout'])}, {row['how']}"
            curves.setdefault(row["batch"], {}).setdefault(way, [row["base"]]).append(row)
    for row in _published_weak():
        if row["batch"] in curves:
            curves[row["batch"]].setdefault(row["measured on"], []).append(row)
    title = f"Weak scaling, {style.places(row['run'] for row in rows)}"
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    lines, words = {}, []
    with style.apply():
        figure, panels = style.new_figure(1, len(curves), 1.6 + 3.6 * len(curves), 4.2, sharey=True, squeeze=False)
        for axes, (batch, panel) in zip(panels[0], curves.items(), strict=True):
            for name, own in panel.items():
                run, index = own[0]["run"], names.index(name)
                look = style.run_style(index, bool(run and run.recorded_on)) | (REFERENCE if run is None else {})
                at, values = [row["ranks"] for row in own], [row["time"] for row in own]
                (lines[name],) = axes.plot(at, values, **look)
                shares = (f"{n} GPU{'s' * (n > 1)} {percent(v)}" for n, v in zip(at, values, strict=True))
                words.append(f"batch {batch}, {name}: {', '.join(shares)}")
            axes.set_xscale("log", base=2)
            axes.set_xticks([1, 2, 4, 8], [f"{gpus}\n{_size(model)}" for gpus, model in published.WEAK_MODELS.items()])
            axes.minorticks_off()
            axes.set_xlabel("GPUs, and parameters of their model")
            axes.set_title(f"{batch} samples a step", fontsize=11)
        panels[0][0].set(ylabel="step time on one GPU\n÷ step time")
        times = [row["time"] for panel in curves.values() for own in panel.values() for row in own]
        panels[0][0].set_ylim(min(0.5, min(times) - 0.05), max(times) + 0.05)
        panels[0][0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=2)
        figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{title}. {'; '.join(words)}.")


def _timed(several) -> list[dict]:
    """What the figures need of each run timed without a profiler, with the run on one rank that it is compared with."""
    rows = []
    for run in several:
        if run is None or not run.step_milliseconds or run.is_profiled:
            continue
        rows.append(
            {
                "run": run,
                "batch": run.recipe.batch.global_batch_size,
                "ranks": run.layout.world_size,
                "layout": "TP1" if run.layout.world_size == 1 else run.layout.name,
                "how": run.speed.name,
                "name": f"{run.layout.name}, {run.speed.name}",
                "graph": run.speed.cuda_graph,
                "gpu": run.gpu.name if run.gpu else "",
                "model": _size(run.model),
                "step ms": run.step_milliseconds,
                "measured on": run.measured_on,
            }
        )
    rows.sort(key=lambda row: (-row["batch"], row["graph"], row["ranks"]))
    for row in rows:
        alike = ("batch", "graph", "gpu")
        bases = [b for b in rows if b["ranks"] == 1 and all(b[key] == row[key] for key in alike)]
        row["base"] = bases[0] if bases else None
    return rows


def _strong(several) -> list[dict]:
    rows = _timed(several)
    smallest = min((row["run"].model for row in rows if row["ranks"] == 1), key=_parameters, default=None)
    rows = [row for row in rows if row["run"].model == smallest]
    for row in rows:
        row["one ms"] = row["base"]["step ms"] if row["base"] else math.nan
        row["speed-up"] = row["one ms"] / row["step ms"]
        row["name"] += f", {row['run'].gpu.name.removeprefix('NVIDIA ') if row['run'].gpu else 'CPU'}"
    return rows


def _weak(several) -> list[dict]:
    """The runs of grown models, each curve with the run on one rank that it begins with."""
    rows = _timed(several)
    grown = [row for row in rows if row["base"] and row["run"].model != row["base"]["run"].model]
    found = []
    for row in rows:
        if row in grown or any(row is other["base"] for other in grown):
            first = row["base"]
            work = accounting.flops_per_token(row["run"].model) / accounting.flops_per_token(first["run"].model)
            row["time"] = first["step ms"] / row["step ms"]
            row["FLOP/s"] = row["time"] * work / row["ranks"]
            found.append(row)
    return found


def _published(batch: int, gpus: int, machine: str, source: str, step: float | None = None) -> dict:
    of_others = {"run": None, "how": "eager", "layout": f"TP{gpus}", "name": f"TP{gpus}, eager, {machine.split()[-1]}"}
    return of_others | {"batch": batch, "ranks": gpus, "step ms": step, "measured on": f"{machine}, {source}"}


def _published_strong() -> list[dict]:
    rows = [
        _published(batch, gpus, TUTORIALS_GPUS, TUTORIALS, step) | {"speed-up": steps[1] / step, "one ms": steps[1]}
        for batch, steps in published.STRONG_STEP_MS.items()
        for gpus, step in steps.items()
    ]
    speed_ups = published.PAPER_SPEED_UP.items()
    return rows + [_published(PAPER_BATCH, gpus, PAPER_GPUS, PAPER) | {"speed-up": x} for gpus, x in speed_ups]


def _published_weak() -> list[dict]:
    work = {gpus: accounting.flops_per_token(model) for gpus, model in published.WEAK_MODELS.items()}
    rows = []
    for batch, steps in published.WEAK_STEP_MS.items():
        for gpus, step in steps.items():
            time = steps[1] / step
            efficiencies = {"time": time, "FLOP/s": time * work[gpus] / work[1] / gpus}
            rows.append(_published(batch, gpus, TUTORIALS_GPUS, TUTORIALS, step) | efficiencies)
    for gpus, time in published.PAPER_WEAK_EFFICIENCY.items():
        rows.append(_published(PAPER_BATCH, gpus, PAPER_GPUS, PAPER) | {"time": time, "FLOP/s": math.nan})
    return [row | {"model": _size(published.WEAK_MODELS[row["ranks"]])} for row in rows]


def _parameters(model) -> int:
    return int(accounting.parameters(model)["parameters"].sum())


def _size(model) -> str:
    return billions(_parameters(model))
