"""What a machine does in a second, measured beside the first step of a short training run: raw times, one line of JSON.

    torchrun --nproc-per-node 2 helpers/ranks/calibration.py <flags of a training run on made-up tokens>

Trains as `pretrain_gpt.py` does, with the flags' own model on one rank for each device. Before the first step rank 0
measures alone what one device does, then all ranks what they send each other; then they train. Rank 0 prints
`CALIBRATION {json}`; work in FLOPs, bytes or elements, times in seconds:

- `products`: format → [FLOPs, time] of single GEMMs; `elementwise`: [bytes, time] of norms and GELU,
- `attention`: one entry a case: its sizes, dropout, and the time forward and backward; `dropout`: [elements, time],
- `kernel`: one kernel that does next to nothing, in a CUDA graph (0 on a CPU),
- `floor`: one sample of the model, forward and backward: its time and its launches,
- `links`: [ranks, bytes on the wire of one rank, time] of each collective, and `steps`: every training step.
"""

import itertools
import json
import os
import statistics
import time
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before Megatron is imported

from megatron.core.fusions.fused_bias_dropout import bias_dropout_add_fused_train
from megatron.core.utils import unwrap_model

from helpers.ranks import micro_batches, pretrain_gpt

MARK = "CALIBRATION "
DROPPED = 0.1
# tokens, outputs, inputs of GEMMs: of small layers on a CPU, of GPT3-345M and Llama3-8B on a GPU
CPU_SHAPES = ((128, 256, 64), (512, 384, 128), (512, 512, 128), (512, 128, 512), (512, 4096, 128))
SLOW_SHAPES = ((64, 128, 64), (128, 128, 128))  # for bf16 where a CPU has no instruction for it
GPU_SHAPES = ((4096, 1024, 1024), (8192, 3072, 1024), (32768, 4096, 1024), (32768, 1024, 4096))
GPU_SHAPES += ((8192, 6144, 4096), (8192, 28672, 4096), (8192, 4096, 14336))
FP8_SHAPES = GPU_SHAPES[-3:] + ((4096, 4096, 4096),)
GPU_SIZES = (2**18, 2**22, 2**26, 2**28)  # bytes of a collective's whole
CPU_SIZES = (2**14, 2**18, 2**20, 2**22)
CHUNK = {True: 0.02, False: 0.002}  # seconds of calls that are timed together, on a GPU or not
BUDGET = {True: 0.25, False: 0.1}  # seconds for one case: a GPU shall come to the clock that its power allows
LEAST = 5  # chunks
OUT_OF_CACHE = 2**28  # bytes: five times the L2 cache of a H100
TOGETHER = 8  # collectives that a GPU is given at once, so that it does not wait for its host
TINY = 1000  # kernels of one element in a CUDA graph


def on_gpu() -> bool:
    return micro_batches.on_gpu()


def clock() -> float:
    """Seconds; on a CPU those that this process had it for, since others use it too."""
    return time.perf_counter() if on_gpu() else time.process_time()


def seconds(function, budget: float | None = None) -> float:
    """Of one call among many in a row, waited for in the end: the median; on a CPU, where others get in between, the
    lowest tenth."""
    for _ in range(2):
        torch.cuda.synchronize()
        start = clock()
        function()
        torch.cuda.synchronize()
        once = clock() - start
    together = max(1, int(CHUNK[on_gpu()] / once))
    times, end = [], clock() + (budget or BUDGET[on_gpu()])
    while len(times) < LEAST or clock() < end:
        start = clock()
        for _ in range(together):
            function()
        torch.cuda.synchronize()
        times.append((clock() - start) / together)
    return statistics.median(times) if on_gpu() else statistics.quantiles(times, n=10)[0]


def random(*shape, dtype=torch.float32, **options) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, device="cuda", **options)


def working() -> torch.dtype:
    """The format that layers are computed in here."""
    if not on_gpu():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


