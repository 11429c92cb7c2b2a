"""What tensor parallelism costs a layer: FLOPs ÷ rate against bytes on the wire ÷ bandwidth, and both in a timeline."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from helpers.machine import Machine
from helpers.planner.plans import rates_of
from helpers.recipes import Recipe, preflight
from helpers.recipes.accounting import activations
from helpers.recipes.costs import Link, Rates, exchange, gemms
from helpers.runs.kernels import Kernel, Window, covered
from helpers.runs.kernels import gemms as pieces
from helpers.runs.timeline import PARTS, Timeline
from helpers.show import bounds, message, numbers
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.tables import whole_sentences

WIDTHS = (1024, 1536, 2048, 4096, 8192, 16384)
AT_ONCE = 0.5  # share of a kernel's time that must lie beside GEMMs for it to count as hidden


@checked
def layer_cost(recipe: Recipe, machine: Machine, bandwidth: Annotated[float, bounds.BANDWIDTH] | None = None):
    """A layer's cost under the recipe's tensor parallelism, forward and backward, each sum written out (pandas).

    T_comp: its GEMMs, six FLOPs a token and weight, each after a start. T_comm: its collectives, one after the other,
    as if nothing hid them; activations travel in 16 bits, in FP8 too. The rates are the machine's
    (`planner.calibrated`, or carried over from recorded ones).

    Args:
        bandwidth: bytes/s of the links, in place of the machine's: the bus bandwidth, what one rank sends.

    Raises:
        ValueError: the machine has no GEMMs of the recipe's format, or nothing is known of it.
        PreflightError: the layout is none of that model, or of that machine.
    """
    import pandas as pd

    preflight.require(recipe, machine)
    n, rates = recipe.layout.tensor_parallel, rates_of(machine)
    compute = _compute(recipe, rates)
    tokens, flops = gemms.tokens(recipe), 3 * sum(one.flops for one in gemms.layer(recipe))
    rate, link = rates.products[gemms.format_of(recipe)], _link(recipe, machine, rates, bandwidth)
    said, whole = numbers.prefixed, _whole(recipe)
    starts = 3 * sum(one.count for one in gemms.layer(recipe))
    by_memory = compute - flops / rate.flops - starts * rate.start  # of GEMMs that are too thin for the rate
    rows = [
        (
            "T_comp: GEMMs",
            "6 × tokens × weights of a layer ÷ TP ÷ FLOP/s, and a start for each GEMM",
            f"6 × {tokens:,.0f} × {flops / 6 / tokens * n / 1e6:.4g}·10⁶ ÷ {n} ÷ {said(rate.flops, 'FLOP/s')} + "
            f"{starts:.0f} × {said(rate.start, 's')}"
            + (f" + {_microseconds(by_memory)} bound by memory" if by_memory > 0.005 * compute else ""),
            _microseconds(compute),
        )
    ]
    if n > 1:
        names, count, share = _kinds(recipe)
        each = link.start + share * whole / link.bandwidth
        rows += [
            (
                "one collective",
                f"{'(n − 1)/n' if share < 1 else '2 (n − 1)/n'} × tokens × h × bytes ÷ B/s, after a start",
                f"{numbers.decimal_bytes(share * whole)} ÷ {said(link.bandwidth, 'B/s')} + {said(link.start, 's')}",
                _microseconds(each),
            ),
            (
                "T_comm: all of them",
                names,
                f"{count} × {_microseconds(each)}",
                _microseconds(count * each),
            ),
            ("T_comm ÷ T_comp", "grows with TP, falls with h", "", f"{count * each / compute:.2f}"),
        ]
    return whole_sentences(pd.DataFrame(rows, columns=["what", "formula", "with numbers", "result"]).set_index("what"))


@checked
def ratio(recipe: Recipe, machine: Machine, bandwidth: Annotated[float, bounds.BANDWIDTH] | None = None) -> float:
    """T_comm ÷ T_comp of a layer: 0 without tensor parallelism. Arguments and errors as those of `layer_cost`."""
    preflight.require(recipe, machine)
    return _ratio(recipe, machine, bandwidth)


def _ratio(recipe: Recipe, machine: Machine, bandwidth: float | None = None) -> float:
    n, rates = recipe.layout.tensor_parallel, rates_of(machine)
    if n == 1:
        return 0.0
    _, count, share = _kinds(recipe)
    link = _link(recipe, machine, rates, bandwidth)
    return count * (link.start + share * _whole(recipe) / link.bandwidth) / _compute(recipe, rates)


def _link(recipe: Recipe, machine: Machine, rates: Rates, bandwidth: float | None = None) -> Link:
    link = exchange.link_of(machine, rates, recipe.layout.tensor_parallel, 1)
    return replace(link, bandwidth=bandwidth) if bandwidth else link


@checked
def ratios(recipe: Recipe, machines: Mapping[str, tuple]):
    """`ratio` by width: one row a hidden size, one column a machine and TP (pandas).

    The recipe's layer is made wider with heads of 128 channels, all else kept; widths whose heads do not go into the
    ranks are computed all the same.

    Args:
        machines: a name → (the machine, the TP sizes to try on it).
    """
    import pandas as pd

    table = {}
    for name, (machine, sizes) in machines.items():
        for n in sizes:
            split = {"tensor_parallel": n, "sequence_parallel": True, "processes": None}
            column = {}
            for width in WIDTHS:
                heads = width // 128
                model = replace(recipe.model, hidden_size=width, num_attention_heads=heads, ffn_hidden_size=None)
                column[width] = _ratio(replace(recipe, model=model).with_(**split), machine)
            table[f"TP{n}, {name}"] = column
    return pd.DataFrame(table).rename_axis("hidden size")


def _whole(recipe: Recipe) -> float:
    """Bytes of a micro-batch's activations between two layers, on all tensor-parallel ranks together."""
    return gemms.tokens(recipe) * recipe.model.hidden_size * activations.element_bytes(recipe.precision)


