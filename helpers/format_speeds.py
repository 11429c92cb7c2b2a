"""What eight bits buy: Llama3-8B by layout and number format, in speed and memory, beside NVIDIA's own figures."""

from helpers.data_drawings import RECIPE_STYLE
from helpers.recipes import accounting
from helpers.runs import published
from helpers.show import message, style, tables
from helpers.show.message import Absence
from helpers.show.numbers import shown
from helpers.show.style import GREY, INK, RECORDED_HATCH, REFERENCE, Picture

NOTHING = message.nothing_recorded("run of Llama3-8B")


def formats_table(several):
    """Tokens/s per GPU and peak memory by layout and format, a row a run (pandas); a sentence where there is none.

    `× bf16` is the speed over that of the bf16 run with the same layout and batch, eager or a CUDA graph as this one;
    "–" where there is no such run. MFU is of the bf16 peak for every format. The last rows are NVIDIA's, 8 × H100.
    """
    import pandas as pd

    rows = _rows(several)
    if not rows:
        return NOTHING
    table = [
        {
            "layout": row["group"],
            "format": row["format"],
            "tokens/s/GPU": round(row["speed"]),
            "× bf16": f"{row['ratio']:.2f}" if row["ratio"] else "–",
            "MFU": f"{row['MFU']:.1%}" if row["MFU"] else "–",
            "peak memory GB": f"{row['GB']:.1f}" if row["GB"] else "–",
            "measured on": row["measured on"],
        }
        for row in rows
    ]
    none = {"× bf16": "–", "MFU": "–", "peak memory GB": "–"}
    table += [
        {"layout": f"{one.layout}, batch {one.global_batch_size}", "format": one.precision}
        | {"tokens/s/GPU": one.tokens_per_second_per_gpu, "measured on": f"{one.gpus}, NVIDIA {one.source}", **none}
        for one in published.LLAMA3_8B
    ]
    return tables.whole_sentences(pd.DataFrame(table).set_index(["layout", "format"]))


def formats(several) -> Picture | Absence:
    """Tokens/s per GPU and peak memory by layout and number format; grey and dashed: NVIDIA's speeds, a GPU's memory.

    Beside a bar stands its speed and, in FP8, that speed over bf16 in the same layout (see `formats_table`).
    """
    rows = _rows(several)
    if not rows:
        return NOTHING
    places, names = style.in_groups((row["group"], row["format"]) for row in rows)
    last = places[-1]
    lines = [(one.tokens_per_second_per_gpu, f"{one.source}, {one.precision}") for one in published.LLAMA3_8B]
    full = max([row["speed"] for row in rows] + [speed for speed, _ in lines])
    gpu = rows[0]["run"].gpu
    room = gpu.memory_bytes / 1e9 if gpu else max(row["GB"] or 0 for row in rows) or 1
    with style.apply():
        size = {"width": 9.6, "height": 1.5 + 0.34 * (last + 2.4)}
        figure, (left, right) = style.new_figure(1, 2, width_ratios=(5, 3), sharey=True, **size)
        for at, row in zip(places, rows, strict=True):
            colour = RECIPE_STYLE[row["format"].removeprefix("fp8 ")][0]
            hatch = RECORDED_HATCH if row["run"].recorded_on else None
            look = {"height": 0.7, "color": colour, "edgecolor": "white", "linewidth": 0, "hatch": hatch}
            words = {"va": "center", "color": INK, "fontsize": 10}
            left.barh(at, row["speed"], **look)
            left.text(1.03 * full, at, _beside(row), **words)
            if row["GB"]:
                right.barh(at, row["GB"], **look)
                right.text(1.04 * room, at, f"{row['GB']:.0f} GB", **words)
        named = {"va": "center", "ha": "right", "color": GREY, "fontsize": 10}
        for line, (speed, name) in enumerate(lines):
            top = -1.1 - 0.85 * line
            left.plot([speed, speed], [last + 0.4, top - 0.35], **REFERENCE | {"zorder": 3})
            left.text(speed - 0.01 * full, top, f"{name}: {speed:,}", **named)
        if gpu:
            right.plot([room, room], [last + 0.4, -1.45], **REFERENCE | {"zorder": 3})
            right.text(0.98 * room, -1.1, f"{gpu.name}: {room:.0f}", **named)
        style.name_rows(left, names)
        left.set(xlim=(0, 1.62 * full), ylim=(last + 0.6, -1.1 - 0.85 * len(lines)))
        left.set_xlabel(f"tokens/s per {'GPU' if gpu else 'rank'}")
        left.xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}k" if value else "0")
        right.set(xlim=(0, 1.3 * room), xlabel="peak memory (GB)")
        right.grid(axis="y", visible=False)
        right.tick_params(axis="y", length=0)
        for axes in (left, right):
            axes.spines["left"].set_bounds(last + 0.6, -0.6)
        left.set_title(f"{rows[0]['size']} parameters, {style.places(row['run'] for row in rows)}")
        sources = f"dashed: NVIDIA's speeds on {published.LLAMA3_8B[0].gpus}; the GPU's memory"
        figure.supxlabel(sources, fontsize=9.5, color=GREY)
    words = [f"{row['group']}, {row['format']}: {_beside(row)}, {shown(row['GB'])} GB" for row in rows]
    given = "; ".join(f"{name} {speed:,}" for speed, name in lines)
    return Picture(figure, f"Tokens per second per GPU and peak memory. {'; '.join(words)}. Published: {given}.")


def _rows(several) -> list[dict]:
    """What is drawn of each run timed without a profiler: by layout, smaller batch first, bf16 first in its group."""
    rows = []
    for run in several:
        figures = run.figures() if run is not None else {}
        if not figures.get("tokens/s/GPU") or run.is_profiled:
            continue
        batch = run.recipe["batch"]["global_batch_size"]
        layout, precision = f"{run.layout.name}, {run.speed.name}", run.recipe["precision"]
        eight = precision.get("fp8_format") is not None
        rows.append(
            {
                "run": run,
                "layout": layout,
                "batch": batch,
                "group": f"{layout}, batch {batch}",
                "format": f"fp8 {precision['fp8_recipe']}" if eight else precision["dtype"],
                "size": f"{accounting.parameters(run.model)['parameters'].sum() / 1e9:.1f}B",
                "speed": figures["tokens/s/GPU"],
                "MFU": figures["MFU"],
                "GB": figures["peak memory GB"],
                "measured on": run.measured_on,
            }
        )
    order = list(dict.fromkeys(row["layout"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["layout"]), row["batch"], row["format"] != "bf16", -row["speed"]))
    for row in rows:
        plain = next((r for r in rows if (r["group"], r["format"]) == (row["group"], "bf16")), None)
        row["ratio"] = row["speed"] / plain["speed"] if plain and plain is not row else None
    return rows


def _beside(row: dict) -> str:
    return f"{row['speed']:,.0f}" + (f"  ·  {row['ratio']:.2f}× bf16" if row["ratio"] else "")
