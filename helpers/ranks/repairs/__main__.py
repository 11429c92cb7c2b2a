"""python -m helpers.ranks.repairs: every repair, and how it stands with the versions that are installed here."""

import os
import textwrap

from helpers.ranks.repairs.repair import AS_SEEN, MENDED, Repair, installed
from helpers.ranks.repairs.table import REPAIRS

PACKAGES = ("megatron-core", "transformer-engine", "torch")
ADVICE = {MENDED: "take the row out", AS_SEEN: "it finds what it replaces"}


def told(repair: Repair, measured: dict[str, tuple[float, float]]) -> str:
    """One row in words: how it stands here, what it replaces and why, what it changes, what it is worth."""
    if repair.only_with and installed(repair.only_with) is None:
        standing = f"{repair.only_with} is not installed here"
    else:
        standing = repair.standing()
        standing += f": {ADVICE.get(standing, 'it stays off until somebody has looked')}"
    here = [f"{what} {theirs:.0f} → {ours:.0f} µs here" for what, (theirs, ours) in measured.items()]
    parts = {
        "replaces": ", ".join(repair.replaces) or "torch.cuda",
        "why": repair.why,
        "numbers": repair.numbers,
        "speed": "; ".join([repair.speed, *here]),
        "records": ", ".join(repair.records),
        "upstream": repair.upstream,
    }
    lines = [f"{repair.name} ({repair.kind}) · {standing}"]
    for name, text in parts.items():
        if text:
            indents = {"initial_indent": f"  {name:<10}", "subsequent_indent": " " * 12}
            lines += textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False, **indents)
    return "\n".join(lines)


def measurements() -> dict[str, dict[str, tuple[float, float]]]:
    """What each change is worth on this GPU, in microseconds: name → what → (theirs, ours); {} without a GPU."""
    import torch

    if os.environ.get("MEGATRON_CPU") == "1" or not torch.cuda.is_available():
        return {}
    measured = {}
    for repair in REPAIRS:
        if hasattr(repair.load(), "measure") and (not repair.only_with or installed(repair.only_with)):
            measured[repair.name] = repair.load().measure()
    return measured


def main() -> None:
    print(", ".join(f"{package} {installed(package) or 'not installed'}" for package in PACKAGES))
    measured = measurements()
    for repair in REPAIRS:
        print("\n" + told(repair, measured.get(repair.name, {})))


if __name__ == "__main__":
    main()
