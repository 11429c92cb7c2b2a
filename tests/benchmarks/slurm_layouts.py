"""Two ranks on two nodes of a Slurm print what two ranks on one machine print, for each way to split. Run by hand:

    python tests/benchmarks/slurm_layouts.py

A tiny GPT takes 12 steps with DP2, PP2 and TP2. Every loss and every gradient norm must agree to the last bit.
"""

import os
import tempfile

from helpers import cluster, launch, recipes
from helpers.machine import CPU

LAYOUTS = {"DP2": {"processes": 2}, "PP2": {"pipeline_parallel": 2}, "TP2": {"tensor_parallel": 2}}
SMALL = {"num_layers": 2, "hidden_size": 64, "sequence_length": 64, "vocab_size": 512, "tokenizer": "bpe-512"}
SHORT = {"train_iters": 12, "eval_interval": 12, "eval_iters": 1, "save_interval": None}


def main() -> None:
    os.environ["MEGATRON_TOUR_RUNS"] = tempfile.mkdtemp(prefix="layouts-")
    with cluster.OwnSlurm():
        for name, layout in LAYOUTS.items():
            recipe = recipes.gpt3_345m().scaled_to("cpu").with_(name=name, **SMALL, **SHORT, **layout)
            one = launch.train(recipe, None, machine=CPU)
            two = launch.train(recipe, None, machine=CPU, on=cluster.slurm(nodes=2, time="10"), fresh=True)
            for tag in ("lm loss", "grad-norm"):
                assert one.series(tag).to_dict() == two.series(tag).to_dict(), (name, tag)
            print(f"{name}: {len(two.losses)} steps, equal to the last bit", flush=True)


if __name__ == "__main__":
    main()
