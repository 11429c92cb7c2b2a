"""One change of settings after another: what each was worth in speed, as bars."""

import textwrap
from collections.abc import Iterable, Mapping

from helpers.plots.shapes import tint
from helpers.recipes import accounting
from helpers.runs.comparison import settings_of
from helpers.runs.results import Results
from helpers.show import message, style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.numbers import shown
from helpers.show.style import GREY, REFERENCE, RUN_COLOURS, Picture

SWITCHES = {
    "cuda_graph": "CUDA graph",
    "overlap_communication": "overlapped communication",
    "overlap_tensor_parallel": "overlapped tensor parallelism",
}
LOSS_KERNELS = {"native": "fused cross-entropy", "te": "cross-entropy in one kernel", None: "no fused cross-entropy"}
FORBIDDEN = {"--no-gradient-accumulation-fusion": "fused gradient accumulation"}  # a flag → what it turns off
NOT_FOR_SPEED = ("corpus", "init_method_std")
GAIN = RUN_COLOURS[1]
WIDTH = 34  # letters of a bar's name in one line


def changes(before: dict, after: dict) -> str:
    """What sets a recipe.json apart from the one before it: "bf16 instead of fp16", "micro-batch 1 → 32".

    The schedule and the corpus, which decide what is learned and not how fast, are left out.
    """
    old, new = _settings(before), _settings(after)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    words = [f"{new[key]} instead of {old[key]}" for key in ("precision", "layout") if key in differing]
    words += _batch_words(old, new, differing)
    if "cross_entropy_fusion" in differing:
        words.append(LOSS_KERNELS[new["cross_entropy_fusion"]])
    words += [("" if new[key] else "no ") + word for key, word in SWITCHES.items() if key in differing]
    words += _flag_words(before.get("extra_flags", ()), after.get("extra_flags", ()))
    if "dropout" in differing:
        rates = old["dropout"], new["dropout"]
        words.append(
            "dropout off" if not rates[1] else "dropout on" if not rates[0] else "dropout {} → {}".format(*rates)
        )
    told = {"precision", "layout", "micro_batch_size", "global_batch_size", "dropout", "cross_entropy_fusion"}
    told |= SWITCHES.keys()
    words += [f"{key} {old.get(key)} → {new.get(key)}" for key in differing if key not in told]
    return ", ".join(words) or "the same again"


