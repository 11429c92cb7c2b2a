"""One step on the GPU, kernel by kernel: what the PyTorch profiler wrote, reduced to one layer and to shares of time.

Megatron writes the trace with `--profile --use-pytorch-profiler` to `<run>/torch_profile/rank-0.json.gz`.
"""

import dataclasses
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path

from helpers.machine import given
from helpers.runs import records
from helpers.runs.kernels import CATEGORIES, ELEMENTWISE, IDLE, LOSS, Kernel, Window, category, covered
from helpers.runs.results import Results, after_warm_up
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.names import told

TRACE = Path("torch_profile") / "rank-0.json.gz"
FOLDER = "timelines"  # beside the recorded runs of a machine


PARTS = ("qkv", "proj", "fc1", "fc2")  # the matrix products of a layer, forward; backward has two for each
AFTER_A_PRODUCT = re.compile(r"splitKreduce|epilogue|Bgrad")  # small kernels of cuBLAS that finish one
ATTENTION = {
    "forward": re.compile(r"fprop|flash_fwd|FlashAttnFwd|softmax_warp_forward", re.I),
    "backward": re.compile(r"bprop|flash_bwd|FlashAttnBwd|softmax_warp_backward", re.I),
}
NORM = re.compile(r"ln_(?:fwd|bwd)|rms_?norm|layer_?norm", re.I)
BACKWARD = re.compile(r"bwd|backward|grad", re.I)
EVENT = re.compile(
    r'"ph": "X", "cat": "(kernel|gpu_memcpy|gpu_memset|user_annotation)", "name": "((?:[^"\\]|\\.)*)", '
    r'"pid": [^,]+, "tid": ([^,]+),\s*"ts": ([\d.]+), "dur": ([\d.]+)'
)


@told
@dataclass(frozen=True)
class Timeline:
    """One step of rank 0. `milliseconds` holds the exposed time of each category and of "idle": they add up to it.

    `step_ms` is the profiled step; `usual_step_ms` the run's median, since the profiler slows every launch.
    `hidden_ms` are collectives behind other kernels. `layer`, of `layers` and counted from 1, is the one shown.
    """

    IN_WORDS = "the timeline of a step (runs.timeline.recorded has some)"

    machine: str
    step_ms: float
    usual_step_ms: float | None
    milliseconds: dict[str, float]
    hidden_ms: float
    layer: int
    layers: int
    forward: Window
    backward: Window


@checked
def reduce(trace: Path | str, run: Results | None = None) -> Timeline:
    """A profiler trace of one step (`.json.gz`, without pipeline parallelism) as a `Timeline` of its middle layer.

    A layer begins with its first norm and ends where the next one begins; backward it is the same in reverse.

    Args:
        run: the run that was profiled, for its machine and its usual step time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no trace, or one that holds no step, or fewer than two layers.
    """
    if not os.path.isfile(path := given(trace, "timeline.reduce({})")):
        raise FileNotFoundError(f"There is no file {path}. --profile --use-pytorch-profiler write a trace.")
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no trace of PyTorch's profiler, a .json.gz ({error}).") from None
    length, kernels = _events(text)
    forward, backward, losses, layers = _spans(kernels)
    kernels = [
        dataclasses.replace(k, category=LOSS)
        if k.category == ELEMENTWISE and any(start <= k.start < end for start, end in losses)
        else k
        for k in kernels
    ]
    exposed, hidden = _shares(kernels, length)
    usual = after_warm_up(run.series("iteration-time")).median() * 1e3 if run is not None else None
    gpu = re.search(r'"id": 0, "name": "([^"]*)"', text)
    return Timeline(
        machine=run.machine if run is not None else gpu.group(1) if gpu else "",
        step_ms=length / 1e3,
        usual_step_ms=usual,
        milliseconds=exposed,
        hidden_ms=hidden,
        layer=(layers + 1) // 2,
        layers=layers,
        forward=_window(kernels, *forward, PARTS),
        backward=_window(kernels, *backward, [part for part in reversed(PARTS) for _ in range(2)]),
    )


