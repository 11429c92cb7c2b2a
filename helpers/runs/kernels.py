"""What ran on a GPU, kernel by kernel: of which kind each is, and what a window of time holds of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SMALL = ("Cat", "gather", "scatter", "index", "rope", "glu", "gelu", "amax", "scal", "quanti")
# What a kernel is, by the words in its name. Where several streams are busy at once, a moment belongs to the first of
# these: a collective counts only where nothing hides it. "loss" is told by its place, not by its name.
CATEGORIES = {
    "matrix products": r"nvjet|gemm|cutlass|cublas|xmma",
    "attention": r"sdpa|fmha|flash|fused_attn|cudnn::fusion|masked_softmax",
    "loss": r"cross_entropy",
    "norms, elementwise": f"elementwise|triton|norm|reduce|cast|transpose|dropout|{'|'.join(SMALL)}",
    "optimizer": r"multi_tensor|adam",
    "copies, other": r"",
    "collectives": r"nccl|userbuffers|PtoP",
}
ASKED_FIRST = ("collectives", "attention", "optimizer")  # their names hold words of the others as well
COLLECTIVES = {"AG": "AllGather", "RS": "ReduceScatter", "AR": "AllReduce", "A2A": "SendRecv|AllToAll", "copy": "PtoP"}
ELEMENTWISE, LOSS, IDLE = "norms, elementwise", "loss", "idle"


@dataclass(frozen=True)
class Kernel:
    """One kernel or copy, in µs from the start of its window; `part` names the matrix of a product, else ""."""

    category: str
    start: float
    duration: float
    stream: int
    name: str
    part: str = ""

    @property
    def end(self) -> float:
        return self.start + self.duration

    @property
    def collective(self) -> str:
        """AG, RS, AR or A2A of what NCCL sends, "copy" of what a copy engine sends, else "".

        NCCL has one kernel, SendRecv, for an all-to-all and for a pipeline's transfers: both are A2A here.
        """
        if self.category != "collectives":
            return ""
        return next((short for short, words in COLLECTIVES.items() if re.search(words, self.name)), "")


@dataclass(frozen=True)
class Window:
    """One layer in one direction: `microseconds` long, with the kernels that began in it."""

    microseconds: float
    kernels: tuple[Kernel, ...]

    @property
    def idle(self) -> float:
        """Microseconds in which no stream was busy."""
        return self.microseconds - covered((k.start, min(k.end, self.microseconds)) for k in self.kernels)


def gemms(window: Window, backward: bool) -> list[str]:
    """Of which GEMM each of the window's kernels is a piece: "fc1 fprop", "fc1 dgrad", "fc1 wgrad"; "" of all others.

    They are told by their order, since dgrad and wgrad can be kernels of one name: Megatron computes dgrad first, and
    cuts only dgrad into pieces, so that the last kernel of a matrix is its wgrad.
    """
    last = {kernel.part: place for place, kernel in enumerate(window.kernels)}
    several = {part for part in last if part and sum(k.part == part for k in window.kernels) > 1}
    return [
        ""
        if not kernel.part
        else f"{kernel.part} fprop"
        if not backward or kernel.part not in several
        else f"{kernel.part} {'wgrad' if last[kernel.part] == place else 'dgrad'}"
        for place, kernel in enumerate(window.kernels)
    ]


def category(name: str) -> str:
    """What a kernel is, by its name: one of `CATEGORIES`."""
    order = (*ASKED_FIRST, *(one for one in CATEGORIES if one not in ASKED_FIRST))
    return next(one for one in order if re.search(CATEGORIES[one], name))


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what spans of time cover together."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > until:
            total += end - max(start, until)
            until = end
    return total
