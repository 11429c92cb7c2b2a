"""On GPUs: however a run ends, nothing of it stays behind; killed and picked up, it has the losses of the undisturbed.

To be run alone on a machine or on the GPUs that CUDA_VISIBLE_DEVICES numbers, 13 launches and about five minutes with
two GPUs, 11 with one:

    uv run pytest tests/test_on_gpus.py -n 0 -s

It prints what it measures, and writes it to `on_gpus.json` in the folder that MEGATRON_TOUR_GPU_RESULTS names.
KILL_SEED chooses the steps at which runs are killed. MEGATRON_TOUR_REHEARSE=1 goes through it on CPU ranks.

What makes a resumed bf16 run exact: `extra_flags=("--deterministic-mode",)`. Megatron refuses a fused cross-entropy and
overlap inside tensor parallelism beside it (megatron/training/determinism.py): the former is left out by itself, see
`command.loss_kernel`. Megatron itself then sets, where they are not set,
NVTE_ALLOW_NONDETERMINISTIC_ALGO=0 (Transformer Engine's attention), CUBLAS_WORKSPACE_CONFIG=:4096:8 and NCCL_ALGO=Ring,
calls `torch.use_deterministic_algorithms(True)`, and looks embeddings up by indexing, whose backward pass adds in a
fixed order. Dropout may stay on: the checkpoint holds the state of the random numbers.
"""

import contextlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pynvml
import pytest
from patience import survivors, wait_for

from helpers import launch, recipes, runs
from helpers.machine import CPU, here
from helpers.machine.cuda_libraries import transformer_engine_installed
from helpers.machine.hardware import visible_gpus
from helpers.processes import control, logs

REHEARSE = os.environ.get("MEGATRON_TOUR_REHEARSE") == "1"
GPUS = () if REHEARSE or os.environ.get("MEGATRON_CPU") == "1" else visible_gpus()
RANKS = 2 if REHEARSE else len(GPUS)
MACHINE = CPU if REHEARSE else None  # None: the one that is here
FOREVER, STEPS = 5000, 40
MIB = 2**20
FIGURES: dict[str, dict] = {}

ALONE = "takes the machine for itself: uv run pytest tests/test_on_gpus.py -n 0 -s"
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(RANKS == 0, reason="there is no GPU here"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason=ALONE),
]
takes_two = pytest.mark.skipif(RANKS < 2, reason="one rank waits for another: that takes two GPUs")
takes_a_gpu = pytest.mark.skipif(REHEARSE, reason="a CPU rank has no memory of its own")
takes_transformer_engine = pytest.mark.skipif(
    REHEARSE or not transformer_engine_installed(), reason="a CUDA graph takes a GPU and Transformer Engine"
)


@pytest.fixture(scope="module", autouse=True)
def results():
    yield
    if folder := os.environ.get("MEGATRON_TOUR_GPU_RESULTS"):
        machine = (MACHINE or here()).name
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "on_gpus.json").write_text(json.dumps({"machine": machine, "cases": FIGURES}, indent=1) + "\n")


@pytest.fixture(scope="module")
def small(tiny_recipe):
    """GPT3-345M with 4 of its 24 layers, over the 512 token ids of the small corpus; a tiny one in a rehearsal."""
    real = recipes.gpt3_345m().with_(num_layers=4, vocab_size=512, tokenizer="bpe-512", cuda_graph=False)
    return (tiny_recipe if REHEARSE else real).with_(name="small", eval_interval=1000, eval_iters=2, save_interval=None)


@pytest.fixture(scope="module")
def endless(small):
    """On every GPU, without an end of its own."""
    batch = small.batch.global_batch_size // RANKS
    return small.with_(processes=RANKS, micro_batch_size=batch, global_batch_size=batch * RANKS, train_iters=FOREVER)