def _compute(recipe: Recipe, rates: Rates) -> float:
    return 3 * sum(gemms.seconds(one, rates, gemms.format_of(recipe)) for one in gemms.layer(recipe))


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} µs"


def _kinds(recipe: Recipe) -> tuple[str, int, float]:
    """A layer's collectives in words, how many they are, and the share of the whole that each puts on the wire."""
    n = recipe.layout.tensor_parallel
    if recipe.layout.sequence_parallel:
        return "6 AG and 4 RS", 10, (n - 1) / n
    return "4 AR", 4, 2 * (n - 1) / n


@checked
def boxes(timeline: Timeline | Absence, recipe: Recipe, machine: Machine):
    """Every collective of a recorded layer that NCCL sent: predicted beside measured, and the GEMM beside it (pandas).

    Predicted: bytes on the wire ÷ bandwidth, after a start. Measured: the kernel's own time. `GEMM µs`: how long the
    GEMM beside it took; `GEMM alone`: FLOPs ÷ rate, after a start.

    Raises:
        ValueError: the recipe has TP1, in which no rank sends a layer's activations to another.
    """
    import pandas as pd

    if isinstance(timeline, Absence):
        return timeline
    preflight.require(recipe, machine)
    if recipe.layout.tensor_parallel == 1:
        raise ValueError(
            "layer_cost.boxes: this recipe has tensor_parallel=1, so what its timeline shows are other collectives, "
            "those of the distributed optimizer, say. Take a timeline and its recipe with tensor_parallel=2 or more."
        )
    rates = rates_of(machine)
    link = _link(recipe, machine, rates)
    seconds = [gemms.seconds(one, rates, gemms.format_of(recipe)) for one in gemms.layer(recipe)]
    alone = dict(zip(PARTS, seconds, strict=False))
    sent = _kinds(recipe)[2] * _whole(recipe)
    rows = []
    for way, window in _windows(timeline):
        for one in window.kernels:
            if one.collective not in ("AG", "RS", "AR"):
                continue
            beside = _beside(one, window, way)
            part = beside.partition(" ")[0]
            rows.append(
                (
                    *(way, one.collective, round(sent / 1e6, 1)),
                    *(round(1e6 * (link.start + sent / link.bandwidth)), round(one.duration), beside or "nothing"),
                    _spent(window, way, beside) if part in alone else "–",
                    round(1e6 * alone[part]) if part in alone else "–",
                )
            )
    columns = ["direction", "collective", "MB sent", "predicted µs", "measured µs", "runs beside", "GEMM µs"]
    return pd.DataFrame(rows, columns=[*columns, "GEMM alone"]).set_index(["direction", "collective"])