@checked
def of_run(run: Results) -> Timeline:
    """The timeline of a run that was trained with the profiler on.

    Raises:
        FileNotFoundError: it was trained without.
    """
    if not (run.path / TRACE).is_file():
        flags = "--profile --use-pytorch-profiler"
        raise FileNotFoundError(f"{run.headline}. It has no {TRACE}: the profiler was not on. Add {flags}.")
    return reduce(run.path / TRACE, run)


@checked
def write(timeline: Timeline, path: Path | str) -> Path:
    """Keep a timeline as a small JSON file."""
    rounded = json.loads(json.dumps(dataclasses.asdict(timeline)), parse_float=lambda digits: round(float(digits), 3))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(rounded) + "\n")
    return Path(path)


def read(path) -> Timeline:
    """A timeline from its file.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no timeline.
    """
    return records.of_file(path, _from_json, "timeline.read({})", "timeline.write(timeline, path)")


def _from_json(content: dict) -> Timeline:
    for direction in ("forward", "backward"):
        window = content[direction]
        content[direction] = Window(window["microseconds"], tuple(Kernel(**kernel) for kernel in window["kernels"]))
    return Timeline(**content)


def record(run, name: str, recorded_dir: Path = records.RECORDED) -> Path:
    """Keep a profiled run's timeline for readers elsewhere, as `<recorded>/<label>/timelines/<name>.json`."""
    label = run.environment["machine"]["label"]
    return write(of_run(run), recorded_dir / label / FOLDER / f"{name}.json")


@checked
def recorded(machine_label: str, name: str) -> Timeline | Absence:
    """The recorded timeline called `name` of a machine ("h200"); a sentence where there is none."""
    path = records.folder_of(machine_label) / FOLDER / f"{name}.json"
    return read(path) if os.path.isfile(path) else message.nothing_recorded(f"timeline of {name}")


@checked
def recorded_anywhere(*names: str) -> Timeline | Absence:
    """The first of these timelines that any machine has, in the order of the names; a sentence where none has one."""
    for name in names:
        if file := records.anywhere(f"{FOLDER}/{name}.json"):
            return read(file)
    return message.nothing_recorded(f"timeline of {names[0]}")


def _events(text: str) -> tuple[float, list[Kernel]]:
    """The step's length in µs and all that ran on the GPU in it, in order."""
    step, found = None, []
    for kind, name, lane, start, duration in EVENT.findall(text):
        if kind != "user_annotation":
            found.append((float(start), float(duration), int(lane), name))
        elif name.startswith("ProfilerStep") and step is None:
            step = float(start), float(duration)
    if step is None or not found:
        raise ValueError("This trace holds no step of a GPU. Profile one: --profile --use-pytorch-profiler.")
    begin, length = step
    return length, [
        Kernel(category(name), start - begin, duration, lane, name)
        for start, duration, lane, name in sorted(found)
        if 0 <= start - begin < length
    ]


