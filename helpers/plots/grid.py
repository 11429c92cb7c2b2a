"""The grid of ranks: which rank sits where, in which groups, and what it sends to whom."""

from collections.abc import Sequence
from typing import Annotated

from helpers.plots.shapes import PALE, canvas, rounded, tint
from helpers.plots.sizes import MODEL_PARTS
from helpers.recipes import Layout
from helpers.recipes.layout import rank_groups
from helpers.show import bounds, style
from helpers.show.arguments import checked
from helpers.show.style import COLOURS, GREY, INK, RUN_COLOURS, Picture

EXCHANGES = {  # dimension -> what its ranks send each other, and how often
    "tensor": "activations, several times in every layer",
    "context": "keys and values, in every attention",
    "data": "gradients, once a step",
    "pipeline": "activations on, gradients back, every micro-batch",
    "expert": "tokens to their experts and back, in every MoE layer",
}
MODEL_PARTS["output"] = RUN_COLOURS[0]
MAX_IN_A_STAGE = 128
MAX_RANKS = 16_384  # the grid of so many is there within seconds
MAX_ROWS, MAX_COLUMNS, MAX_COPIES = 8, 16, 8  # ranks drawn at most; what is left out is said in the figure
MAX_ON_NODES = 128  # ranks of a picture of nodes, of which none is left out


