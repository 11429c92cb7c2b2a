"""A rank without the others: numbers in the place of theirs, kernels counted, memory summed."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent

from helpers.machine import PROJECT
from helpers.ranks import one_rank

COLLECTIVES = """
import json, torch, torch.distributed as dist
from helpers.ranks import alone
alone.give_numbers()
from torch.testing._internal.distributed.fake_pg import FakeStore

dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
def unknown(*shape):
    return torch.full(shape, float("nan"))
given, part, received, sent, batched = torch.arange(8.0), unknown(2), unknown(3), unknown(8), unknown(3)
dist.reduce_scatter_tensor(part, given)
dist.irecv(received.requires_grad_(), src=0).wait()
dist.all_to_all_single(sent, given)
for work in dist.batch_isend_irecv([dist.P2POp(dist.irecv, batched, 0), dist.P2POp(dist.isend, given, 2)]):
    work.wait()
buffer = torch.arange(8.0)
dist.reduce_scatter_tensor(buffer[2:4], buffer)
counts, bytes = torch.full((4,), -7), torch.full((64,), 127, dtype=torch.uint8)
dist.recv(counts, src=0)
dist.recv(bytes, src=0)
finite = [bool(tensor.isfinite().all()) for tensor in (received, sent, batched)]
print(json.dumps([part.tolist(), finite, buffer.tolist(), counts.tolist(), int(bytes.max()) < 64]))
"""


def test_what_others_would_have_sent_is_a_number():
    done = subprocess.run([sys.executable, "-c", COLLECTIVES], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    part, finite, buffer, counts, small = json.loads(done.stdout.splitlines()[-1])
    assert part == [2.0, 3.0]  # this rank's own
    assert finite == [True] * 3 and small
    assert buffer == [float(number) for number in range(8)] and counts == [0] * 4


def ran(name: str, start: float, end: float, is_user_annotation: bool = False) -> FunctionEvent:
    """What a GPU did from `start` to `end` µs, as PyTorch's profiler gives it."""
    gpu = torch.autograd.DeviceType.CUDA
    return FunctionEvent(0, name, 7, start, end, device_type=gpu, is_user_annotation=is_user_annotation)


def operation(name: str, *launched: FunctionEvent, children: tuple[FunctionEvent, ...] = ()) -> FunctionEvent:
    """What a processor did: it launched that."""
    event = FunctionEvent(0, name, 1, 0, 1)
    for kernel in launched:
        event.append_kernel(kernel.name, 0, kernel.time_range.elapsed_us())
    for child in children:
        event.append_cpu_child(child)
        child.set_cpu_parent(event)
    return event


def test_kernels_at_once_count_once_and_those_of_collectives_not_at_all():
    gemm, beside, moved, drawn = ran("g", 0, 1000), ran("b", 500, 1500), ran("m", 2000, 2500), ran("d", 3000, 3100)
    stretch, step = ran("c10d::instead", 3000, 3100, True), ran("Optimizer.step", 0, 9000, True)
    copy, fill = operation("aten::copy_", moved), operation("aten::normal_", drawn)
    inner = operation("c10d::_allgather_base_", children=(copy,))
    events = [operation("aten::mm", gemm, beside), copy, fill, inner, operation("c10d::outer", children=(inner,))]
    events += [operation("c10d::instead", stretch, children=(fill,)), gemm, beside, moved, drawn, stretch, step]
    found = one_rank.work(events)
    assert found == {"busy_milliseconds": 1.5, "instead_milliseconds": 0.6, "kernels": 2}


def test_a_step_whose_optimizer_was_left_out_is_not_measured():
    watch = one_rank.Watch(lambda *_: ({}, 1, False), warm_up=1, timed=2, steps=2, used_before=0)
    synchronize, torch.cuda.synchronize = torch.cuda.synchronize, lambda: None
    try:
        watch(None, None, None, None)
        with pytest.raises(RuntimeError, match="Step 2 left its optimizer out"):
            watch(None, None, None, None)
    finally:
        torch.cuda.synchronize = synchronize


def test_memory_that_weights_and_optimizer_share_counts_once():
    weight = torch.nn.Parameter(torch.zeros(10))
    chunk = torch.nn.Module()
    chunk.weight = weight
    chunk.buffers = [SimpleNamespace(grad_data=torch.zeros(12))]  # padded
    chunk.expert_parallel_buffers = []
    optimizer = SimpleNamespace(optimizer=torch.optim.Adam([weight[:5].detach()]))
    optimizer.optimizer.state[weight] = {"exp_avg": torch.zeros(5), "step": 3}
    held = one_rank.state_bytes([chunk], optimizer)
    assert held == {"weights": 40, "gradients": 48, "optimizer": 20}
