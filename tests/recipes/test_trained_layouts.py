"""Preflight refuses nothing that works: every layout of this table passes it, and then really trains two steps.

FSDP is trained in lessons/test_sharding.py, experts without TP in weights/test_exporting.py.
"""

import math
import os
import re
import subprocess

import pytest

from helpers import recipes
from helpers.machine import CPU, PROJECT
from helpers.recipes import Layout, accounting, preflight

TINY = {
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "sequence_length": 32,
    "vocab_size": 256,
    "micro_batch_size": 1,
    "global_batch_size": 4,
    "train_iters": 2,
    "lr_warmup_iters": 0,
    "eval_iters": 0,
    "eval_interval": 2,
    "save_interval": None,
}  # fmt: skip
GPT = recipes.gpt3_345m().scaled_to("cpu").with_(**TINY)
LLAMA = recipes.llama3_8b().scaled_to("cpu").with_(**TINY, ffn_hidden_size=96)

WORKS = {
    "DP2+DistOpt": (
        GPT.with_(hidden_size=256, vocab_size=4096, save_interval=2, dtype="bf16"),
        Layout(processes=2, distributed_optimizer=True),
    ),
    "CP2": (LLAMA, Layout(context_parallel=2)),
    "TP2 with EP2 on 2 processes": (
        GPT.with_(num_experts=2, dropout=0.1),
        Layout(processes=2, tensor_parallel=2, expert_parallel=2, expert_tensor_parallel=1, sequence_parallel=True),
    ),
    "TP2×PP2×VPP2": (
        LLAMA.with_(num_layers=4, recompute="full"),
        Layout(tensor_parallel=2, pipeline_parallel=2, virtual_pipeline_chunks=2, sequence_parallel=True),
    ),
}


def train(recipe, run_directory) -> tuple[list[float], dict[int, int]]:
    """A run on mock data, started as its printed command says: its losses, and the parameters that Megatron counted
    on a rank of each pipeline stage."""
    command = recipe.command(None, CPU, run_directory)
    out = subprocess.run(
        command.argv,
        cwd=PROJECT,
        env=os.environ | {name: value for name, (value, _) in command.environment.items()},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, (out.stdout + out.stderr)[-4000:]
    losses = [float(loss) for loss in re.findall(r"lm loss: ([-+.\dE]+)", out.stdout)]
    counted = re.findall(r"number of parameters on .*? rank \(\d+, \d+, (\d+)\): (\d+)", out.stdout)
    return losses, {int(stage): int(count) for stage, count in counted}


@pytest.mark.train
@pytest.mark.parametrize("name", WORKS)
def test_a_layout_that_preflight_lets_through_trains(name, tmp_path):
    recipe, layout = WORKS[name]
    recipe = recipe.with_(layout=layout)
    assert preflight.check(recipe, None, CPU, tmp_path) == []
    losses, counted = train(recipe, tmp_path)
    assert len(losses) == 2
    assert all(abs(loss - math.log(recipe.model.vocab_size)) < 0.5 for loss in losses), losses

    stages = range(layout.pipeline_parallel)
    assert counted == {stage: sum(accounting.rank_parameters(recipe.model, layout, stage)) for stage in stages}
    if recipe.checkpoints.save_interval:
        checkpoint = tmp_path / "checkpoints" / "iter_0000002"
        on_disk = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        assert on_disk == pytest.approx(accounting.checkpoint_bytes(recipe), rel=0.05)
