"""Where a GPU waits in a profiled step, and what the rank's Python did meanwhile. Run by hand, where the trace is:

    python tests/benchmarks/gpu_gaps.py runs/<name>/<time>

The run needs `extra_flags=gpu_runs.PROFILE`; `--pytorch-profiler-collect-callstack` beside it names the functions, and
makes Python two to three times slower. Prints the kernels that took longest, and the longest gaps.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from pathlib import Path

from helpers.runs.timeline import TRACE

ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
ON_CPU = ("python_function", "cuda_runtime", "cpu_op")
EVERYWHERE = re.compile(
    r"threading|multiprocessing|queue\.py|selectors|tqdm|_inductor|<module>|errors/__init__|acquire of"
)
LEAST = 250  # µs of a gap that a function must have taken to be named


def of_kind(events: list[dict], kinds: tuple[str, ...]) -> list[tuple[float, float, str]]:
    """(start, end, name) in µs of the complete events of these kinds, in order."""
    complete = (e for e in events if e.get("ph") == "X" and e.get("cat") in kinds)
    return sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in complete)


def gaps_of(kernels) -> list[tuple[float, float, str, str]]:
    """(start, end, the kernel before, the kernel after) of each time in which no kernel ran."""
    found, (_, end, before) = [], kernels[0]
    for start, stop, name in kernels[1:]:
        if start > end:
            found.append((end, start, before, name))
        if stop > end:
            end, before = stop, name
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory with a trace")
    parser.add_argument("--most", type=int, default=16, help="rows of each table")
    options = parser.parse_args()
    with gzip.open(options.run / TRACE) as file:
        events = json.load(file)["traceEvents"]
    kernels, functions = of_kind(events, ON_GPU), of_kind(events, ON_CPU)
    first = kernels[0][0]

    total, count = Counter(), Counter()
    for start, end, name in kernels:
        total[name] += end - start
        count[name] += 1
    print(f"{len(kernels):,} kernels and copies in {(kernels[-1][1] - first) / 1e3:.1f} ms")
    for name, microseconds in total.most_common(options.most):
        each = microseconds / count[name]
        print(f"{microseconds / 1e3:9.2f} ms {count[name]:5} × {each:8.1f} µs  {name[:60]} … {name[-30:]}")

    gaps = gaps_of(kernels)
    idle = sum(end - start for start, end, *_ in gaps)
    print(f"\nidle: {idle / 1e3:.1f} ms in {len(gaps):,} gaps; the longest, in order:")
    longest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[: options.most]
    for start, end, before, after in sorted(longest):
        print(f"{(end - start) / 1e3:.2f} ms at {(start - first) / 1e3:.1f}: after {before[:40]}, before {after[:40]}")
        for began, ended, name in functions:
            inside = min(ended, end) - max(began, start)
            if inside > LEAST and not EVERYWHERE.search(name):
                print(f"    {inside / 1e3:6.2f} of {(ended - began) / 1e3:8.2f} ms  {name[-90:]}")


if __name__ == "__main__":
    main()
