"""Notebook 11's batch script without our helpers, rehearsed once: the signal, the save, the queue, the second start.

    uv run python tests/benchmarks/slurm_by_hand.py

Two nodes of a Slurm of our own with one CPU rank each. What of the script is changed for it stands in CHANGES: it asks
for no GPUs and for three minutes, Slurm's signal comes a minute before them, and our entry script on a CPU stands in
the place of the clone.
"""

import os
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from helpers import cluster, recipes
from helpers.lessons import wires
from helpers.machine import PROJECT

PAGE = PROJECT / "notebooks" / "11_many_nodes.ipynb"
SCRIPT = re.compile(r"```bash\n(#!/usr/bin/env bash\n#SBATCH.*?)```", re.DOTALL)
STEPS, SAVE_EVERY, LIMIT_SECONDS = 480, 50, 900
OURS = {"--train-iters", "--save-interval", "--save", "--load", "--tensorboard-dir"}  # said by the script, or needless
CHANGES = {
    " --partition=h100 --account=physics": "",
    "--nodes=4": "--nodes=2",
    " --gpus-per-node=8": "",
    "source /shared/venv/bin/activate": "true",
    "SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0": "SOCKET_IFNAME=lo",
    "--time=24:00:00 --signal=USR1@600": "--time=3 --signal=USR1@60",
    "PET_NPROC_PER_NODE=8": "PET_NPROC_PER_NODE=1",
    "Megatron-LM/pretrain_gpt.py": "-m helpers.ranks.cpu.device helpers/ranks/pretrain_gpt.py",
    "--save-interval 500": f"--save-interval {SAVE_EVERY}",
    "STEPS=100000": f"STEPS={STEPS}",
}
SHOWN = re.compile(r"saving checkpoint|successfully saved|exiting program|srun: |loading .*checkpoint from|Error")


def script() -> str:
    """The batch script as the page has it."""
    text = "\n".join(cell.source for cell in nbformat.read(PAGE, 4).cells if cell.cell_type == "markdown")
    (found,) = SCRIPT.findall(text)
    return found


def rehearsed(folder: Path) -> str:
    text = script()
    small = (
        recipes.gpt3_345m().scaled_to("cpu").with_(processes=2, train_iters=STEPS, eval_iters=0, global_batch_size=8)
    )
    changes = CHANGES | {
        "/shared/llama3-8b/checkpoints": str(folder / "checkpoints"),
        "%x-%j.log": str(folder / "log.txt"),
        "--tensor-model-parallel-size 2": shlex.join(flags(small)),
    }
    for before, behind in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, behind)
    return text


def flags(recipe) -> list[str]:
    """Of the recipe's command all that the script does not say itself."""
    groups = recipe.command(None, wires.on_cpu()).groups.values()
    return [word for group in groups for flag in group if flag.words[0] not in OURS for word in flag.words]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="by-hand-"))
    (folder / "job.sh").write_text(rehearsed(folder))
    os.environ |= {"MEGATRON_CPU": "1", "OMP_NUM_THREADS": "1"}
    os.environ |= {"PYTHONPATH": str(PROJECT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    started, before = time.monotonic(), ""
    with cluster.OwnSlurm() as own:
        number = own.ask("sbatch", "--parsable", f"--chdir={PROJECT}", str(folder / "job.sh")).strip()
        assert number.isdigit(), number
        while time.monotonic() - started < LIMIT_SECONDS:
            state = own.ask("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T %r").strip()
            if state != before:
                print(f"{time.monotonic() - started:5.0f} s  {state}", flush=True)
            before = state
            if state.startswith("PENDING BeginTime"):  # the queue's two minutes are cut short
                time.sleep(5)
                own.ask("scontrol", "update", f"JobId={number}", "StartTime=now")
            if state.split()[0] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
                break
            time.sleep(1)
    lines = (folder / "log.txt").read_text(errors="replace").splitlines()
    print(*[line[:150] for line in lines if SHOWN.search(line)], sep="\n")
    steps = [int(found[1]) for line in lines if (found := re.search(r"iteration +(\d+)/", line))]
    print(
        "steps after which the count goes on elsewhere:",
        [a for a, b in zip(steps, steps[1:], strict=False) if b != a + 1],
    )
    print("first, last and how many:", steps[0], steps[-1], len(steps), "in", folder)


if __name__ == "__main__":
    main()
