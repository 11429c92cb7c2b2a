"""Real training in tests: a small corpus written here, a small GPT, torchrun, and the losses read to the last bit."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).parents[1]
ENTRY_SCRIPT = "helpers/ranks/pretrain_gpt.py"
STEPS = 12
VOCABULARY = 256


def words(flags: str) -> list[str]:
    return flags.split()


MODEL = words(
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 64 --max-position-embeddings 64 "
    "--hidden-dropout 0 --attention-dropout 0"
)
TRAINING = words(
    f"--micro-batch-size 2 --global-batch-size 8 --train-iters {STEPS} --lr 3e-3 --lr-decay-style cosine "
    "--min-lr 3e-4 --lr-warmup-iters 2 --weight-decay 0.1 --clip-grad 1.0 --adam-beta2 0.95 --seed 1234 "
    f"--eval-interval {STEPS} --eval-iters 1 --log-interval 1"
)
DEVICE = words(
    "--distributed-backend gloo --transformer-impl local --no-persist-layer-norm --no-gradient-accumulation-fusion "
    "--use-cpu-initialization --num-workers 0"
)


def data_flags(folder: Path) -> list[str]:
    flags = words(f"--split 90,10,0 --tokenizer-type NullTokenizer --vocab-size {VOCABULARY - 1}")
    flags += ["--padded-vocab-size", str(VOCABULARY)]
    return [*flags, "--data-path", str(folder / "corpus"), "--data-cache-path", str(folder / "cache")]


def write_corpus(folder: Path) -> None:
    """`corpus.bin` and `corpus.idx`: 200 documents in which one token follows another by a rule, nine times of ten."""
    random = np.random.default_rng(0)
    documents = []
    for length in random.integers(100, 400, size=200):
        tokens, surprises = np.empty(length, dtype=np.int64), random.random(length) < 0.1
        tokens[0] = random.integers(VOCABULARY - 1)
        for i in range(1, length):
            tokens[i] = random.integers(VOCABULARY - 1) if surprises[i] else (5 * tokens[i - 1] + 7) % (VOCABULARY - 1)
        documents.append(np.append(tokens, VOCABULARY - 1).astype("<u2"))
    lengths = np.array([len(document) for document in documents], dtype="<i4")
    pointers = np.concatenate(([0], np.cumsum(lengths[:-1], dtype=np.int64) * 2)).astype("<i8")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1)
    (folder / "corpus.bin").write_bytes(np.concatenate(documents).tobytes())
    (folder / "corpus.idx").write_bytes(
        header + lengths.tobytes() + pointers.tobytes() + np.arange(len(lengths) + 1, dtype="<i8").tobytes()
    )


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MEGATRON_CPU": "1"}


def torchrun(processes: int, *script_and_arguments: str) -> list[str]:
    torchrun = [sys.executable, "-m", "helpers.ranks.torchrun", "--nproc-per-node", str(processes)]
    return [*torchrun, *map(str, script_and_arguments)]


def run(processes: int, *script_and_arguments: str) -> str:
    """What the ranks printed; fails with the end of it if one of them failed."""
    command = torchrun(processes, *script_and_arguments)
    done = subprocess.run(
        command, cwd=PROJECT, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def train(folder: Path, name: str, processes: int, *flags: str, script: tuple[str, ...] = (ENTRY_SCRIPT,)) -> dict:
    """Train on the corpus in `folder` with `flags` beside the usual ones; {step: loss}, each loss as the float32 it is.

    Flags given last win, so `flags` may say something else about the model or the training.
    """
    board = folder / "tensorboard" / name
    run(processes, *script, *MODEL, *TRAINING, *DEVICE, *data_flags(folder), "--tensorboard-dir", str(board), *flags)
    return read_losses(board)


def read_losses(board: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(board), size_guidance={"scalars": 0}).Reload()
    return {event.step: event.value for event in events.Scalars("lm loss")}


def largest_difference(losses: dict[int, float], expected: dict[int, float]) -> float:
    assert losses, "no step was logged"
    return max(abs(loss - expected[step]) for step, loss in losses.items())


# ---- NVIDIA's own pretrain_gpt.py, as the expectation ------------------------------------------------------------
LLAMA = words(
    "--bf16 --no-masked-softmax-fusion --swiglu --normalization RMSNorm --disable-bias-linear "
    "--position-embedding-type rope --no-rope-fusion --rotary-base 500000 --untie-embeddings-and-output-weights "
    "--group-query-attention --num-query-groups 2 --ffn-hidden-size 96 --hidden-dropout 0.1 --attention-dropout 0.1 "
    "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
)
EXPERTS = words(
    "--num-experts 4 --moe-router-topk 2 --moe-token-dispatcher-type alltoall --moe-aux-loss-coeff 0.01 "
    "--disable-bias-linear --moe-ffn-hidden-size 64"
)
CASES = {  # name: (processes, flags), each also run with NVIDIA's own script
    "GPT": (1, []),
    "GPT, TP2+SP": (2, words("--tensor-model-parallel-size 2 --sequence-parallel")),
    "Llama in bf16, dropout, recompute": (1, LLAMA),
    "mixture of experts, EP2": (2, [*EXPERTS, *words("--expert-model-parallel-size 2")]),
}


def usual_flags(folder: Path | str) -> str:
    """The flags that all cases share, as one line."""
    return " ".join([*MODEL, *TRAINING, *DEVICE, *data_flags(Path(folder))])


UPSTREAM = Path(__file__).parent / "upstream_losses.json"


def processor() -> str:
    """What decides the last bits of a sum on a CPU: its model, and the instructions that torch uses on it."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(models or ['unknown'])[0]}, {torch.backends.cpu.get_cpu_capability()}"


def record_upstream(clone: Path, folder: Path) -> None:
    """Run every case with the `pretrain_gpt.py` of `clone` and write its losses to `upstream_losses.json`.

    The clone's index helpers must be built: `make -C megatron/core/datasets`, or the wheel's helpers_cpp*.so there.
    """
    import json
    from importlib.metadata import version

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", clone, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert not git("status", "--porcelain", "--untracked-files=no"), f"{clone} is not as NVIDIA published it"
    write_corpus(folder)
    script = ("-m", "helpers.ranks.cpu.device", str(clone / "pretrain_gpt.py"))
    cases = {
        name: {
            "processes": processes,
            "flags": " ".join(flags),
            "losses": train(folder, name, processes, *flags, script=script),
        }
        for name, (processes, flags) in CASES.items()
    }
    record = {
        "what": "losses of NVIDIA's own pretrain_gpt.py, unmodified, on a CPU through helpers.ranks.cpu.device",
        "upstream": "https://github.com/NVIDIA/Megatron-LM",
        "commit": git("rev-parse", "HEAD"),
        "torch": version("torch"),
        "processor": processor(),
        "flags": usual_flags("{folder}"),
        "cases": cases,
    }
    UPSTREAM.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":  # python tests/real_runs.py ../Megatron-LM
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record_upstream(Path(sys.argv[1]).resolve(), Path(folder))