# ---- what is measured ------------------------------------------------------------------------------------------------
def note(case: str, **figures) -> None:
    FIGURES.setdefault(case, {}).update(figures)
    print(f"\n{case}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))


def opening(error: launch.TrainingFailed) -> str:
    """Its headline, cause and fix."""
    return "\n\n".join(str(error).split("\n\n")[:2])


def gpus() -> list[tuple[int, set[int]]]:
    """Of each GPU of ours: the memory in use, in MiB, and the processes that use it as the driver numbers them."""
    if REHEARSE:
        return []
    pynvml.nvmlInit()
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")  # by number: the others may be somebody else's
    numbers = map(int, ours.split(",")) if ours else range(pynvml.nvmlDeviceGetCount())
    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]
    return [(pynvml.nvmlDeviceGetMemoryInfo(handle).used // MIB, users(handle)) for handle in handles]


def users(handle) -> set[int]:
    with contextlib.suppress(pynvml.NVMLError):  # not every container lets one ask
        return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return set()


@contextlib.contextmanager
def leaves_nothing(case: str, root: Path):
    """Afterwards no process of the runs under `root` lives, and within 15 s each GPU holds what it held before.

    Yields a dictionary for what `at_step` sees during the run. In a container the driver may number processes in its
    own way, so that memory is what decides.
    """
    before, seen = gpus(), {}
    yield seen
    members = seen.get("members", [])
    assert survivors(members) == []
    assert [process for run in root.glob("*/*") for process in control.members(run)] == []

    def is_back() -> bool:
        ours = {process.pid for process in members}
        looks = zip(gpus(), before, strict=True)
        return all(used <= was + 50 and not (now - then) & ours for (used, now), (was, then) in looks)

    deadline = time.monotonic() + 15
    while not (back := is_back()) and time.monotonic() < deadline:
        time.sleep(0.2)
    looks = {"before": before, "during": seen.get("during", []), "after": gpus()}
    memory = {when: [used for used, _ in look] for when, look in looks.items()}
    note(case, MiB_in_use=memory)
    assert back, f"memory or a process stayed: {looks}"
    grown = [used - was for used, was in zip(memory["during"], memory["before"], strict=False)]
    assert max(grown, default=501) > 500, "this look at memory sees what a run uses"


def at_step(step: int, root: Path, seen: dict, fault) -> None:
    """Once the run under `root` has taken that step: look at it, then do `fault(all its processes, its ranks)`."""

    def run_at_step():
        for log in root.glob("*/*/log.txt"):
            if any(found.step >= step for line in log.read_text().splitlines() if (found := logs.parse_step(line))):
                return log.parent

    def watch():
        run = wait_for(run_at_step, f"step {step}")
        members, torchrun = control.members(run), control.read_status(run)["torchrun_pid"]
        ranks = {int(process.environ()["RANK"]): process for process in members if process.ppid() == torchrun}
        seen.update(members=members, during=gpus())
        fault(members, ranks)

    threading.Thread(target=watch, daemon=True).start()


def kill_all(members, ranks):
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


# ---- four ways to end ------------------------------------------------------------------------------------------------
def test_an_interrupted_cell(endless, small_corpus, tmp_path):
    with leaves_nothing("interrupt", tmp_path) as seen, pytest.raises(KeyboardInterrupt):
        at_step(5, tmp_path, seen, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        launch.train(endless, small_corpus, runs_dir=tmp_path, machine=MACHINE)
    assert len(seen["members"]) >= 2 + RANKS  # supervisor, torchrun, ranks
    assert runs.latest(endless.name, tmp_path).state == "stopped"


@takes_two
def test_a_killed_worker_is_named(endless, small_corpus, tmp_path):
    with leaves_nothing("killed worker", tmp_path) as seen, pytest.raises(launch.TrainingFailed) as failed:
        at_step(5, tmp_path, seen, lambda _, ranks: ranks[1].kill())
        launch.train(endless, small_corpus, runs_dir=tmp_path, machine=MACHINE)
    error = failed.value
    note("killed worker", message=opening(error))
    assert error.rank == 1 and "rank 1 was killed by SIGKILL" in str(error)
    assert error.cause and error.fix


@takes_two
def test_the_rank_that_a_collective_waits_for_is_named(endless, small_corpus, tmp_path):
    """Rank 1 is stopped; the others wait in the all-reduce of their gradients."""
    with leaves_nothing("hang", tmp_path) as seen, pytest.raises(launch.TrainingFailed) as failed:
        at_step(5, tmp_path, seen, lambda _, ranks: ranks[1].suspend())
        launch.train(endless, small_corpus, runs_dir=tmp_path, machine=MACHINE, hang_timeout_seconds=10)
    error = failed.value
    note("hang", message=opening(error))
    assert error.rank == 1 and "rank 1 hangs: no step for " in str(error) and "the process was stopped" in str(error)
    assert "No step was finished" in error.cause and error.traceback


@takes_a_gpu
def test_a_full_gpu_is_named(small, small_corpus, tmp_path):
    """The test itself holds all but 3 GiB of the first GPU, so a run that preflight lets through finds no room."""
    import torch

    held = torch.empty(torch.cuda.mem_get_info()[0] - 3 * 2**30, dtype=torch.uint8, device="cuda")
    try:
        with leaves_nothing("out of memory", tmp_path), pytest.raises(launch.TrainingFailed) as failed:
            launch.train(small, small_corpus, runs_dir=tmp_path, machine=MACHINE)
    finally:
        del held
        torch.cuda.empty_cache()
    error = failed.value
    note("out of memory", message=opening(error))
    assert error.rank == 0 and "CUDA out of memory" in error.traceback
    assert "The GPU's memory is full" in error.cause and "--micro-batch-size" in error.fix


# ---- killed and picked up --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "changes", "tolerance"),
    [
        ("deterministic", {"extra_flags": ("--deterministic-mode",)}, 0.0),
        ("kernel by kernel", {}, 0.02),
        pytest.param("CUDA graph", {"cuda_graph": True}, 0.02, marks=takes_transformer_engine),
    ],
    ids=["deterministic", "ordinary", "graph"],
)
def test_killed_at_a_random_step_and_picked_up(small, small_corpus, tmp_path, case, changes, tolerance):
    """With evaluations between the checkpoints; the deterministic run's losses must be equal to the last bit."""
    recipe = small.with_(train_iters=STEPS, eval_interval=10, save_interval=10, **changes)
    seed = int(os.environ.get("KILL_SEED") or time.time())
    point = random.Random(f"{seed} {case}").randint(11, 30)

    def train(root):
        return launch.train(recipe, small_corpus, runs_dir=tmp_path / root, machine=MACHINE)

    with leaves_nothing(f"{case}, undisturbed", tmp_path / "undisturbed"):
        undisturbed = train("undisturbed")
    with leaves_nothing(f"{case}, killed", tmp_path / "killed") as seen, pytest.raises(launch.TrainingFailed) as failed:
        at_step(point, tmp_path / "killed", seen, kill_all)
        train("killed")
    with leaves_nothing(f"{case}, picked up", tmp_path / "killed"):
        resumed = train("killed")

    assert resumed.path == failed.value.run_directory.resolve()
    assert "successfully loaded checkpoint" in resumed.log_tail(10**6)
    for run in (undisturbed, resumed):
        assert run.state == "finished" and "but the ranks did not end" not in run.log_tail(10**6), "it ends by itself"
    differences = {}
    for tag, steps in (("lm loss", range(1, STEPS + 1)), ("lm loss validation", range(10, STEPS + 1, 10))):
        one, other = undisturbed.series(tag), resumed.series(tag)
        assert list(one.index) == list(other.index) == list(steps)
        differences[tag] = float((one - other).abs().max())
    last, found = float(undisturbed.losses.iloc[-1]), ", ".join(f"{tag} {d:.2e}" for tag, d in differences.items())
    note(case, seed=seed, killed_at=point, largest_difference=found, final_loss=last)
    assert max(differences.values()) <= tolerance