@checked
def waterfall(series: Mapping[str, Iterable[Results | None]]) -> Picture | Absence:
    """Tokens/s per GPU of runs in the order given, each step named by what changed against the one above it.

    `series` holds the same steps under several conditions ("stock", "with our changes"): a bar each, side by side. The
    first names the steps. Beside each bar: its speed, the factor against the step above, and MFU; the dashed line is
    the speed at the GPU's whole peak.
    """
    columns = {name: _rows(several) for name, several in series.items()}
    columns = {name: rows for name, rows in columns.items() if rows}
    if not columns:
        return message.nothing_recorded("run of this series")
    first = next(iter(columns.values()))
    run = first[0]["of"]
    height = 0.8 / len(columns)
    with style.apply():
        figure, axes = style.new_figure(width=8.6, height=1.3 + 0.3 * sum(map(len, columns.values())))
        for index, (name, rows) in enumerate(columns.items()):
            strength = 1 if index + 1 == len(columns) else 0.4
            for place, row in enumerate(rows):
                at, speed = place + (index - (len(columns) - 1) / 2) * height, row["tokens/s/GPU"]
                colour = tint(GAIN, strength)
                axes.barh(at, speed, height=0.9 * height, color=colour, label=name if not place else None)
                axes.annotate(_beside(row), (speed, at), (5, 0), textcoords="offset points", va="center", fontsize=10)
        style.name_rows(axes, {place: textwrap.fill(row["change"], WIDTH) for place, row in enumerate(first)})
        axes.invert_yaxis()
        fastest = max(row["tokens/s/GPU"] for rows in columns.values() for row in rows)
        axes.set_xlim(0, max(_peak(axes, run), 1.5 * fastest))
        axes.set_xlabel(f"tokens/s per {'GPU' if run.gpu else 'rank'}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_title(run.measured_on)
        if len(columns) > 1:
            figure.legend(loc="outside lower center", ncols=len(columns))
    words = [
        f"{row['change']}, {name}: {_beside(row)}"
        for place in range(len(first))
        for name, rows in columns.items()
        for row in rows[place : place + 1]
    ]
    return Picture(figure, f"Tokens per second, one change after another, on {run.machine}. {'; '.join(words)}.")


def _peak(axes, run) -> float:
    """Draw the speed at which a GPU's whole peak in bf16 would be used, and return the end of an axis that shows it."""
    if not (run.gpu and run.gpu.peak_bf16_flops):
        return 0.0
    peak = run.gpu.peak_bf16_flops / accounting.flops_per_token(run.model)
    axes.axvline(peak, **REFERENCE)
    words = f"bf16 peak:\n{shown(round(peak))}"
    axes.annotate(words, (peak, 0), (-5, 0), textcoords="offset points", ha="right", va="center", color=GREY)
    return 1.02 * peak


def _rows(several) -> list[dict]:
    """One row per run that was timed; the others are left out."""
    rows = []
    for run in several:
        figures = run.figures() if run is not None else {}
        if not (speed := figures.get("tokens/s/GPU")):
            continue
        rows.append(
            {
                "change": changes(rows[-1]["of"].described, run.described) if rows else _start(run.described),
                "tokens/s/GPU": round(speed),
                "× the run before": round(speed / rows[-1]["tokens/s/GPU"], 2) if rows else None,
                "MFU": f"{figures['MFU']:.1%}" if figures["MFU"] else "–",
                "of": run,
            }
        )
    return rows


def _beside(row: dict) -> str:
    words = [shown(row["tokens/s/GPU"])]
    if row["× the run before"] is not None:
        words.append(f"{row['× the run before']:.2f}×")
    if row["MFU"] != "–":
        words.append(f"MFU {row['MFU']}")
    return "  ·  ".join(words)


def _start(recipe: dict) -> str:
    """How the first run was set: "fp16, micro-batch 1 of 32"."""
    settings = _settings(recipe)
    words = [settings["precision"]] if "precision" in settings else []
    if "micro_batch_size" in settings:
        words.append(f"micro-batch {settings['micro_batch_size']} of {settings['global_batch_size']}")
    return "start: " + ", ".join(words)


def _settings(recipe: dict) -> dict:
    left_out = {*recipe.get("schedule", {}), *NOT_FOR_SPEED}
    settings = {key: value for key, value in settings_of(recipe).items() if key not in left_out}
    if recipe.get("stock") and settings.get("cross_entropy_fusion"):
        settings["cross_entropy_fusion"] = "native"  # what stock Megatron takes, whichever is asked for
    return settings


def _batch_words(old: dict, new: dict, differing: list[str]) -> list[str]:
    """The change of batch and micro-batch; one word where the micro-batch is the whole batch before and after."""
    micro, batch = "micro_batch_size", "global_batch_size"
    if micro in differing and batch in differing and all(s[micro] == s[batch] for s in (old, new)):
        return [f"batch {old[batch]} → {new[batch]}"]
    names = {micro: "micro-batch", batch: "batch"}
    return [f"{word} {old.get(key)} → {new.get(key)}" for key, word in names.items() if key in differing]


def _flag_words(old, new) -> list[str]:
    """Flags of one's own that came or went; a flag that forbids something is told by what it forbids."""
    gone, come = [flag for flag in old if flag not in new], [flag for flag in new if flag not in old]
    words = [FORBIDDEN.get(flag, f"without {flag}") for flag in gone]
    return words + [f"no {FORBIDDEN[flag]}" if flag in FORBIDDEN else f"with {flag}" for flag in come]
