"""Ranks of jobs that others measured on eight GPUs, each alone on one. Run by hand:

    python tests/benchmarks/one_of_many.py --list                      what there is, and what is recorded already
    python tests/benchmarks/one_of_many.py --only '401*' --seconds 500  what is missing of it, for so long

The rows are those of `planner.elsewhere`, with the flags and kernels of their author, who had apex: of our changes only
`gradient_fusion`, which stands in for it. One after the other goes through `launch.one_of_many`, none for longer than
`--row-seconds`, and becomes `<recorded>/<gpu>/one_of_many/<name>.json`; one that fails leaves `<name>.failed`.
`--smoke` makes each small enough for a CPU (MEGATRON_CPU=1): a rehearsal of this program, not a measurement.
"""

import argparse
import fnmatch
import re
import time
from dataclasses import replace
from pathlib import Path

from helpers import launch
from helpers.machine import here
from helpers.planner import elsewhere
from helpers.recipes import Recipe, preflight
from helpers.runs import one_rank, records

ROWS = (  # of `planner.elsewhere`, by table; the first are wanted most
    ("202", "GBS 8, TP*"),
    ("401", "PP8, m=8"),
    ("401", "PP8, m=8, 3 layers a chunk"),
    ("280", "TP8+SP"),
    ("280", "TP8, recomputed"),
    ("101", "GBS 128, DP8+DistOpt"),
    ("502", "E64, DP8+DistOpt"),
    ("502", "E64, EP8×DP8+DistOpt"),
    ("301", "4K, CP2 p2p"),
    ("301", "4K, CP8 *"),
    ("203", "GBS 8, TP[248]"),  # TP1 stands in table 202
    ("202", "GBS 20, TP*"),
    ("203", "GBS 20, TP[248]"),
)
EVENLY = ("--moe-router-force-load-balancing", "--moe-permute-fusion")


def planned() -> dict[str, tuple[Recipe, int]]:
    """Recipe and pipeline stage by the name of the record: the first and the last stage where there are several."""
    every, found = elsewhere.rows(), {}
    for table, pattern in ROWS:
        for row in (row for row in every if row.table == table and fnmatch.fnmatchcase(row.name, pattern)):
            last = row.recipe.layout.pipeline_parallel - 1
            for stage in dict.fromkeys((0, last)):
                name = re.sub(r"[^a-z0-9]+", "_", f"{table} {row.name}".lower()) + f"_stage_{stage}" * (last > 0)
                flags = row.recipe.extra_flags + EVENLY * (row.recipe.model.num_experts is not None)
                found[name] = (
                    row.recipe.with_(name=name, stock=False, without=("gelu", "split"), extra_flags=flags),
                    stage,
                )
    return found


def smoke(recipe: Recipe) -> Recipe:
    """The same layout, one narrow layer a chunk, at most eight micro-batches."""
    layout, model = recipe.layout, recipe.model
    count = recipe.batch.global_batch_size // recipe.batch.micro_batch_size // layout.data_parallel
    small = recipe.scaled_to("cpu").with_(
        num_layers=layout.pipeline_parallel * layout.virtual_pipeline_chunks,
        hidden_size=64,
        num_attention_heads=8,
        ffn_hidden_size=model.ffn_hidden_size and 64,
        sequence_length=64,
        vocab_size=512,
        num_experts=model.num_experts and 8,
        micro_batch_size=1,
        global_batch_size=min(8, count) * layout.data_parallel,
        recompute=recipe.batch.recompute,
        overlap_communication=recipe.speed.overlap_communication,
        extra_flags=EVENLY[:1] * (model.num_experts is not None),
        without=(),
    )
    return replace(small, name=recipe.name)


def make(name: str, options: argparse.Namespace) -> None:
    """Measure one row and keep it, or keep why not."""
    recipe, stage = planned()[name]
    recipe = smoke(recipe) if options.smoke else recipe
    try:
        found = launch.one_of_many(recipe, stage=stage, timeout_seconds=options.row_seconds)
    except (launch.TrainingFailed, preflight.PreflightError) as failure:
        (options.recorded / f"{name}.failed").write_text(f"{failure}\n")
        print(f"{name} failed: {str(failure).splitlines()[0]}", flush=True)
        return
    print(f"{one_rank.record(found, name, options.recorded)}\n{found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="*", help="names or patterns, comma-separated, in order")
    parser.add_argument("--seconds", type=float, default=3600, help="no row starts unless it may take its time")
    parser.add_argument("--row-seconds", type=float, default=180, help="no row takes longer")
    parser.add_argument("--recorded", type=Path, default=records.RECORDED)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.recorded.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    wanted = [name for word in options.only.split(",") for name in planned() if fnmatch.fnmatch(name, word)]
    have = {path.stem for path in (options.recorded / here().label / one_rank.FOLDER).glob("*.json")}
    if options.list:
        print("\n".join(f"{'recorded' if name in have else 'missing ':9} {name}" for name in wanted))
        return
    for name in (name for name in wanted if name not in have):
        if time.monotonic() + options.row_seconds > deadline:
            print(f"Out of time before {name}.")
            break
        make(name, options)


if __name__ == "__main__":
    main()
