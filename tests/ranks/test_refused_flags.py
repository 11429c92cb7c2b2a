"""Flags that break with an error of some other subject are refused in a sentence that says what to do instead."""

import os
import subprocess
import sys

import pytest
import real_runs

from helpers.ranks import refused_flags

MLP = "--recompute-granularity selective --recompute-modules"
BREAKS = {  # flags → the one that is refused, and a word of what to do instead
    f"{MLP} core_attn mlp": ("--recompute-modules", "--disable-bias-linear"),
    "--recompute-activations --recompute-modules=mlp": ("--recompute-modules", "core_attn"),
    "--optimizer-cpu-offload": ("--optimizer-cpu-offload", "Leave it out"),
    "--cuda-graph-impl local": ("--cuda-graph-impl", "Leave it out"),
    "--cuda-graph-impl=full_iteration": ("--cuda-graph-impl", "Leave it out"),
    "--enable-cuda-graph": ("--enable-cuda-graph", "Leave it out"),
    "--external-cuda-graph": ("--external-cuda-graph", "Leave it out"),
    "--profile --profile-step-start 2": ("--profile", "--use-pytorch-profiler"),
    "--record-memory-history": ("--record-memory-history", "--log-memory-to-tensorboard"),
    "--num-experts 4 --moe-grouped-gemm": ("--moe-grouped-gemm", "one after another"),
    "--save-dgrads-interval 2": ("--save-dgrads-interval", "--bf16"),
    "--multi-latent-attention --tensor-model-parallel-size 2": ("--multi-latent-attention", "--context-parallel-size"),
    "--dataloader-inter-document-masking --context-parallel-size 2 --position-embedding-type rope": (
        "--dataloader-inter-document-masking",
        "--reset-attention-mask",
    ),
}
WORKS = (
    f"{MLP} mlp --disable-bias-linear",
    f"{MLP} layernorm",
    "--recompute-granularity full --recompute-modules mlp",
    "--cuda-graph-impl none",
    "--profile --use-pytorch-profiler",
    "--save-dgrads-interval 2 --bf16",
    "--multi-latent-attention --context-parallel-size 2 --apply-layernorm-1p --save-activations-interval 2",
    "--dataloader-inter-document-masking --context-parallel-size 2",
    "--dataloader-inter-document-masking --position-embedding-type rope",
)


@pytest.mark.parametrize("flags", BREAKS)
def test_what_breaks_on_a_cpu_is_named_with_a_way_out(flags):
    (row,) = refused_flags.broken(flags.split(), on_cpu=True)
    flag, way_out = BREAKS[flags]
    assert row.flag == flag and way_out in row.change
    assert list(refused_flags.broken(flags.split(), on_cpu=False)) == []


@pytest.mark.parametrize("flags", WORKS)
def test_what_works_is_left_alone(flags):
    assert list(refused_flags.broken(flags.split(), on_cpu=True)) == []


FSDP = "--use-megatron-fsdp --ckpt-format fsdp_dtensor"
FSDP_ON_A_CPU = f"{FSDP} --calculate-per-token-loss"


@pytest.mark.parametrize(
    ("flags", "on_cpu", "ways_out"),
    [
        ("--use-megatron-fsdp", False, ["--ckpt-format fsdp_dtensor"]),
        (f"{FSDP} --save folder", False, []),
        (FSDP, True, ["--calculate-per-token-loss"]),
        (f"{FSDP_ON_A_CPU} --save folder", True, []),
        (FSDP_ON_A_CPU, True, []),
        ("--use-torch-fsdp2 --ckpt-format torch_dcp --load folder", False, ["--ckpt-format torch_dist"]),
        ("--use-torch-fsdp2 --ckpt-format torch_dcp", False, []),
    ],
)
def test_what_of_fsdp_breaks_or_hangs_is_named(monkeypatch, flags, on_cpu, ways_out):
    for einops in True, False:
        monkeypatch.setattr(refused_flags, "find_spec", lambda name, there=einops: there or None)
        found = [row.change for row in refused_flags.broken(flags.split(), on_cpu)]
        if not einops and "--use-megatron-fsdp" in flags:
            assert found.pop(0) == "uv pip install einops."
        assert len(found) == len(ways_out) and all(way in change for way, change in zip(ways_out, found, strict=True))


@pytest.mark.parametrize("script", ["ours", "somebody else's"])
def test_a_program_ends_with_that_sentence(script, tmp_path):
    (tmp_path / "script.py").write_text("print('it ran')\n")
    program = {"ours": [real_runs.ENTRY_SCRIPT], "somebody else's": ["-m", "helpers.ranks.cpu.device"]}[script]
    program += [str(tmp_path / "script.py")] * (script != "ours")
    command = [sys.executable, *program, "--optimizer-cpu-offload"]
    environment = os.environ | {"MEGATRON_CPU": "1"}
    done = subprocess.run(command, cwd=real_runs.PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "it ran" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("--optimizer-cpu-offload cannot work here. It moves the optimizer")
