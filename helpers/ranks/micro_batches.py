"""How long one micro-batch takes, forward and backward, against its size: the floor, and where the work begins.

    torchrun --nproc-per-node 1 helpers/ranks/micro_batches.py 1,2,4,8 <flags of a training run>

Builds the model that the flags ask for, exactly as a training run does, and times it on random tokens, launched kernel
by kernel: no CUDA graph, no optimizer. Rank 0 prints one line, `MICRO_BATCHES {json}`:

- `sizes`, one entry each: size (samples), milliseconds (median of one forward and backward), launches (kernels that a
  GPU ran, or operations that PyTorch dispatched on a CPU) and busy_milliseconds (the kernels' own time; None on a CPU),
- `launch_microseconds`: what one launch costs the processor at least, from many additions to one number,
- `out_of_memory`: the size that did not fit any more, or None.
"""

import contextlib
import json
import statistics
import sys
import time

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before torch and Megatron are imported

import torch
import torch.distributed as dist
from megatron.training import get_args
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.ranks.shards import build_model

MARK = "MICRO_BATCHES "
WARM_UP, LEAST, SECONDS = 3, 7, 0.6  # calls before timing, calls timed at least, seconds timed at least
ADDITIONS = 2000


class Dispatched(TorchDispatchMode):
    """Counts the operations that pass PyTorch's dispatcher while it is entered."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def on_gpu() -> bool:
    return torch.cuda.get_device_name() != "cpu"


def work(model: torch.nn.Module, size: int):
    """A function that takes `size` samples of random tokens through the model, forward and backward."""
    args = get_args()
    shape = (size, args.seq_length)
    tokens = torch.randint(args.padded_vocab_size, shape, device="cuda")
    positions = torch.arange(args.seq_length, device="cuda").expand(shape)

    def forward_backward():
        model(tokens, positions, None, labels=tokens).float().mean().backward()

    return forward_backward


def median_milliseconds(function) -> float:
    times, begin = [], time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - begin < SECONDS:
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def launches(function) -> tuple[int, float | None]:
    """How much one call launches, and on a GPU for how many milliseconds kernels run."""
    if not on_gpu():
        with Dispatched() as dispatched:
            function()
        return dispatched.count, None
    kernels = kernel_microseconds(function)
    return len(kernels), sum(kernels) / 1e3


def kernel_microseconds(function) -> list[float]:
    """How long each kernel of one call runs on a GPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [event.time_range.elapsed_us() for event in kernels]


def launch_microseconds() -> float:
    """What one operation on one number costs the processor: so many additions, never waited for."""
    number = torch.zeros(1, device="cuda")
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(ADDITIONS):
            number.add_(1.0)
        microseconds = 1e6 * (time.perf_counter() - start) / ADDITIONS
        torch.cuda.synchronize()
    return microseconds


def measure(model: torch.nn.Module, sizes: list[int]) -> dict:
    found, full = [], None
    for size in sizes:
        try:
            function = work(model, size)
            for _ in range(WARM_UP):
                function()
            milliseconds = median_milliseconds(function)
            count, busy = launches(function)
        except torch.OutOfMemoryError:
            full = size
            break
        found.append({"size": size, "milliseconds": milliseconds, "launches": count, "busy_milliseconds": busy})
    return {"sizes": found, "launch_microseconds": launch_microseconds(), "out_of_memory": full}


@record
def main() -> None:
    sizes = [int(size) for size in sys.argv.pop(1).split(",")]
    with contextlib.redirect_stdout(sys.stderr):  # Megatron's own reports, beside the one line that is asked for
        found = measure(build_model(), sizes)
    if dist.get_rank() == 0:
        print(MARK + json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
