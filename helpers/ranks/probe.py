"""What a machine really does, asked in a process of its own: a crash here ends the probe, never the notebook.

    python -m helpers.ranks.probe software         what imports: PyTorch, Megatron, Transformer Engine
    python -m helpers.ranks.probe gpus             GEMM and memory of every visible GPU; FP8 and attention on the first

Each fact is one line, `PROBE {json}`, written as soon as it is known: what came before a crash is kept.
"""

import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
from pathlib import Path

MARK = "PROBE "


def tell(step: str, **facts) -> None:
    """Write one fact for the process that asked."""
    print(MARK + json.dumps({"step": step, **facts}), flush=True)


def attempt(step: str, function, *arguments) -> None:
    """Tell what `function` returns (a dict), or the error that it raised."""
    try:
        tell(step, **function(*arguments))
    except Exception as error:
        tell(step, error=f"{type(error).__name__}: {error}"[:600])


# --- software -------------------------------------------------------------------------------------------------------


def torch_facts() -> dict:
    import torch

    return {
        "version": torch.__version__,
        "path": os.path.dirname(torch.__file__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "nccl": list(torch.cuda.nccl.version()) if torch.distributed.is_nccl_available() else None,
        "gloo": torch.distributed.is_gloo_available(),
        "cuda_available": torch.cuda.is_available(),
        "architectures": torch.cuda.get_arch_list(),
    }


def megatron_facts() -> dict:
    """Version and parts of the installed megatron-core, found without the 6 s that importing it takes."""
    from importlib.metadata import version

    places = [Path(place) for place in importlib.util.find_spec("megatron").submodule_search_locations]
    training = [place for place in places if (place / "training" / "training.py").exists()]
    return {"version": version("megatron-core"), "training": bool(training), "path": str(places[0])}


def index_helpers_facts() -> dict:
    """Load the compiled index builder alone, as Megatron's datasets will."""
    from importlib.util import module_from_spec, spec_from_file_location

    places = [
        Path(place) / "core" / "datasets" for place in importlib.util.find_spec("megatron").submodule_search_locations
    ]
    found = [path for place in places for path in place.glob("helpers_cpp*.so")]
    if not found:
        raise FileNotFoundError(f"no helpers_cpp*.so in {places[0]}")
    spec = spec_from_file_location("helpers_cpp", found[0])
    spec.loader.exec_module(module := module_from_spec(spec))
    return {"path": str(found[0]), "builds_sample_index": hasattr(module, "build_sample_idx_int32")}


def transformer_engine_facts() -> dict:
    import torch  # noqa: F401  Transformer Engine finds libnccl only in a process that has torch loaded
    import transformer_engine
    import transformer_engine.pytorch

    return {"version": transformer_engine.__version__, "cudnn_loaded": loaded_libraries("libcudnn.so")}


def loaded_libraries(name: str) -> list[str]:
    """Files whose name starts with `name` that this process has mapped, from /proc/self/maps."""
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/") > 1}
    return sorted(path for path in paths if os.path.basename(path).startswith(name))


def software() -> None:
    attempt("torch", torch_facts)
    attempt("megatron", megatron_facts)
    attempt("index helpers", index_helpers_facts)
    if importlib.util.find_spec("transformer_engine"):
        attempt("transformer engine", transformer_engine_facts)


# --- GPUs -----------------------------------------------------------------------------------------------------------


def times_of_calls(function, budget_seconds: float = 0.4) -> list[float]:
    """Seconds of each call on the current GPU, one after another without a pause, by CUDA events, after a warm-up."""
    import torch

    for _ in range(3):
        function()
    torch.cuda.synchronize()
    times, deadline = [], time.monotonic() + budget_seconds
    while time.monotonic() < deadline or len(times) < 5:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return times


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def megahertz_during(function) -> int | None:
    """The clock of the current GPU's cores while it computes; None where the driver does not tell."""
    import torch

    for _ in range(50):
        function()
    clock = None
    with contextlib.suppress(Exception):
        clock = torch.cuda.clock_rate()
    torch.cuda.synchronize()
    return clock


def gemm_facts(precision: str, size: int = 8192) -> dict:
    """TFLOP/s of a square matrix product: 2 · size³ operations over the median time, and over the first.

    The matrices are random: products of zeros need less power, and a GPU at its power limit lowers its clock.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a, b = (torch.randn(size, size, dtype=dtype, device="cuda") for _ in range(2))
    times = times_of_calls(lambda: torch.mm(a, b))
    clock = megahertz_during(lambda: torch.mm(a, b))
    tflops, first = (2 * size**3 / seconds / 1e12 for seconds in (median(times), times[0]))
    return {"tflops": tflops, "first_tflops": first, "size": size, "megahertz": clock}


def memory_facts() -> dict:
    """Bytes read plus bytes written a second while one large buffer is copied to another."""
    import torch

    count = min(2**30, torch.cuda.mem_get_info()[0] // 4)
    source = torch.zeros(count, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return {"bytes_per_second": 2 * count / median(times_of_calls(lambda: target.copy_(source))), "bytes": count}


def fp8_facts(size: int = 8192) -> dict:
    """TFLOP/s of a Transformer Engine linear layer, forward only, per-tensor current scaling: casts included."""
    import torch
    import transformer_engine.pytorch as te
    from transformer_engine.common import recipe

    layer = te.Linear(size, size, bias=False, params_dtype=torch.bfloat16, device="cuda")
    x = torch.randn(size, size, dtype=torch.bfloat16, device="cuda")
    scaling = recipe.Float8CurrentScaling()

    def forward():
        context = te.autocast(recipe=scaling) if hasattr(te, "autocast") else te.fp8_autocast(fp8_recipe=scaling)
        with torch.no_grad(), context:
            return layer(x)

    exact = torch.nn.functional.linear(x, layer.weight).float()
    error = (forward().float() - exact).norm() / exact.norm()
    return {"tflops": 2 * size**3 / median(times_of_calls(forward)) / 1e12, "relative_error": error.item()}


class Listener(logging.Handler):
    """Keeps what a logger says."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def attention_facts() -> dict:
    """The attention backend that Transformer Engine picks for GPT3-345M's shapes, and why it refused others.

    Needs NVTE_DEBUG=1 and NVTE_DEBUG_LEVEL=2 in the environment before Transformer Engine is imported.
    """
    import torch
    import transformer_engine.pytorch as te

    attention = te.DotProductAttention(num_attention_heads=16, kv_channels=64, attn_mask_type="causal")
    listener = Listener()
    logging.getLogger("DotProductAttention").addHandler(listener)
    sequence_length, micro_batch_size = 1024, 4
    qkv = [
        torch.randn(sequence_length, micro_batch_size, 16, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        for _ in range(3)
    ]
    attention(*qkv).sum().backward()
    torch.cuda.synchronize()
    selected = [line.split("=", 1)[1].strip(" .") for line in listener.lines if line.startswith("Selected backend")]
    refused = [line for line in listener.lines if line.startswith("Disabling")]
    return {
        "backend": selected[-1] if selected else None,
        "refused": refused,
        "cudnn_loaded": loaded_libraries("libcudnn.so"),
        "cudnn_version": torch.backends.cudnn.version(),
    }


def gpus() -> None:
    os.environ.update(NVTE_DEBUG="1", NVTE_DEBUG_LEVEL="2")
    import torch

    for device in range(torch.cuda.device_count()):
        torch.cuda.set_device(device)
        attempt(f"gpu {device} gemm bf16", gemm_facts, "bf16")
        attempt(f"gpu {device} memory", memory_facts)
        torch.cuda.empty_cache()
    torch.cuda.set_device(0)
    for precision in ("fp16", "tf32", "fp32"):
        attempt(f"gpu 0 gemm {precision}", gemm_facts, precision)
    if importlib.util.find_spec("transformer_engine"):
        attempt("attention", attention_facts)
        if torch.cuda.get_device_capability(0) >= (8, 9):
            attempt("fp8", fp8_facts)


if __name__ == "__main__":
    {"software": software, "gpus": gpus}[sys.argv[1]]()