@checked
def overlap_price(named: Mapping[str, Timeline | Absence]):
    """What overlapping costs and saves, per layer: GEMMs and collectives of recorded timelines, in µs (pandas).

    `fprop`, `dgrad`, `wgrad`: the four GEMMs of each, from the first piece of one to its last.
    `exposed`: moments in which a collective ran and nothing else. `copies`: median µs of what a copy engine sent.
    """
    import pandas as pd

    drawn = {name: one for name, one in named.items() if isinstance(one, Timeline)}
    if not drawn:
        return next(iter(named.values()), message.nothing_recorded("timeline"))
    rows = {}
    for name, one in drawn.items():
        kernels = [kernel for _, window in _windows(one) for kernel in window.kernels]
        by_nccl = [k for k in kernels if k.collective in ("AG", "RS", "AR", "A2A")]
        copies = sorted(k.duration for k in kernels if k.collective == "copy")
        rows[name] = {
            "layer": round(one.forward.microseconds + one.backward.microseconds),
            "fprop": _spent(one.forward, "forward", "fprop"),
            "dgrad": _spent(one.backward, "backward", "dgrad"),
            "wgrad": _spent(one.backward, "backward", "wgrad"),
            "NCCL collectives": len(by_nccl),
            "each": round(sum(k.duration for k in by_nccl) / len(by_nccl)) if by_nccl else "–",
            "copies": len(copies),
            "each copy": round(copies[len(copies) // 2]) if copies else "–",
            "exposed": round(_exposed(one.forward) + _exposed(one.backward)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("µs of a layer")


def _windows(timeline: Timeline) -> tuple[tuple[str, Window], ...]:
    return ("forward", timeline.forward), ("backward", timeline.backward)


def _spent(window: Window, way: str, gemm: str) -> int:
    """Microseconds in which GEMMs run whose name ends like this; pieces of one that overlap count once."""
    named = zip(window.kernels, pieces(window, way == "backward"), strict=True)
    return round(covered((k.start, k.end) for k, name in named if name.endswith(gemm)))


def _beside(one: Kernel, window: Window, way: str) -> str:
    """The GEMM, or another kernel, that runs for most of a collective's time."""
    found: dict[str, float] = {}
    for other, name in zip(window.kernels, pieces(window, way == "backward"), strict=True):
        shared = min(one.end, other.end) - max(one.start, other.start)
        if other.category != "collectives" and shared > 0:
            words = name or other.category
            found[words] = found.get(words, 0) + shared
    longest = max(found, key=found.get, default="")
    return longest if longest and found[longest] > AT_ONCE * one.duration else ""


def _exposed(window: Window) -> float:
    """Microseconds in which a collective runs and nothing else."""
    edges = sorted({edge for k in window.kernels for edge in (k.start, min(k.end, window.microseconds))})
    total = 0.0
    for start, end in zip(edges, edges[1:], strict=False):
        running = {k.category == "collectives" for k in window.kernels if k.start <= start and k.end >= end}
        total += (end - start) * (running == {True})
    return total
