"""Milliseconds from a slider's move to its new picture: the goal is 200. Run by hand:

uv run python tests/benchmarks/widget_redraw.py
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from widget_makers import MAKERS, MOVES


def main() -> None:
    for name, make in MAKERS.items():
        made = make()
        made.widget  # noqa: B018 - built here, as Jupyter does when it shows it
        control, values = MOVES[name]
        taken = []
        for value in values * 5:
            start = time.perf_counter()
            made.controls[control].value = value
            taken.append((time.perf_counter() - start) * 1e3)
        print(f"{name}: median {statistics.median(taken):.0f} ms, slowest {max(taken):.0f} ms of {len(taken)} moves")


if __name__ == "__main__":
    main()
