"""All-reduce and all-gather between the ranks, timed, and every element of every result compared with the right one.

    torchrun … helpers/ranks/collectives.py [bytes …]

What is found is told as `ranks/probe` tells it; each rank also tells what torchrun set for it.
"""

import os
import sys
import time
from collections.abc import Sequence

from helpers.ranks import start

if __name__ == "__main__":
    start.before_torch()

import torch
import torch.distributed as dist

from helpers.ranks.probe import median, tell

SIZES = (4 * 2**10, 256 * 2**10, 4 * 2**20, 32 * 2**20)
GPU_SIZES = (*SIZES, 256 * 2**20)
SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def main(sizes: Sequence[str]) -> None:
    """All-reduce and all-gather of several sizes; every element of every result is compared with the right one."""
    on_gpu = os.environ.get("MEGATRON_CPU") != "1" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    tell("torchrun", **{name: os.environ.get(name, "") for name in SET_BY_TORCHRUN})
    for size in map(int, sizes) if sizes else GPU_SIZES if on_gpu else SIZES:
        for step, measure in (("all-reduce", measure_all_reduce), ("all-gather", measure_all_gather)):
            facts = measure(size, device)
            if dist.get_rank() == 0:
                tell(step, bytes=size, backend=dist.get_backend(), processes=dist.get_world_size(), **facts)
    dist.destroy_process_group()


def measure_all_reduce(size: int, device) -> dict:
    """Sum `size` bytes of float32 over the ranks. The right sum is known: rank r adds (r + 1) · pattern."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    pattern = torch.arange(size // 4, device=device, dtype=torch.float32) % 997
    result = pattern * (rank + 1)
    dist.all_reduce(result)
    wrong = (result != pattern * (ranks * (ranks + 1) // 2)).sum()
    result.zero_()
    seconds = seconds_between_ranks(lambda: dist.all_reduce(result), device)
    return summary(wrong, seconds, 2 * (ranks - 1) / ranks * size)


def measure_all_gather(size: int, device) -> dict:
    """Gather float32 parts of `size` / ranks bytes: rank r gives r + 1 in every element."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    part = torch.full((size // 4 // ranks,), rank + 1.0, device=device)
    result = torch.empty(ranks * len(part), device=device)
    dist.all_gather_into_tensor(result, part)
    wrong = sum((piece != r + 1).sum() for r, piece in enumerate(result.chunk(ranks)))
    seconds = seconds_between_ranks(lambda: dist.all_gather_into_tensor(result, part), device)
    return summary(wrong, seconds, (ranks - 1) / ranks * size)


def seconds_between_ranks(collective, device, budget_seconds: float = 0.3) -> float:
    """Median time of one collective as rank 0 sees it. All ranks make the same number of calls."""

    def once() -> float:
        dist.barrier()
        start = time.perf_counter()
        collective()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = torch.tensor([max(once() for _ in range(2))], device=device)
    dist.all_reduce(first, dist.ReduceOp.MAX)
    calls = max(3, min(50, int(budget_seconds / first.item())))
    return median([once() for _ in range(calls)])


def summary(wrong, seconds: float, bus_bytes: float) -> dict:
    """Wrong elements of all ranks together, and the bus bandwidth (what nccl-tests calls busbw)."""
    dist.all_reduce(wrong)
    return {"wrong_elements": int(wrong.item()), "seconds": seconds, "bus_bytes_per_second": bus_bytes / seconds}


if __name__ == "__main__":
    main(sys.argv[1:])
