"""What NVIDIA's data sheets say of GPUs, to plan with those that are not here."""

import difflib
import re
from dataclasses import dataclass

VARIANTS = {"LAPTOP", "MOBILE", "MAX", "D", "TI", "SUPER", "MIG"}  # words of a name that make it another GPU, or a part

FP8_PEAK = 2  # times the dense bf16 peak, on every GPU here that has FP8 (compute capability 8.9 and above)


@dataclass(frozen=True)
class Sheet:
    """One GPU: dense bf16 peak in FLOP/s (without sparsity), memory in the GB of its name and in bytes as the driver
    counts it, its bandwidth in bytes/s, and what its links carry one way in bytes/s (NVLink, or PCIe where it has
    none)."""

    name: str
    bf16_flops: float
    gigabytes: int
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    compute_capability: tuple[int, int]


def _binary(name: str, capability: tuple[int, int]) -> float:
    """GeForce's "24 GB" are GiB; so are those of Hopper and A100, nearly: "80 GB" are 81,559 MiB, "141 GB" 143,771."""
    if name.startswith("RTX"):
        return 1.0737
    return 1.069 if capability in ((9, 0), (8, 0)) else 1.0


# TFLOP/s, GB, TB/s, GB/s one way. The first whose words are in a device's name wins: longer names stand before shorter.
SHEETS = tuple(
    Sheet(
        name,
        peak * 1e12,
        gb,
        gb * 1e9 * _binary(name, capability),
        bandwidth * 1e12,
        link * 1e9,
        capability,
    )
    for name, peak, gb, bandwidth, link, capability in (
        ("GB300", 2500, 288, 8.0, 900, (10, 3)),
        ("GB200", 2500, 192, 8.0, 900, (10, 0)),
        ("B300", 2250, 288, 8.0, 900, (10, 3)),
        ("B200", 2250, 192, 8.0, 900, (10, 0)),
        ("H200 NVL", 835, 141, 4.8, 450, (9, 0)),
        ("H200", 989, 141, 4.8, 450, (9, 0)),
        ("GH200", 989, 96, 4.0, 450, (9, 0)),
        ("H100 PCIe", 756, 80, 2.0, 64, (9, 0)),
        ("H100 NVL", 835, 94, 3.9, 300, (9, 0)),
        ("H100", 989, 80, 3.35, 450, (9, 0)),
        ("H20", 148, 96, 4.0, 450, (9, 0)),
        ("A100 40GB", 312, 40, 1.555, 300, (8, 0)),
        ("A100", 312, 80, 2.04, 300, (8, 0)),
        ("A800", 312, 80, 2.04, 200, (8, 0)),
        ("A40", 150, 48, 0.696, 32, (8, 6)),
        ("A30", 165, 24, 0.933, 32, (8, 0)),
        ("A10G", 70, 24, 0.6, 32, (8, 6)),
        ("A10", 125, 24, 0.6, 32, (8, 6)),
        ("L40S", 362, 48, 0.864, 32, (8, 9)),
        ("L40", 181, 48, 0.864, 32, (8, 9)),
        ("L4", 121, 24, 0.3, 32, (8, 9)),
        ("RTX 4090", 165, 24, 1.008, 32, (8, 9)),
        ("RTX 3090", 71, 24, 0.936, 32, (8, 6)),
    )
)


def find(name: str) -> Sheet | None:
    """The sheet of a device's name; None for a GPU that has none here, or a variant of one that has."""
    words = set(name.upper().replace("-", " ").split())
    found = next((sheet for sheet in SHEETS if set(sheet.name.upper().split()) <= words), None)
    if found is None or VARIANTS & (words - set(found.name.upper().split())):
        return None
    return found


def _series(name: str) -> str:
    """The letters that a GPU's name begins with: "RTX", "GB", "H"."""
    return re.match("[A-Z]*", name).group()


def of(name: str) -> Sheet:
    """The sheet of a device's name.

    Raises:
        ValueError: there is none; the message names the closest of its series, or all there are.
    """
    if found := find(name):
        return found
    known = [sheet.name for sheet in SHEETS]
    asked = name.upper().replace("NVIDIA", "").replace("-", " ").split()
    close = [
        one
        for word in asked
        for one in difflib.get_close_matches(word, known, n=3, cutoff=0.5)
        if word[0].isdigit() or _series(one) == _series(word)
    ]
    hint = f"Did you mean {' or '.join(dict.fromkeys(close))}?" if close else f"There are: {', '.join(known)}."
    raise ValueError(f"No data sheet here describes a GPU called {name!r}; they are NVIDIA's. {hint}")
