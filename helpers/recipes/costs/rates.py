"""What a machine does in a second: the few numbers from which a step's cost is computed.

Seconds, bytes, FLOP/s. Measured (`planner.calibrate`, or from recorded timelines), or carried over from a measured
machine by the figures of the data sheets.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from helpers.machine import PROJECT, Machine, data_sheets
from helpers.show import numbers
from helpers.show.arguments import checked
from helpers.show.tables import Table

RECORDED = PROJECT / "notebooks" / "recorded"
FILE = Path("calibration") / "rates.json"  # beside the recorded runs of a machine
MEASURED_ELSEWHERE = "h200"  # what other GPUs are carried over from


@dataclass(frozen=True)
class Products:
    """GEMMs of one format: FLOP/s of a large one, and the seconds that each takes beyond its FLOPs."""

    flops: float
    start: float


@dataclass(frozen=True)
class Link:
    """A collective between some ranks: seconds before the first byte, then bus bandwidth in bytes/s (NCCL's term)."""

    start: float
    bandwidth: float


@dataclass(frozen=True, repr=False)
class Rates(Table):
    """The rates of one machine.

    `products` by format ("bf16", "fp8", "fp32"). `bandwidth` of memory, as elementwise kernels reach it. `scores` and
    `scores_backward` are seconds for one attention score and one channel of a head. `random` seconds for a random
    number (dropout of the residual stream), `random_score` for one of attention's dropout. `kernel` is the gap between
    two kernels of a recorded step, `launch` what Python takes to launch one, `step` what a step takes beside its
    kernels. `links` by the number of ranks, `between_nodes` the network of one rank.
    """

    IN_WORDS = "the rates of a machine, such as recipes.costs.of(machine)"

    machine: str
    products: dict[str, Products] = field(hash=False)
    bandwidth: float
    scores: float
    scores_backward: float
    random: float
    random_score: float
    kernel: float
    launch: float
    step: float
    links: dict[int, Link] = field(hash=False)
    between_nodes: Link | None = None
    sources: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict, hash=False)

    def link(self, ranks: int) -> Link:
        """The collective of a group within a node: that of the next larger group known."""
        known = sorted(self.links)
        return self.links[next((size for size in known if size >= ranks), known[-1])]

    def tables(self):
        prefixed = numbers.prefixed
        dropped = f"{prefixed(self.random, 's')}, in attention {prefixed(self.random_score, 's')}"
        rows = [
            (f"GEMMs in {name}", _with_start(one.flops, "FLOP/s", one.start)) for name, one in self.products.items()
        ]
        rows += [
            ("memory, elementwise kernels", prefixed(self.bandwidth, "B/s")),
            (
                "attention, a score and channel",
                f"{prefixed(self.scores, 's')}, backward {prefixed(self.scores_backward, 's')}",
            ),
            ("dropout, a random number", dropped),
            ("between two kernels", prefixed(self.kernel, "s")),
            ("launching a kernel", prefixed(self.launch, "s")),
            ("a step beside its kernels", prefixed(self.step, "s")),
        ]
        links = {f"{ranks} ranks": link for ranks, link in self.links.items()}
        links |= {"between nodes": self.between_nodes} if self.between_nodes else {}
        rows += [(f"collectives, {name}", _with_start(one.bandwidth, "B/s", one.start)) for name, one in links.items()]
        yield self.machine, ("what", "rate"), rows

    def headline(self) -> str:
        made_with = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return ". ".join(filter(None, (*self.sources, made_with)))

    def as_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, described: dict) -> "Rates":
        return cls(
            **described
            | {
                "products": {name: Products(**one) for name, one in described["products"].items()},
                "links": {int(size): Link(**one) for size, one in described["links"].items()},
                "between_nodes": Link(**described["between_nodes"]) if described.get("between_nodes") else None,
                "sources": tuple(described.get("sources", ())),
            }
        )


def _with_start(rate: float, unit: str, start: float) -> str:
    return f"{numbers.prefixed(rate, unit)} after {numbers.prefixed(start, 's')}"


@cache
def recorded(label: str) -> Rates | None:
    """The rates that were measured on a machine ("h200", "cpu"), or None."""
    path = RECORDED / label / FILE
    return Rates.from_json(json.loads(path.read_text())) if path.is_file() else None


def write(rates: Rates, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rates.as_json(), indent=1) + "\n")
    recorded.cache_clear()
    _of_this_gpu.cache_clear()
    return path


@checked
def of(machine: Machine) -> Rates:
    """The rates of a machine: those recorded of its kind, else carried over from the H200's by the data sheets.

    Raises:
        ValueError: for a GPU that no data sheet here describes, and a CPU that was not measured.
    """
    if machine.device == "cpu":
        found = recorded(machine.label)
        if found is None:
            raise ValueError("No CPU was measured yet: planner.calibrate() measures this one in about 20 seconds.")
    else:
        found = _of_this_gpu(data_sheets.of(machine.gpus[0].name).name) or _carried_over(machine)
    if machine.nodes > 1:
        found = replace(found, between_nodes=_network(machine))
    return found


@checked
def nearest(machine: Machine) -> Rates:
    """`of`, and for a GPU without a data sheet those of the H200: good enough to tell which layout is the faster."""
    known = machine.device == "cpu" or data_sheets.find(machine.gpus[0].name)
    return of(machine) if known else recorded(MEASURED_ELSEWHERE)


@cache
def _of_this_gpu(name: str) -> Rates | None:
    """The rates that were measured on a GPU of a data sheet's name, whatever its driver calls it."""
    labels = (path.parents[1].name for path in sorted(RECORDED.glob(f"*/{FILE}")))
    found = (recorded(label) for label in labels)
    return next((one for one in found if (sheet := data_sheets.find(one.machine)) and sheet.name == name), None)


def _carried_over(machine: Machine) -> Rates:
    sheet, known = data_sheets.of(machine.gpus[0].name), recorded(MEASURED_ELSEWHERE)
    base = data_sheets.of(known.machine)
    faster = sheet.bf16_flops / base.bf16_flops
    memory, wires = sheet.memory_bandwidth / base.memory_bandwidth, sheet.link_bandwidth / base.link_bandwidth
    products = {
        name: replace(one, flops=one.flops * faster)
        for name, one in known.products.items()
        if name != "fp8" or sheet.compute_capability >= (8, 9)
    }
    note = (
        f"carried over from {known.machine} by the data sheets: tensor cores × {faster:.2f}, memory × {memory:.2f}, "
        f"links × {wires:.2f}; the host's launches are those of that machine"
    )
    return replace(
        known,
        machine=machine.gpus[0].name,
        products=products,
        bandwidth=known.bandwidth * memory,
        scores=known.scores / faster,
        scores_backward=known.scores_backward / faster,
        random=known.random / faster,
        random_score=known.random_score / faster,
        links={size: replace(link, bandwidth=link.bandwidth * wires) for size, link in known.links.items()},
        sources=(note, *known.sources),
    )


def _network(machine: Machine) -> Link:
    """The wires that one GPU has for itself: 20 µs until they start, and nine tenths of their rate."""
    return Link(start=20e-6, bandwidth=0.9 * machine.between_nodes_gbps * 1e9 / 8)
