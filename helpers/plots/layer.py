"""Pictures of one transformer layer that several ranks share: who holds what of each matrix, who sends what and when.

Both are drawn from what `helpers/ranks/shards.py` found in a real model, nothing is assumed.
"""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from helpers.plots.shapes import canvas, rounded, tint
from helpers.recipes import Layout
from helpers.recipes.layout import rank_groups
from helpers.show import style
from helpers.show.arguments import checked
from helpers.show.numbers import decimal_bytes
from helpers.show.style import COLOURS, FAINT, INK, Picture

MARK = "SHARDS "  # before the JSON that shards.py prints
FINDINGS = "They are what launch.ranks('shards', …) returned: lessons.experiments.look_inside(recipe, data) asks."
MATRICES = ("word_embeddings", "linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "output_layer")
SPLITS = {
    0: "column parallel:\nits outputs are split",
    1: "row parallel:\nits inputs are split",
    None: "whole\non every rank",
}
SHORT = {"all-reduce": "AR", "all-gather": "AG", "reduce-scatter": "RS", "all-to-all": "A2A", "broadcast": "B"}


@checked
def findings(output: str) -> list[dict[str, list[dict]]]:
    """What `launch.ranks("shards", …)` printed, one of each model: two lists, "shards" and "collectives".

    Raises:
        ValueError: the output holds no findings.
    """
    found = [json.loads(line.split(MARK, 1)[1]) for line in output.splitlines() if MARK in line]
    if not found:
        raise ValueError(f"layer.findings: no findings in this output. {FINDINGS}")
    return found


@checked
def shards(records: Sequence[Mapping]) -> Picture:
    """The matrices of the first layer, the embedding and the output layer, cut as the ranks hold them.

    A matrix is drawn as it is stored, outputs downwards and inputs to the right, areas compressed. Ranks of further
    pipeline stages hold other layers and are left out; ranks that hold the same piece share a label.

    Args:
        records: "shards" of `findings`.

    Raises:
        ValueError: there is none.
    """
    if not records:
        raise ValueError(f"plots.shards: no rank said what it holds. {FINDINGS}")
    _require("plots.shards", records, ("name", "rank", "full_shape", "local_shape", "partition_dim", "pieces"))
    first = {record["name"] for record in records if record["rank"] == 0}
    ranks = [r for r in sorted({x["rank"] for x in records}) if {x["name"] for x in records if x["rank"] == r} == first]
    here = [r for r in records if r["rank"] in ranks and ("layers." not in r["name"] or "layers.0." in r["name"])]
    matrices = [m for m in MATRICES if any(_is(m, r["name"]) for r in here)]
    shape = {m: next(r["full_shape"] for r in here if _is(m, r["name"])) for m in matrices}
    side = max(max(s) for m, s in shape.items() if m.startswith("linear"))
    tall = {m: 2.0 * min(1.15, (s[0] / side) ** 0.5) for m, s in shape.items()}
    wide = {m: max(0.75, 1.7 * min(1.15, (s[1] / side) ** 0.5)) for m, s in shape.items()}

    gap, left, top = 0.62, 0.45, 0.62
    width = left + sum(max(w, 0.95) + gap for w in wide.values())
    whole = list(dict.fromkeys(_short(r["name"]) for r in here if r["partition_dim"] is None))
    width = max(width, 7.4)
    lines = textwrap.wrap(f"Whole on every rank: {', '.join(whole)}.", int(width * 13.5)) if whole else []
    height = top + max(tall.values()) + 0.75 + 0.2 * len(lines)
    with style.apply():
        figure, axes = canvas(width, height)
        words = {"ha": "center", "va": "center", "color": INK}
        x = left
        for matrix in matrices:
            column = max(wide[matrix], 0.95)
            middle, y = x + column / 2, top + (max(tall.values()) - tall[matrix]) / 2
            mine = [r for r in here if _is(matrix, r["name"])]
            _pieces(axes, (middle - wide[matrix] / 2, y, wide[matrix], tall[matrix]), mine, ranks)
            axes.text(middle, 0.2, matrix, fontsize=10.5, weight="bold", **words)
            axes.text(middle, 0.42, f"{shape[matrix][0]:,} × {shape[matrix][1]:,}", fontsize=9.5, **words)
            note = SPLITS[mine[0]["partition_dim"]]
            if matrix == "word_embeddings" and mine[0]["partition_dim"] == 0:
                note = "vocabulary parallel:\nits tokens are split"
            axes.text(middle, top + max(tall.values()) + 0.35, note, fontsize=9, **words | {"color": FAINT})
            x += column + gap
        for i, text in enumerate(lines):
            axes.text(0.2, height - 0.2 * (len(lines) - i), text, fontsize=9.5, **words | {"ha": "left"})
    spoken = []
    for matrix in matrices:
        one = next(r for r in here if _is(matrix, r["name"]))
        local = " × ".join(map(str, one["local_shape"]))
        spoken.append(f"{matrix} {' × '.join(map(str, shape[matrix]))}, rank {one['rank']} holds {local}")
    return Picture(figure, f"Which of {len(ranks)} ranks holds which part: " + "; ".join(spoken) + ".")


def _require(asked: str, records: Sequence[Mapping], names: Sequence[str]) -> None:
    for record in records:
        if missing := [name for name in names if name not in record]:
            raise ValueError(f"{asked}: {missing[0]!r} is missing in a record: these are no findings. {FINDINGS}")


def _is(matrix: str, name: str) -> bool:
    return name.endswith(f"{matrix}.weight")


def _short(name: str) -> str:
    """ "decoder.layers.0.mlp.linear_fc2.bias" → "bias of linear_fc2"; a norm's weight and bias → its name.

    Transformer Engine keeps a norm with the product after it: "linear_qkv.layer_norm_weight" → "norm of linear_qkv".
    """
    module, kind = name.split(".")[-2:]
    if kind.startswith("layer_norm"):
        return f"norm of {module}"
    return f"bias of {module}" if kind == "bias" and "norm" not in module else module


def _pieces(axes, box: tuple[float, float, float, float], records: Sequence[Mapping], ranks: Sequence[int]) -> None:
    """One matrix in `box` (x, y, width, height): each piece in its holder's shade, with the holders' numbers."""
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    rows, columns = records[0]["full_shape"]
    holders: dict[tuple, list[int]] = {}
    for record in records:
        for piece in record["pieces"]:
            holders.setdefault((*piece["offset"], *piece["shape"]), []).append(record["rank"])
    for (row, column, down, across), own in holders.items():
        shared = len(own) == len(ranks) > 1
        shade = (
            "#DDDDDD" if shared else tint(COLOURS["tensor"], 0.22 + 0.5 * ranks.index(own[0]) / max(1, len(ranks) - 1))
        )
        at = x + width * column / columns, y + height * row / rows
        size = width * across / columns, height * down / rows
        hatch = "" if shared or ranks.index(own[0]) % 2 == 0 else "///"
        axes.add_patch(Rectangle(at, *size, fc=shade, ec="white", lw=0, hatch=hatch))
        axes.add_patch(Rectangle(at, *size, fc="none", ec=INK, lw=0.9))
        label = "all" if shared else ", ".join(map(str, own[:4])) + (" …" if len(own) > 4 else "")
        pad = {"boxstyle": "round,pad=0.18", "fc": "white", "ec": "none", "alpha": 0.85}
        middle = at[0] + size[0] / 2, at[1] + size[1] / 2
        axes.text(*middle, label, ha="center", va="center", fontsize=11.5, color=INK, weight="bold", bbox=pad)


@checked
def collectives(heard: Sequence[Mapping], layout: Layout | None = None) -> Picture:
    """The collectives of one layer with the bytes each rank sends, forward and backward, in time from left to right.

    Args:
        heard: "collectives" of `findings`.
        layout: colours each by the dimension its ranks belong to; None takes all for tensor parallel.

    Raises:
        ValueError: they are no findings.
    """
    _require("plots.collectives", heard, ("module", "direction", "collective", "bytes", "ranks"))
    if layout is not None:
        layout.require()
    order = ["self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"]
    order += list(dict.fromkeys(one["module"] for one in heard if one["module"] not in order))
    groups = rank_groups(layout) if layout is not None else {}
    deepest = [
        max(Counter(one["module"] for one in heard if one["direction"] == direction).values(), default=0)
        for direction in ("forward", "backward")
    ]
    width, tops = 1.2 + 1.95 * len(order), (0.55, 1.45 + 0.36 * deepest[0])
    height = tops[1] + 0.65 + 0.36 * deepest[1]
    with style.apply():
        figure, axes = canvas(width, height)
        words = {"va": "center", "color": INK}
        axes.text(0.15, 0.24, _sum(heard), fontsize=11, weight="bold", **words)
        for y, direction in zip(tops, ("forward", "backward"), strict=True):
            axes.text(0.15, y + 0.25, direction, fontsize=10.5, **words)
            for place, module in enumerate(order if direction == "forward" else order[::-1]):
                x = 1.15 + 1.95 * place
                rounded(axes, x, y, 1.65, 0.5, "#F1F1F1", "#9A9A9A")
                axes.text(x + 0.825, y + 0.25, module.rpartition(".")[2], ha="center", fontsize=10.5, **words)
                if place + 1 < len(order):
                    arrow = {"arrowstyle": "-|>", "color": "#9A9A9A", "shrinkA": 0, "shrinkB": 0}
                    axes.annotate("", (x + 1.93, y + 0.25), (x + 1.67, y + 0.25), arrowprops=arrow)
                said = [one for one in heard if (one["direction"], one["module"]) == (direction, module)]
                for i, one in enumerate(said):
                    _said(axes, x, y + 0.6 + 0.36 * i, one, groups)
    spoken = [f"{o['direction']} {o['module']}: {o['collective']}, {decimal_bytes(_sent(o))} sent" for o in heard]
    return Picture(figure, f"{_sum(heard)} In order: " + ("; ".join(spoken) or "nothing") + ".")


def _said(axes, x: float, y: float, one: Mapping, groups: Mapping) -> None:
    colour = COLOURS[next((d for d, all_groups in groups.items() if list(one["ranks"]) in all_groups), "tensor")]
    rounded(axes, x, y, 0.42, 0.28, tint(colour, 0.5), colour)
    look = {"va": "center", "color": INK}
    axes.text(x + 0.21, y + 0.14, SHORT.get(one["collective"], "?"), ha="center", fontsize=9.5, weight="bold", **look)
    axes.text(x + 0.5, y + 0.14, decimal_bytes(_sent(one)), fontsize=9.5, **look)


def _sent(one: Mapping) -> float:
    """Bytes that a rank sends on the wire, in a ring over n ranks; `bytes` is what it hands to the collective.

    All-reduce 2 (n − 1)/n of that, reduce-scatter and all-to-all (n − 1)/n, an all-gather its piece n − 1 times
    (nccl-tests, PERFORMANCE.md).
    """
    n = len(one["ranks"])
    times = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "broadcast": 1}
    return one["bytes"] * times.get(one["collective"], (n - 1) / n)


def _sum(heard: Sequence[Mapping]) -> str:
    if not heard:
        return "This layer's ranks send each other nothing."
    counts = Counter(one["collective"] for one in heard)
    listed = ", ".join(f"{count} {name} ({SHORT.get(name, '?')})" for name, count in counts.items())
    total = decimal_bytes(sum(map(_sent, heard)))
    return f"{len(heard)} collectives in one layer: {listed}; each rank sends {total}."
