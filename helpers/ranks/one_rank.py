"""One rank of a job of any size, run alone: what it holds in memory, and how long it computes.

    torchrun --nproc-per-node 1 helpers/ranks/one_rank.py 6 8 4 3 <flags of a training run> --fake-process-group

Rank 6 of 8 trains as it would beside the others, by Megatron's own `pretrain`, with made-up collectives (`alone`). It
tells of no loss: what it computes is not a model's. The first 4 steps are not timed, and the last 3 run under
PyTorch's profiler. At the end one line, `ONE_RANK {json}`:

- `milliseconds`: wall time of each timed step, from one synchronization to the next,
- `busy_milliseconds`: of a step, in which the GPU ran kernels other than those that stand in for collectives;
  `instead_milliseconds`: the latter's; `kernels`: how many others there were. All None on a CPU,
- `peak_bytes`, `reserved_bytes`: of PyTorch's allocator, from the start on; on a CPU what the process grew by,
- `outside_bytes`: what the GPU's memory lost beside them, to CUDA's context and the libraries (by NVML; no NCCL is
  started); None on a CPU,
- `state_bytes`: what weights, gradients and optimizer hold of the first two, in bytes.
"""

import contextlib
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator

from helpers.ranks import lifetime

if __name__ == "__main__":
    lifetime.end_with_torchrun()

import pynvml
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks import alone
from helpers.ranks.repairs import table

MARK = "ONE_RANK "


def become(rank: int, world_size: int) -> None:
    """Be that rank for Megatron, which reads it from torchrun's variables."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0")


def on_gpu() -> bool:
    return torch.cuda.get_device_name() != "cpu"


def used_memory() -> int | None:
    """Bytes of the first visible GPU's memory that are taken, by whomever; None where NVML has no number.

    Asked of NVML itself: torch's function for it would begin by taking some.
    """
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda._get_nvml_device_index(0))
        return pynvml.nvmlDeviceGetMemoryInfo(handle).used
    return None


def tell(found: dict) -> None:
    print(MARK + json.dumps(found), flush=True)


class Watch:
    """Stands in the place of Megatron's `train_step`, measures each call, and tells what it found after the last.

    Steps are numbered from 1: those after `warm_up` are timed, those after `timed` run under the profiler.
    """

    def __init__(self, step, warm_up: int, timed: int, steps: int, used_before: int | None):
        self.step, self.warm_up, self.timed, self.steps = step, warm_up, timed, steps
        self.used_before = used_before
        self.milliseconds: list[float] = []
        self.profiles: list[dict] = []

    def __call__(self, forward_step, data, model, optimizer, *others, **options):
        number = len(self.milliseconds) + 1
        with profiler(number > self.timed) as profile:
            torch.cuda.synchronize()
            start = time.perf_counter()
            result = self.step(forward_step, data, model, optimizer, *others, **options)
            torch.cuda.synchronize()
            self.milliseconds.append(1e3 * (time.perf_counter() - start))
        if profile:
            self.profiles.append(work(profile.events()))
        _, skipped, *_ = result
        if skipped and number > self.warm_up:
            raise RuntimeError(f"Step {number} left its optimizer out, for a gradient was inf or NaN.")
        if number == self.steps:
            tell(self.found() | {"state_bytes": state_bytes(model, optimizer)})
        return result

    def found(self) -> dict:
        peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        outside = None
        if on_gpu() and self.used_before is not None:
            outside = used_memory() - self.used_before - torch.cuda.memory_reserved()
        medians = {name: statistics.median(one[name] for one in self.profiles) for name in (self.profiles or [{}])[0]}
        return {
            "milliseconds": self.milliseconds[self.warm_up : self.timed],
            "busy_milliseconds": medians.get("busy_milliseconds"),
            "instead_milliseconds": medians.get("instead_milliseconds"),
            "kernels": medians.get("kernels"),
            "peak_bytes": peak,
            "reserved_bytes": reserved,
            "outside_bytes": outside,
        }


# ---- what a GPU did ----------------------------------------------------------------------------------------------
def profiler(wanted: bool):
    """PyTorch's profiler of kernels and of what launched them; nothing on a CPU."""
    if not wanted or not on_gpu():
        return contextlib.nullcontext()
    kinds = torch.profiler.ProfilerActivity
    return torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA])