# ---- one device --------------------------------------------------------------------------------------------------
def products(shapes, dtype: torch.dtype) -> list[list[float]]:
    """A layer's three GEMMs of each shape: the output, the input's gradient, the weight's.

    On a GPU they go round several operands, more than its L2 cache holds: in a layer none of them is there.
    """
    found = []
    for m, n, k in shapes:
        moved = (m * k + n * k) * dtype.itemsize
        copies = range(1 + OUT_OF_CACHE // moved if on_gpu() else 1)
        x, weight, gradient = ([random(*shape, dtype=dtype) for _ in copies] for shape in ((m, k), (n, k), (m, n)))
        for lefts, rights in (
            (x, [one.t() for one in weight]),
            (gradient, weight),
            ([one.t() for one in gradient], x),
        ):
            turns = itertools.cycle(zip(lefts, rights, strict=True))
            found.append([2.0 * m * n * k, seconds(lambda turns=turns: torch.matmul(*next(turns)))])
    return found


def products_in_fp8(rounds: int = 5) -> list[list[float]]:
    """The same in Transformer Engine's linear layer, per-tensor current scaling: its three longest kernels."""
    import transformer_engine.pytorch as te
    from transformer_engine.common import recipe

    found, scaling = [], recipe.Float8CurrentScaling()
    for m, n, k in FP8_SHAPES:
        layer = te.Linear(k, n, bias=False, params_dtype=torch.bfloat16, device="cuda")
        x = random(m, k, dtype=torch.bfloat16, requires_grad=True)

        def forward_backward(layer=layer, x=x):
            with te.autocast(recipe=scaling) if hasattr(te, "autocast") else te.fp8_autocast(fp8_recipe=scaling):
                output = layer(x)
            output.backward(output.detach())

        seconds(forward_backward)  # it warms the GPU up
        kernels = sorted(
            micro_batches.kernel_microseconds(lambda call=forward_backward: [call() for _ in range(rounds)])
        )
        found.append([2.0 * m * n * k, statistics.fmean(kernels[-3 * rounds :]) * 1e-6])
    return found


def elementwise(model) -> list[list[float]]:
    """On a GPU the model's norm and GELU, forward (an element read, one written) and backward (two read, one written).
    On a CPU, where Megatron's functions run operation by operation, four of these."""
    if not on_gpu():
        x, y = random(512, 512), random(512, 512)
        cases = ((3, torch.mul, (x, y)), (3, torch.add, (x, y)), (2, torch.tanh, (x,)), (2, torch.exp, (x,)))
        return [[passes * 4 * x.numel(), seconds(partial(function, *inputs))] for passes, function, inputs in cases]
    x = random(2**19, model.config.hidden_size, dtype=working(), requires_grad=True)  # else it waits for its host
    found = []
    for function in (model.decoder.final_layernorm, partial(F.gelu, approximate="tanh")):
        taken = both(partial(function, x), x)
        found += [[passes * 2 * x.numel(), one] for passes, one in zip((2, 3), taken, strict=True)]
    return found


def both(function, inputs) -> tuple[float, float]:
    """Seconds of a function of `inputs`, forward and backward; each backward after a forward of its own, since
    Transformer Engine lets go of what it has kept for one."""
    gradient = torch.ones_like(function())
    forward = seconds(function)
    return forward, seconds(lambda: torch.autograd.grad(function(), inputs, gradient)) - forward


def attention(model) -> list[dict[str, float]]:
    """The attention core between the projections: Transformer Engine's, else that of Megatron's first layer.

    The last two differ by their dropout alone, and are large enough that a GPU does not wait for its host.
    """
    config, core = model.config, model.decoder.layers[0].self_attention.core_attention
    if on_gpu() and config.transformer_impl == "transformer_engine":
        cases = ((32, 128, 8192, 1, 0.0), (16, 64, 1024, 256, 0.0), (16, 64, 1024, 256, DROPPED))
        return [core_times(fused(*case[:2], case[-1]), *case) for case in cases]
    found = []
    for dropped in (0.0, DROPPED):
        core.attention_dropout.p = dropped
        shape = (config.num_attention_heads, config.kv_channels, 1024 if on_gpu() else 128, 4)
        found.append(core_times(lambda q, k, v: core(q, k, v, None), *shape, dropped))
    core.attention_dropout.p = config.attention_dropout
    return found


def fused(heads: int, channels: int, dropped: float):
    import transformer_engine.pytorch as te

    return te.DotProductAttention(heads, channels, attention_dropout=dropped, attn_mask_type="causal")


def core_times(core, heads: int, channels: int, length: int, samples: int, dropped: float) -> dict[str, float]:
    shape = {"samples": samples, "heads": heads, "length": length, "channels": channels}
    q, k, v = (random(length, samples, heads, channels, dtype=working(), requires_grad=True) for _ in range(3))
    forward, backward = both(lambda: core(q, k, v), (q, k, v))
    return {"dropout": dropped, **shape, "forward": forward, "backward": backward}


def dropout(model) -> list[float]:
    """On a GPU as Megatron compiles it: bias, dropout and residual in one kernel. On a CPU dropout alone."""
    if not on_gpu():
        x = random(2**16)
        return [x.numel(), seconds(lambda: F.dropout(x, DROPPED))]
    x, residual = (random(2**18, model.config.hidden_size, dtype=working(), requires_grad=True) for _ in range(2))
    bias = random(model.config.hidden_size, dtype=working(), requires_grad=True)
    return [x.numel(), seconds(lambda: bias_dropout_add_fused_train((x, bias), residual, DROPPED))]


def kernel() -> float:
    """One of many kernels of one element in a CUDA graph."""
    if not on_gpu():
        return 0.0
    number, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
    number.add_(1.0)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL's watchdog asks the driver meanwhile
        for _ in range(TINY):
            number.add_(1.0)
    return seconds(graph.replay) / TINY


def floor(model) -> dict[str, float]:
    function = micro_batches.work(model, 1)
    taken = seconds(function, 0.6)
    return {"seconds": taken, "launches": micro_batches.launches(function)[0]}


def alone(model) -> dict:
    """What one device does, while the others wait."""
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if on_gpu():
        formats = {"bf16": products(GPU_SHAPES, working())}
        if model.config.transformer_impl == "transformer_engine" and torch.cuda.get_device_capability() >= (8, 9):
            formats["fp8"] = products_in_fp8()
    else:
        slow = CPU_SHAPES if fast else SLOW_SHAPES
        formats = {"fp32": products(CPU_SHAPES, torch.float32), "bf16": products(slow, torch.bfloat16)}
    return {
        "products": formats,
        "elementwise": elementwise(model),
        "attention": attention(model),
        "dropout": dropout(model),
        "kernel": kernel(),
        "floor": floor(model),
    }


# ---- all of them -------------------------------------------------------------------------------------------------
def links() -> list[list[float]]:
    """Collectives of the first 2, 4, 8 … ranks, while the others wait."""
    found, world = [], dist.get_world_size()
    for ranks in (2**power for power in range(1, world.bit_length())):
        group = dist.new_group(range(ranks))
        if dist.get_rank() < ranks:
            for size in GPU_SIZES if on_gpu() else CPU_SIZES:
                found += collectives(group, ranks, size)
        dist.barrier()
    return found


def collectives(group, ranks: int, size: int) -> list[list[float]]:
    whole = torch.zeros(size // 4, device="cuda")
    part = torch.zeros(size // 4 // ranks, device="cuda")
    share = (ranks - 1) / ranks * size
    return [
        [ranks, wire, between_ranks(function, group)]
        for wire, function in (
            (share, lambda: dist.all_gather_into_tensor(whole, part, group=group)),
            (share, lambda: dist.reduce_scatter_tensor(part, whole, group=group)),
            (2 * share, lambda: dist.all_reduce(whole, group=group)),
        )
    ]


def between_ranks(collective, group, calls: int = 12) -> float:
    """Seconds of one collective, the lower quartile; as many calls on every rank."""
    times, together = [], TOGETHER if on_gpu() else 1
    for _ in range(calls):
        dist.barrier(group)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(together):
            collective()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / together)
    return statistics.quantiles(times[2:], n=4)[0]


# ---- beside a training run ---------------------------------------------------------------------------------------
def measured(model) -> dict:
    """Rank 0's findings; on the others what they saw of the collectives."""
    waiting = dist.new_group(backend="gloo")  # unlike NCCL's, its barrier keeps no processor busy
    found = alone(unwrap_model(model)) if dist.get_rank() == 0 else {}
    dist.barrier(waiting)
    return found | {"links": links()}


def main() -> None:
    found, begun = {}, []
    forward_step = pretrain_gpt.forward_step

    def timed_forward_step(data_iterator, model, *rest):
        if not found:
            found.update(measured(model))
        begun.append(clock())
        return forward_step(data_iterator, model, *rest)

    pretrain_gpt.forward_step = timed_forward_step
    pretrain_gpt.main()
    if os.environ["RANK"] == "0":
        found["steps"] = [after - before for before, after in itertools.pairwise(begun)]
        print(MARK + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
