"""python -m helpers.ranks.repairs: every repair, and how it stands with the versions that are installed here."""

import importlib.util
import os

from helpers.ranks.repairs.repair import AS_SEEN, MENDED, installed
from helpers.ranks.repairs.table import REPAIRS

PACKAGES = ("megatron-core", "transformer-engine", "torch")
ADVICE = {MENDED: "upstream has it: take the row out", AS_SEEN: "it still finds what it replaces"}


def rows(measured: dict[str, dict[str, tuple[float, float]]]) -> list[tuple[str, ...]]:
    """A row a repair: name and kind, what it replaces, how that stands, why, what it changes, what it is worth."""
    found = []
    for repair in REPAIRS:
        absent = repair.only_with is not None and importlib.util.find_spec(repair.only_with) is None
        standing = f"{repair.only_with} is not installed" if absent else repair.standing()
        advice = ADVICE.get(standing, "" if absent else "it stays off until somebody has looked")
        here = measured.get(repair.name, {}).items()
        worth = [repair.speed, *(f"here: {what} {theirs:.0f} → {ours:.0f} µs" for what, (theirs, ours) in here)]
        found.append(
            (
                f"{repair.name}\n{repair.kind}",
                "\n".join(repair.replaces) or "torch.cuda",
                f"{standing}\n{advice}",
                "\n".join(filter(None, (repair.why, repair.upstream))),
                repair.numbers,
                "\n".join(worth),
            )
        )
    return found


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
    from rich.console import Console
    from rich.table import Table

    print(", ".join(f"{package} {installed(package) or 'not installed'}" for package in PACKAGES))
    table = Table("repair", "replaces", "stands", "why", "changes in numbers", "worth", show_lines=True)
    for row in rows(measurements()):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