def _spans(kernels: Sequence[Kernel]):
    """From when to when the middle layer runs, forward and backward, when the loss is computed, and how many layers.

    Each layer has one attention in each direction. Several kernels of it without a matrix product in between
    (context parallelism) are one. Recomputed layers come a second time, right before their backward.
    """
    marks: list[tuple[str, float]] = []  # direction and start of each layer's attention
    product_since = True
    for kernel in kernels:
        direction = next((way for way, names in ATTENTION.items() if names.search(kernel.name)), None)
        if direction and (product_since or direction != marks[-1][0]):
            marks.append((direction, kernel.start))
        product_since = False if direction else product_since or kernel.category == "matrix products"
    ways = [direction for direction, _ in marks]
    recomputed = ways.count("forward") > ways.count("backward") > 0
    first_run = next((len(list(run)) for _, run in groupby(ways)), 0)
    layers = first_run - recomputed
    if layers < 2 or ways.count("backward") < layers:
        raise ValueError(f"This trace holds {max(0, layers)} whole layers; a timeline needs two or more.")
    period = (3 if recomputed else 2) * layers
    backwards = [start for direction, start in marks[:period] if direction == "backward"]
    norms = {
        way: [k for k in kernels if NORM.search(k.name) and _is_backward(k) == (way == "backward")] for way in ATTENTION
    }
    middle = (layers - 1) // 2
    begins = [_last(norms["forward"], marks[middle + offset][1]) for offset in (0, 1)]
    turned = layers - 1 - middle
    ends = [_first(kernels, backwards[turned + offset]) for offset in (-1, 0)]
    losses = []
    for last in range(layers - 1, len(marks), period):
        after = next(k.start for k in norms["backward"] if k.start > marks[last][1])
        losses.append((max(k.end for k in norms["forward"] if k.start < after), after))
    return begins, ends, losses, layers


def _is_backward(kernel: Kernel) -> bool:
    return bool(BACKWARD.search(kernel.name))


def _last(norms: Iterable[Kernel], moment: float) -> float:
    """When the last norm before a moment begins."""
    return max(k.start for k in norms if k.start < moment)


def _first(kernels: Sequence[Kernel], moment: float) -> float:
    """When the first backward norm after a moment is over, with the kernels right behind it that complete it."""
    first = next(i for i, k in enumerate(kernels) if k.start > moment and NORM.search(k.name) and _is_backward(k))
    lane = (k for k in kernels[first:] if k.stream == kernels[first].stream)
    return max(k.end for k in takewhile(lambda k: NORM.search(k.name), lane))


def _window(kernels: Sequence[Kernel], start: float, end: float, parts: Sequence[str]) -> Window:
    """The kernels that begin between two moments; products are named where there are as many as `parts`."""
    inside = [dataclasses.replace(k, start=k.start - start) for k in kernels if start <= k.start < end]
    for products in (_products(inside, whole=True), _products(inside, whole=False)):
        if len(products) == len(parts):
            for pieces, part in zip(products, parts, strict=True):
                for i in pieces:
                    inside[i] = dataclasses.replace(inside[i], part=part)
            break
    return Window(end - start, tuple(dataclasses.replace(k, name=_short(k.name)) for k in inside))


def _products(kernels: Sequence[Kernel], whole: bool) -> list[list[int]]:
    """Where the matrix products are. If not `whole`, one is several kernels of a name with nothing computed between."""
    found: list[list[int]] = []
    going_on = None
    for i, kernel in enumerate(kernels):
        if kernel.category == "matrix products" and not AFTER_A_PRODUCT.search(kernel.name):
            if whole or kernel.name != going_on:
                found.append([])
            found[-1].append(i)
            going_on = kernel.name
        elif kernel.category not in ("matrix products", "collectives", "copies, other"):
            going_on = None
    return found


def _short(name: str) -> str:
    """A kernel's name without namespaces and template arguments, 60 letters at most."""
    plain = re.sub(r"<.*|\(anonymous namespace\)::|^void ", "", name)
    return re.sub(r"\w+::", "", plain)[:60]


def _shares(kernels: Sequence[Kernel], length: float) -> tuple[dict[str, float], float]:
    """Exposed milliseconds of each category and of "idle", and the milliseconds of collectives that are hidden."""
    shares, spans, so_far = {}, [], 0.0
    for name in CATEGORIES:
        own = [(k.start, min(k.end, length)) for k in kernels if k.category == name]
        spans += own
        until_now = covered(spans)
        shares[name] = (until_now - so_far) / 1e3
        so_far = until_now
    hidden = covered(own) / 1e3 - shares["collectives"]  # the last of the categories
    return shares | {IDLE: (length - so_far) / 1e3}, hidden
