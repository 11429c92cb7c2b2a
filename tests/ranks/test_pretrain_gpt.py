"""The entry script trains as NVIDIA's own does, alike in every parallel layout, and resumes without a trace."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import real_runs
from patience import survivors, wait_for
from real_runs import CASES, EXPERTS, PROJECT, STEPS, largest_difference, train, words

from helpers.ranks import refused_flags

HALF = STEPS // 2
RESHARDABLE = words("--use-distributed-optimizer --dist-ckpt-optim-fully-reshardable")
ROUNDING = 9.6e-7  # two units in the last place of a float32 loss near 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    real_runs.write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def upstream():
    record = json.loads(real_runs.UPSTREAM.read_text())
    assert record["flags"] == real_runs.usual_flags("{folder}"), "record upstream_losses.json again"
    return record


def saved(folder, name: str) -> list[str]:
    """Save at half of the steps and at the end."""
    return ["--save", str(folder / name), "--save-interval", str(HALF)]


def from_half(folder, name: str) -> list[str]:
    """Go on from the checkpoint at half of the steps."""
    return ["--load", str(folder / name), "--ckpt-step", str(HALF)]


@pytest.fixture(scope="module")
def one_rank(folder):
    """The losses of one rank, against which every layout is held. Its checkpoint is at folder / "one"."""
    return train(folder, "one", 1, *saved(folder, "one"))


@pytest.fixture(scope="module")
def distributed_optimizer(folder):
    flags = [*RESHARDABLE, *saved(folder, "sharded")]
    return train(folder, "sharded", 2, *flags)


def second_half(losses: dict[int, float]) -> dict[int, float]:
    return {step: loss for step, loss in losses.items() if step > HALF}


def as_upstream(losses, name: str, upstream) -> None:
    """Bit for bit on the processor and torch that recorded it; elsewhere sums round differently from the start on."""
    case = upstream["cases"][name]
    assert case["flags"] == " ".join(CASES[name][1]), "record upstream_losses.json again"
    expected = {int(step): loss for step, loss in case["losses"].items()}
    assert losses.keys() == expected.keys()
    from importlib.metadata import version

    if (upstream["processor"], upstream["torch"]) == (real_runs.processor(), version("torch")):
        assert losses == expected
    else:
        assert largest_difference(losses, expected) < (0.1 if "bf16" in name else 1e-3)


@pytest.mark.train
def test_one_rank_is_nvidias_own_script(one_rank, upstream):
    as_upstream(one_rank, "GPT", upstream)
    assert one_rank[STEPS] < one_rank[1] - 1


@pytest.mark.train
def test_tensor_and_sequence_parallel(folder, one_rank, upstream):
    name = "GPT, TP2+SP"
    losses = train(folder, "tp2sp", *CASES[name][:1], *CASES[name][1])
    as_upstream(losses, name, upstream)
    assert largest_difference(losses, one_rank) <= ROUNDING


@pytest.mark.train
def test_llama_in_bf16_with_recompute(folder, upstream):
    name = "Llama in bf16, dropout, recompute"
    losses = train(folder, "llama", CASES[name][0], *CASES[name][1])
    as_upstream(losses, name, upstream)
    assert losses[STEPS] < losses[1] - 1


@pytest.mark.train
def test_experts_on_two_ranks_are_those_on_one(folder, upstream):
    """Both from the weights of a checkpoint: from scratch each rank draws its experts by itself, and Megatron 0.19
    cannot load the optimizer of EP 2 (two, one for experts) into that of EP 1 (one for all)."""
    name = "mixture of experts, EP2"
    processes, flags = CASES[name]
    as_upstream(train(folder, "experts", processes, *flags, *saved(folder, "experts")), name, upstream)
    weights = [*from_half(folder, "experts"), "--no-load-optim"]
    on_one = train(folder, "experts on one", 1, *EXPERTS, *weights)
    on_two = train(folder, "experts on two", processes, *flags, *weights)
    assert len(on_one) == STEPS - HALF
    assert largest_difference(on_two, on_one) <= ROUNDING


@pytest.mark.train
def test_context_parallel(folder, one_rank):
    losses = train(folder, "cp2", 2, "--context-parallel-size", "2")
    assert len(losses) == STEPS
    assert largest_difference(losses, one_rank) <= ROUNDING


@pytest.mark.train
def test_data_parallel_with_distributed_optimizer(one_rank, distributed_optimizer):
    assert len(distributed_optimizer) == STEPS
    assert largest_difference(distributed_optimizer, one_rank) <= ROUNDING


@pytest.mark.train
def test_what_megatron_otherwise_leaves_to_transformer_engine(folder, one_rank):
    """Norms around 1, recomputed in the backward pass, with every layer's inputs and outputs kept: the same losses."""
    flags = words("--recompute-granularity selective --recompute-modules layernorm --apply-layernorm-1p")
    flags += [*saved(folder, "norms"), "--save-activations-interval", str(HALF)]
    assert largest_difference(train(folder, "norms", 1, *flags), one_rank) <= ROUNDING
    assert list((folder / "norms").glob("activations/*"))


@pytest.mark.train
def test_latent_attention_inside_documents(folder):
    flags = "--multi-latent-attention --position-embedding-type rope --no-rope-fusion"
    losses = train(folder, "latent", 1, *words(flags), "--dataloader-inter-document-masking")
    assert losses[STEPS] < losses[1] - 1


@pytest.mark.train
def test_torchs_own_sharding(folder):
    untied = "--untie-embeddings-and-output-weights"
    one = train(folder, "untied", 1, untied)
    assert largest_difference(train(folder, "sharded by torch", 2, untied, "--use-torch-fsdp2"), one) <= 2 * ROUNDING