@checked
def rank_grid(layout: Layout, rank: Annotated[int, bounds.PLACE] = 0) -> Picture:
    """Every rank of a layout as a box, and whom one of them talks to, in the colour of the dimension.

    Pipeline stages run downwards, data-parallel copies of the model to the right; inside a copy, one row per
    context-parallel part and one column per tensor-parallel part. Places and groups come from Megatron's own rank
    generator (`layout.rank_groups`). Layouts of many ranks are drawn in part, and say so.

    Args:
        rank: whose partners are coloured.

    Raises:
        ValueError: when the layout has no such rank, is none, or has more ranks than a figure can show.
    """
    require(layout, rank)
    groups = rank_groups(layout)
    place: dict[int, dict[str, int]] = {r: {} for r in range(layout.world_size)}
    for dimension, all_groups in groups.items():
        for group in all_groups:
            for position, member in enumerate(group):
                place[member][dimension] = position
    partners = {d: [r for r in _group_of(groups[d], rank) if r != rank] for d in groups}
    used = [d for d in EXCHANGES if max(map(len, groups[d])) > 1]

    tensors, contexts = layout.tensor_parallel, layout.context_parallel
    # Two copies and two stages at the least: with one, no arrow would show what they exchange.
    copies = _few(layout.data_parallel, max(2, min(MAX_COPIES, MAX_COLUMNS // tensors)), place[rank]["data"])
    stages = _few(layout.pipeline_parallel, max(2, MAX_ROWS // contexts), place[rank]["pipeline"])
    step_x, step_y = tensors + 0.8, contexts + 0.8  # from copy to copy, in ranks; 0.8 leaves room for an arrow
    # Inches from one rank to the next: as many as let all copies fit a page's width, and never so many that few ranks
    # fill it.
    box = min(0.55, 7.6 / (len(copies) * step_x))
    left, top = 0.95, 0.5
    right, bottom = left + box * len(copies) * step_x, top + box * (len(stages) * step_y - 0.6)
    beside = right < 4.6  # the legend's lines are 4.5 inches long: next to a wide grid they would leave the page
    legend = (right + 0.15, top) if beside else (0.2, bottom + 0.25)
    lines = max(1, len(used)) * (0.55 if beside else 0.3)
    width = right + 4.5 if beside else max(right, 7.4)
    height = max(bottom, legend[1] + lines) + 0.1

    with style.apply():
        figure, axes = canvas(width, height)
        corner = {
            (copy, stage): (left + box * column * step_x, top + box * row * step_y)
            for column, copy in enumerate(copies)
            for row, stage in enumerate(stages)
        }
        for x, y in corner.values():
            rounded(axes, x - 0.18 * box, y - 0.18 * box, box * (tensors + 0.24), box * (contexts + 0.24), PALE, "none")
        for r, at in place.items():
            if (at["data"], at["pipeline"]) in corner:
                x, y = corner[at["data"], at["pipeline"]]
                _rank_box(axes, x + box * at["tensor"], y + box * at["context"], box, r, rank, partners)
        _between(axes, corner, box, (tensors, contexts), used)
        words = {"va": "center", "fontsize": 10.5, "color": INK}
        for copy in copies:
            text = f"copy {copy}" if layout.data_parallel > 1 else "the model"
            x = corner[copy, stages[0]][0] + box * (tensors - 0.12) / 2
            axes.text(x, top - 0.28, text, ha="center", **words)
        for stage in stages:
            y = corner[copies[0], stage][1] + box * (contexts - 0.12) / 2
            text = f"stage {stage}" if layout.pipeline_parallel > 1 else "all layers"
            axes.text(left - 0.17, y, text, ha="right", **words)
        _exchanges(axes, legend, beside, used, groups, rank, partners)
        drawn = len(corner) * tensors * contexts
        if drawn < layout.world_size:
            note = f"{drawn} of {layout.world_size}\nranks drawn"
            axes.text(0.1, top - 0.28, note, va="center", fontsize=8.5, style="italic", color=GREY)
    spoken = [f"{d} parallel with {_listing(partners[d])}" for d in used if partners[d]]
    many = f"{layout.world_size} rank" + "s" * (layout.world_size > 1)
    return Picture(figure, f"Grid of {many}, {layout.name}. Rank {rank} is " + ("; ".join(spoken) or "alone") + ".")


@checked
def ranks_on_nodes(
    layout: Layout, ranks_per_node: Annotated[int, bounds.RANKS], rank: Annotated[int, bounds.PLACE] = 0
) -> Picture:
    """The nodes of a run, each with its ranks, and whom one of them talks to, in the colour of the dimension.

    Ranks count node by node, as torchrun numbers them. Tinted: the tensor-parallel groups. An arrow joins neighbouring
    nodes that share a group, in the colour of its dimension; dimensions without arrows stay inside their nodes.

    Raises:
        ValueError: as `rank_grid`, or the ranks do not fill whole nodes, or are more than a figure shows.
    """
    require(layout, rank)
    if layout.world_size % ranks_per_node or layout.world_size > MAX_ON_NODES:
        whole = f"{layout.name} has {layout.world_size} ranks, {ranks_per_node} on each node"
        raise ValueError(f"{whole}: it takes whole nodes, and {MAX_ON_NODES} ranks at most. Change processes.")
    groups = rank_groups(layout)
    partners = {d: [r for r in _group_of(groups[d], rank) if r != rank] for d in groups}
    used = [d for d in EXCHANGES if max(map(len, groups[d])) > 1]
    nodes, tensors = layout.world_size // ranks_per_node, layout.tensor_parallel
    columns = 8 if ranks_per_node % 8 == 0 and tensors == 8 else min(4, ranks_per_node)
    rows = -(-ranks_per_node // columns)
    stage = layout.world_size // layout.pipeline_parallel
    in_a_line = tensors if tensors > ranks_per_node else stage  # a group that leaves its node, or a stage
    beside = min(nodes, MAX_COLUMNS // columns)
    if 1 < in_a_line // ranks_per_node < beside:
        beside = in_a_line // ranks_per_node
    lines = -(-nodes // beside)
    box, gap, head, left, top = 0.4, 0.55, 0.32, 0.2, 0.15
    wide, high = max(1.6, box * columns + 0.16), box * rows + head + 0.12
    below = top + lines * (high + gap) - gap
    width, height = max(left + beside * (wide + gap) - gap + 0.2, 7.4), below + 0.3 * max(1, len(used)) + 0.3
    corner = {n: (left + n % beside * (wide + gap), top + n // beside * (high + gap)) for n in range(nodes)}
    with style.apply():
        figure, axes = canvas(width, height)
        for node, (x, y) in corner.items():
            rounded(axes, x, y, wide, high, PALE, "#BBBBBB")
            named = layout.pipeline_parallel > 1 and stage % ranks_per_node == 0
            text = f"node {node}" + f", stage {node * ranks_per_node // stage}" * named
            axes.text(x + 0.1, y + 0.19, text, va="center", fontsize=10.5, color=INK)
            at = {
                r: (x + 0.1 + box * (i % columns), y + head + box * (i // columns))
                for i, r in enumerate(range(node * ranks_per_node, (node + 1) * ranks_per_node))
            }
            for group in groups["tensor"] if tensors > 1 else ():
                if here := [at[r] for r in group if r in at]:
                    (x0, y0), (x1, y1) = here[0], here[-1]
                    size = x1 - x0 + 0.94 * box, y1 - y0 + 0.94 * box
                    rounded(axes, x0 - 0.03 * box, y0 - 0.03 * box, *size, tint(COLOURS["tensor"], 0.2), "none")
            for r, (left_edge, upper_edge) in at.items():
                _rank_box(axes, left_edge + 0.02, upper_edge + 0.02, box * 0.9, r, rank, partners)
        crossing = _between_nodes(axes, corner, (wide, high, beside), used, groups, ranks_per_node)
        _exchanges(axes, (0.2, below + 0.2), False, used, groups, rank, partners)
    inside = [d for d in used if d not in crossing]
    said = "; ".join(f"{d} parallel with {_listing(partners[d])}" for d in used) or "alone"
    alt = f"{nodes} nodes of {ranks_per_node} ranks, {layout.name}. Rank {rank} is {said}."
    alt += f" Between nodes: {', '.join(crossing) or 'nothing'}; inside: {', '.join(inside) or 'nothing'}."
    return Picture(figure, alt)


def require(layout: Layout, rank: int) -> None:
    """Nothing for a layout that can be drawn, seen from one of its ranks.

    Raises:
        ValueError: it is none, has no such rank, or more of them than a figure can show.
    """
    layout.require()
    if layout.world_size > MAX_RANKS:
        raise ValueError(
            f"{layout.name} has {layout.world_size:,} ranks, and a figure shows part of {MAX_RANKS:,} at most. Fewer "
            "copies look alike: draw a smaller processes."
        )
    if (stage := layout.tensor_parallel * layout.context_parallel) > MAX_IN_A_STAGE:
        raise ValueError(
            f"{layout.name}: a stage of one copy has {stage:,} ranks, and a figure shows {MAX_IN_A_STAGE}. Draw a "
            "smaller tensor_parallel × context_parallel."
        )
    if not 0 <= rank < layout.world_size:
        raise ValueError(f"{layout.name} has ranks 0 to {layout.world_size - 1}: there is no rank {rank}.")
    rank_groups(layout)


def _group_of(groups: Sequence[Sequence[int]], rank: int) -> Sequence[int]:
    return next(group for group in groups if rank in group)


def _few(size: int, limit: int, wanted: int) -> list[int]:
    """At most `limit` of range(size), neighbours, `wanted` among them."""
    first = min(max(0, wanted - limit // 2), max(0, size - limit))
    return list(range(first, min(size, first + limit)))


def _listing(ranks: Sequence[int]) -> str:
    """ "rank 3", "ranks 1, 2, 3", "ranks 1, 2, 3 … 31"."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 4:
        return f"ranks {', '.join(map(str, ranks[:3]))} … {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"


def _rank_box(axes, x, y, step, number, chosen, partners):
    """One rank: black when chosen; a partner has its dimension's colour and letter, a second dimension a strip."""
    shared = [d for d, ranks in partners.items() if number in ranks]
    side, size = 0.88 * step, 24 * step  # the 0.12 between neighbours is taken off wherever ranks are centred on
    plain = ("white", "#9A9A9A") if number != chosen else (INK, INK)
    face, edge = (tint(COLOURS[shared[0]], 0.28), COLOURS[shared[0]]) if shared else plain
    rounded(axes, x, y, side, side, face, edge, 2.0 if shared else 1.0)
    marked = number == chosen or bool(shared)
    words = {"ha": "center", "va": "center", "color": "white" if number == chosen else INK}
    axes.text(x + side * 0.45, y + side * 0.5, str(number), fontsize=size, weight=("normal", "bold")[marked], **words)
    for slot, dimension in enumerate(shared):
        at = (x + side * (0.86 - 0.72 * slot), y + side * (0.2 if not slot else 0.82))
        letter = {
            "fontsize": size * 0.62,
            "weight": "bold",
            "color": COLOURS[dimension],
            "ha": "center",
            "va": "center",
        }
        axes.text(*at, dimension[0].upper(), **letter)


def _between(axes, corner, step, shape, used):
    """The arrows between copies and between stages: each rank with the rank in the same place."""
    tensors, contexts = shape
    arrow = {"arrowstyle": "<|-|>", "shrinkA": 0, "shrinkB": 0, "lw": 2.2, "mutation_scale": 20 * step}
    for (copy, stage), (x, y) in corner.items():
        if "pipeline" in used and (copy, stage + 1) in corner:
            middle, edge = x + step * (tensors - 0.12) / 2, y + step * (contexts + 0.08)
            ends = (middle, edge), (middle, edge + step * 0.52)
            axes.annotate("", *ends, arrowprops=dict(arrow, color=COLOURS["pipeline"]))
        if "data" in used and (copy + 1, stage) in corner:
            middle, edge = y + step * (contexts - 0.12) / 2, x + step * (tensors + 0.08)
            ends = (edge, middle), (edge + step * 0.52, middle)
            axes.annotate("", *ends, arrowprops=dict(arrow, color=COLOURS["data"]))


def _between_nodes(axes, corner, shape, used, groups, ranks_per_node) -> list[str]:
    """An arrow a dimension between neighbours that share a group of it; the dimensions that leave a node."""
    wide, high, beside = shape
    spread = {d: [{r // ranks_per_node for r in group} for group in groups[d]] for d in used}
    crossing = [d for d in used if any(len(nodes) > 1 for nodes in spread[d])]
    for node, (x, y) in corner.items():
        right, below = (node + 1, (x + wide, y + high / 2), (1, 0)), (node + beside, (x + wide / 2, y + high), (0, 1))
        for other, (start_x, start_y), (across, down) in (right, below):
            if other not in corner or (across and other % beside == 0):
                continue
            shared = [d for d in crossing if any({node, other} <= nodes for nodes in spread[d])]
            for place, dimension in enumerate(shared):
                aside = 0.24 * (place - (len(shared) - 1) / 2)
                start = (start_x + 0.04 * across + aside * down, start_y + 0.04 * down + aside * across)
                end = (start[0] + 0.47 * across, start[1] + 0.47 * down)
                arrow = {"arrowstyle": "<|-|>", "shrinkA": 0, "shrinkB": 0, "lw": 2.2, "mutation_scale": 11}
                axes.annotate("", start, end, arrowprops=arrow | {"color": COLOURS[dimension]})
    return crossing


def _exchanges(axes, corner, beside, used, groups, rank, partners):
    """One entry per dimension: its sign, its size, who is in the chosen rank's group, and what they exchange."""
    x, y = corner
    words = {"va": "center", "fontsize": 10.5, "color": INK}
    if not used:
        axes.text(x, y + 0.2, "One rank: it talks to nobody.", **words)
    for line, dimension in enumerate(used):
        colour, size = COLOURS[dimension], len(_group_of(groups[dimension], rank))
        at = y + 0.15 + (0.55 if beside else 0.3) * line
        axes.scatter(x + 0.1, at, s=110, marker="s", fc=tint(colour, 0.28), ec=colour, lw=1.8)
        axes.text(x + 0.1, at + 0.01, dimension[0].upper(), ha="center", **words | {"fontsize": 9, "weight": "bold"})
        axes.text(x + 0.32, at, f"{dimension} {size}", weight="bold", **words)
        who = f"rank {rank} with {_listing(partners[dimension])}"
        if beside:
            axes.text(x + 1.3, at, who, **words)
            axes.text(x + 0.32, at + 0.21, EXCHANGES[dimension], **words | {"color": "#555555"})
        else:
            axes.text(x + 1.3, at, f"{who}: {EXCHANGES[dimension]}", **words)
