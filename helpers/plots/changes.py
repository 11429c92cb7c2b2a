"""One change of settings after another: what each was worth in speed, as bars."""

import textwrap

from helpers.plots.shapes import tint
from helpers.runs.comparison import settings_of
from helpers.show import message, style
from helpers.show.message import Absence
from helpers.show.numbers import shown
from helpers.show.style import INK, RECORDED_HATCH, RUN_COLOURS, Picture

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


def waterfall(several) -> Picture | Absence:
    """Tokens/s per GPU of runs in the order given, each bar named by what changed against the run above it.

    The full colour is what the change brought; where it cost speed, a dashed box shows what was there before. Beside
    each bar: its speed, the factor against the run above, and MFU.
    """
    rows = _rows(several)
    if not rows:
        return message.nothing_recorded("run of this series")
    runs, recorded = [row["of"] for row in rows], rows[0]["of"].recorded_on
    full = max(row["tokens/s/GPU"] for row in rows)
    hatch = RECORDED_HATCH if recorded else None
    with style.apply():
        figure, axes = style.new_figure(width=8.6, height=0.9 + 0.44 * len(rows))
        for place, row in enumerate(rows):
            speed = row["tokens/s/GPU"]
            before = rows[place - 1]["tokens/s/GPU"] if place else speed
            look = {"height": 0.62, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axes.barh(place, min(before, speed), color=tint(GAIN, 0.45), **look)
            if speed > before:
                axes.barh(place, speed - before, left=before, color=GAIN, **look)
            elif speed < before:
                lost = {"height": 0.62, "fill": False, "edgecolor": "#888888", "linestyle": "--"}
                axes.barh(place, before - speed, left=speed, **lost)
            axes.text(max(before, speed) + 0.012 * full, place, _beside(row), va="center", color=INK, fontsize=10)
        style.name_rows(axes, {place: textwrap.fill(row["change"], WIDTH) for place, row in enumerate(rows)})
        axes.invert_yaxis()
        axes.set_xlim(0, 1.72 * full)
        axes.set_xlabel(f"tokens/s per {'GPU' if runs[0].gpu else 'rank'}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_title(runs[0].measured_on)
    words = "; ".join(f"{row['change']}: {_beside(row)}" for row in rows)
    return Picture(figure, f"Tokens per second, one change after another, on {runs[0].machine}. {words}.")


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
    return {key: value for key, value in settings_of(recipe).items() if key not in left_out}


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
