"""Which change of layout loads a checkpoint: every pair of a few layouts, tried on CPU ranks. Run by hand:

    python tests/benchmarks/checkpoint_moves.py

Each layout trains 8 steps and saves at 6; each then goes on from each checkpoint. What is kept: the largest difference
of the losses of steps 7 and 8 from those of the run that was not interrupted, or the sentence with which Megatron
stops. `notebooks/recorded/cpu/checkpoint_moves.json` is the result.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import real_runs
from real_runs import largest_difference, words

RECORD = real_runs.PROJECT / "notebooks/recorded/cpu/checkpoint_moves.json"
RESHARDABLE = "--dist-ckpt-optim-fully-reshardable"
EXPERTS = " ".join(real_runs.EXPERTS)
LAYOUTS = {
    "DP2": "",
    "TP2": "--tensor-model-parallel-size 2",
    "PP2": "--pipeline-model-parallel-size 2",
    "DP2+DistOpt": f"--use-distributed-optimizer {RESHARDABLE}",
    "DP2+FSDP": "--use-distributed-optimizer --use-megatron-fsdp --ckpt-format fsdp_dtensor --calculate-per-token-loss",
    "DP2, 4 experts": EXPERTS,
    "EP2, 4 experts": f"{EXPERTS} --expert-model-parallel-size 2",
}
SAVED, STEPS = 6, 8
SHORT = words(f"--train-iters 12 --exit-interval {STEPS} --eval-iters 0")


def save(folder: Path, name: str) -> dict[int, float]:
    flags = [*words(LAYOUTS[name]), *SHORT, "--save", str(folder / name), "--save-interval", str(SAVED)]
    return real_runs.train(folder, name, 2, *flags)


def move(folder: Path, there: str, here: str, expected: dict[int, float]) -> dict:
    """Load the checkpoint that `there` saved with the layout `here`, and go on."""
    flags = [*words(LAYOUTS[here]), *SHORT, "--load", str(folder / there), "--ckpt-step", str(SAVED)]
    try:
        losses = real_runs.train(folder, f"{there} to {here}", 2, *flags)
    except AssertionError as failed:
        return {"says": reason(str(failed))}
    except subprocess.TimeoutExpired:
        return {"says": "hangs"}
    if min(losses) != SAVED + 1:
        return {"says": "starts from step 1"}
    return {"difference": largest_difference({step: losses[step] for step in losses}, expected)}


def reason(log: str) -> str:
    """The sentence with which a rank stopped."""
    errors = re.findall(r"^\s*(?:\[rank\d\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception)\b:? .*)$", log, re.MULTILINE)
    own = [line for line in errors if "ChildFailed" not in line]
    return own[-1][:300] if own else log[-300:]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real_runs.write_corpus(folder)
        found: dict = {"megatron-core": version("megatron-core"), "torch": version("torch"), "moves": {}}
        for there in LAYOUTS:
            expected = save(folder, there)
            (folder / "losses").mkdir(exist_ok=True)
            (folder / "losses" / f"{there}.json").write_text(json.dumps(expected))
        for there in LAYOUTS:
            expected = {int(s): x for s, x in json.loads((folder / "losses" / f"{there}.json").read_text()).items()}
            for here in LAYOUTS:
                if ("experts" in there) == ("experts" in here):
                    found["moves"].setdefault(there, {})[here] = move(folder, there, here, expected)
                    print(there, "→", here, found["moves"][there][here], flush=True)
                    RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