@pytest.mark.train
def test_interleaved_stages_of_split_matrices_from_the_checkpoint_of_one_rank(folder, one_rank):
    """From scratch they differ: Megatron adds the pipeline stage to the seed of the initial weights."""
    flags = "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2"
    losses = train(folder, "TP2×PP2×VPP2", 4, *words(flags), *from_half(folder, "one"))
    assert losses.keys() == second_half(one_rank).keys()
    assert largest_difference(losses, one_rank) <= ROUNDING


@pytest.mark.train
def test_a_resumed_run_is_the_uninterrupted_one(folder, one_rank):
    assert train(folder, "resumed", 1, *from_half(folder, "one")) == second_half(one_rank)


@pytest.mark.train
def test_a_resumed_run_of_the_distributed_optimizer_too(folder, distributed_optimizer):
    resumed = train(folder, "sharded again", 2, *RESHARDABLE, *from_half(folder, "sharded"))
    assert resumed == second_half(distributed_optimizer)


@pytest.mark.train
def test_a_checkpoint_of_two_data_parallel_ranks_continues_tensor_parallel(folder, one_rank, distributed_optimizer):
    flags = [*RESHARDABLE, *words("--tensor-model-parallel-size 2"), *from_half(folder, "sharded")]
    losses = train(folder, "resharded", 2, *flags)
    assert losses.keys() == second_half(one_rank).keys()
    assert largest_difference(losses, one_rank) <= ROUNDING


@pytest.mark.train
def test_ranks_die_with_torchrun(folder):
    """SIGKILL to torchrun, which can tell nobody: its ranks are gone at once."""
    command = real_runs.torchrun(2, real_runs.ENTRY_SCRIPT, *real_runs.MODEL, *real_runs.TRAINING, *real_runs.DEVICE)
    command += [*real_runs.data_flags(folder), "--train-iters", "100000"]
    with open(folder / "killed.log", "w") as log:
        agent = subprocess.Popen(command, cwd=PROJECT, env=real_runs.environment(), stdout=log, stderr=log)
        ranks = []
        try:
            said = (folder / "killed.log").read_text
            wait_for(lambda: "iteration " in said() or agent.poll() is not None, "the first step")
            assert agent.poll() is None, said()[-3000:]
            ranks = psutil.Process(agent.pid).children(recursive=True)
            assert len(ranks) >= 2
            agent.send_signal(signal.SIGKILL)
            agent.wait()
            assert survivors(ranks) == []
        finally:
            for process in [agent, *ranks]:
                if process.is_running() if isinstance(process, psutil.Process) else process.poll() is None:
                    process.kill()


@pytest.mark.train
def test_the_traceback_of_the_failing_rank_is_kept(folder):
    """A micro-batch that does not divide the batch: Megatron's assertion stands in torchrun's report."""
    command = real_runs.torchrun(1, real_runs.ENTRY_SCRIPT, *real_runs.MODEL, *real_runs.TRAINING, *real_runs.DEVICE)
    command += [*real_runs.data_flags(folder), "--micro-batch-size", "3"]
    done = subprocess.run(command, cwd=PROJECT, env=real_runs.environment(), capture_output=True, text=True)
    assert done.returncode != 0
    report = done.stderr.partition("Root Cause")[2]
    assert "traceback : Traceback" in report
    assert "AssertionError" in report


REFUSED = {
    "--sft": "supervised fine-tuning",
    "--fim-data": "fill-in-the-middle",
    "--spec": "layer specification",
    "--logits-load-dir": "distillation",
    "--logits-save-dir=/tmp/logits": "distillation",
    "--export-kd-teacher-load": "ModelOpt",
    "--modelopt-enabled": "ModelOpt",
    "--perform-rl-step": "reinforcement learning",
    "--hybrid-layer-pattern": "state-space",
    "--yaml-cfg": "configuration file",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_is_left_out_is_refused_by_name(flag):
    command = [sys.executable, real_runs.ENTRY_SCRIPT, "--num-layers", "2", flag, "x"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(flag.split("=")[0] + " asks for ")
    assert REFUSED[flag] in done.stderr


def test_they_are_refused_before_what_takes_seconds_is_imported():
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{real_runs.ENTRY_SCRIPT!r}, '--sft']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print({'torch', 'megatron'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()" and done.stderr.startswith("--sft asks for ")


def test_flags_that_only_begin_alike_are_not_refused():
    refused_flags.refuse_what_is_left_out(["--sft-tokenizer-prompt-format", "--special", "x", "--fim-rate", "0.5"])


EARLY_END = """
import sys
from helpers.ranks import lifetime, pretrain_gpt
pretrain_gpt.parse_and_validate_args = pretrain_gpt.gpt_config_from_args = lambda *_, **__: None
pretrain_gpt.pretrain_cfg_container_from_args = lambda *_: None
pretrain_gpt.inprocess_restart.maybe_wrap_for_inprocess_restart = lambda _: (lambda *_, **__: sys.exit({code}), None)
lifetime.leave = lambda: print("left in good order")
pretrain_gpt.main()
"""


@pytest.mark.parametrize(("code", "leaves"), [("", True), ("0", True), ("'it broke'", False)])
def test_an_exit_interval_ends_in_good_order_too(code, leaves):
    """NCCL waits forever for recorded steps, and Megatron ends with `sys.exit` there."""
    command = [sys.executable, "-c", EARLY_END.format(code=code)]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | {"MEGATRON_CPU": "1"}, capture_output=True, text=True)
    assert (done.returncode == 0) == leaves, done.stderr
    assert ("left in good order" in done.stdout) == leaves