def work(events) -> dict:
    """Of one step's profile: milliseconds and number of the kernels and copies, those inside of collectives apart.

    Kernels of two streams that ran at once count once. The names that torch gives to stretches of time are no kernels.
    """
    gpu = torch.autograd.DeviceType.CUDA
    spans = [event.time_range for event in events if event.device_type == gpu and not event.is_user_annotation]
    instead = [kernel for event in events if is_collective(event) for kernel in launched(event)]
    ends, busy = 0.0, 0.0
    for start, end in sorted((span.start, span.end) for span in spans):
        busy += max(0.0, end - max(start, ends))
        ends = max(ends, end)
    spent = sum(kernel.duration for kernel in instead)
    return {
        "busy_milliseconds": (busy - spent) / 1e3,
        "instead_milliseconds": spent / 1e3,
        "kernels": len(spans) - len(instead),
    }


def is_collective(event) -> bool:
    """Whether a processor entered a collective there, and was in none yet."""
    by_processor = event.device_type == torch.autograd.DeviceType.CPU and event.name.startswith(alone.COLLECTIVE)
    return by_processor and not (event.cpu_parent and event.cpu_parent.name.startswith(alone.COLLECTIVE))


def launched(event) -> Iterator:
    """The kernels that an operation launched, itself or by others; its own name, told of the GPU, is none."""
    yield from (kernel for kernel in event.kernels if kernel.name != event.name)
    for child in event.cpu_children:
        yield from launched(child)


# ---- what lies in memory -----------------------------------------------------------------------------------------
def state_bytes(model: list[torch.nn.Module], optimizer) -> dict[str, int]:
    """Bytes of the memory behind a rank's weights, gradients and optimizer state; what two of them share counts once.

    Padding of Megatron's buffers is in them.
    """
    parts = {"weights": weights(model), "gradients": gradients(model), "optimizer": moments(optimizer)}
    seen: set[int] = set()
    found = {}
    for name, tensors in parts.items():
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        found[name] = sum(storage.nbytes() for place, storage in storages.items() if place not in seen)
        seen |= storages.keys()
    return found


def weights(model: list[torch.nn.Module]) -> Iterator[torch.Tensor]:
    """A weight in FP8 is kept as bytes, once as it is and once transposed."""
    for parameter in (parameter for chunk in model for parameter in chunk.parameters()):
        kept = [getattr(parameter, name, None) for name in ("_data", "_transpose")]
        yield from [tensor for tensor in kept if tensor is not None] or [parameter]


def gradients(model: list[torch.nn.Module]) -> Iterator[torch.Tensor]:
    for chunk in model:
        yield from (buffer.grad_data for buffer in chunk.buffers + chunk.expert_parallel_buffers)


def moments(optimizer) -> Iterator[torch.Tensor]:
    """Adam's moments, and the fp32 weights that it steps."""
    for one in (one.optimizer for one in getattr(optimizer, "chained_optimizers", [optimizer])):
        yield from (parameter for group in one.param_groups for parameter in group["params"])
        yield from (value for state in one.state.values() for value in state.values() if torch.is_tensor(value))


# ---- the run -----------------------------------------------------------------------------------------------------
def watch_steps(warm_up: int, profiled: int, used_before: int | None = None) -> None:
    """Measure every step of the `pretrain` that comes next, as many as --train-iters says."""
    from megatron.training import training

    steps = int(sys.argv[sys.argv.index("--train-iters") + 1])
    training.train_step = Watch(training.train_step, warm_up, steps - profiled, steps, used_before)
    training.training_log = lambda *args, **options: False  # no loss of these numbers, and no gradient norm


def build_its_own_index(pretrain_gpt) -> None:
    """Let this rank build the sample index that it would find in the cache, made by rank 0 (`gpt_dataset.py:503`)."""
    build = pretrain_gpt.build_datasets

    @functools.wraps(build)
    def build_as_rank_0(*arguments, **options):
        get_rank = torch.distributed.get_rank
        torch.distributed.get_rank = lambda group=None: 0 if group is None else get_rank(group)
        try:
            return build(*arguments, **options)
        finally:
            torch.distributed.get_rank = get_rank

    pretrain_gpt.build_datasets = build_as_rank_0


@record
def main() -> None:
    rank, world_size, warm_up, profiled = (int(sys.argv.pop(1)) for _ in range(4))
    become(rank, world_size)
    used_before = used_memory()
    alone.give_numbers()
    table.apply()  # imports Megatron, which binds the collectives by name
    alone.begin_with_an_embedding()
    from helpers.ranks import pretrain_gpt

    build_its_own_index(pretrain_gpt)
    watch_steps(warm_up, profiled, used_before)
    pretrain_gpt.main()


if __name__ == "__main__":
    main()
