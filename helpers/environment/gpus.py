"""The findings of a machine with GPUs: which cuDNN is loaded, and what the GPUs reach when they really compute.

As in `software`: facts told by `helpers/ranks/probe.py` in, Findings out.
"""

import ctypes.util
import os
import re
import subprocess
from pathlib import Path

from helpers.environment.finding import Finding
from helpers.machine import Machine

HEALTHY = 0.6  # of a GPU's bf16 peak in one large matrix product; H200s reached 0.67-0.81


def cudnn(machine: Machine, facts: dict) -> Finding:
    """Transformer Engine looks for a system cuDNN before the one that came with PyTorch."""
    why = "Transformer Engine prefers a system cuDNN to PyTorch's; an older one silently costs fused attention."
    told = facts.get("torch", {})
    if not told.get("cudnn"):
        return Finding("cuDNN", "problem" if machine.gpus else "note", "PyTorch has none", why, "Run `uv sync`.")
    own = readable(told["cudnn"])
    wheel = Path(told["path"]).parent / "nvidia" / "cudnn"
    system = system_cudnn()
    loaded = facts.get("transformer engine", {}).get("cudnn_loaded", [])
    found = f"PyTorch's {own}" + (f", the system's {', '.join(sorted(set(system.values())))}" if system else "")
    found += f", loaded {', '.join(loaded)}" if loaded else ""
    if not wheel.exists():
        return Finding("cuDNN", "ok", found + " (PyTorch was built on the system's)", why)
    wrong = [path for path in loaded if not Path(path).is_relative_to(wheel)]
    if loaded and not wrong:
        return Finding("cuDNN", "ok", found + " (every launch points CUDNN_HOME at it)", why)
    other = wrong or [path for path, version in system.items() if version != own]
    if not other:
        return Finding("cuDNN", "ok", found, why)
    fix = f"`export CUDNN_HOME={wheel} LD_LIBRARY_PATH={wheel}/lib:$LD_LIBRARY_PATH` before starting Jupyter."
    broken = wrong or "error" in facts.get("transformer engine", {})
    return Finding("cuDNN", "problem" if broken and machine.gpus else "note", found, why, fix)


def readable(number: int) -> str:
    """cuDNN's number as people write it: 91900 → 9.19.0, 8902 → 8.9.2."""
    unit = 10000 if number >= 90000 else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def system_cudnn() -> dict[str, str]:
    """Path → version of each cuDNN that Transformer Engine would find before PyTorch's, in its own order of search."""
    folders = [os.environ.get(name) for name in ("CUDNN_PATH", "CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    paths = [path for folder in folders if folder for path in sorted(Path(folder).glob("lib*/libcudnn.so*"))]
    if ctypes.util.find_library("cudnn"):
        try:
            listing = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired):
            listing = ""
        paths += [Path(path) for path in re.findall(r"libcudnn\.so\S* .*=> (\S+)", listing)]
    versions = {str(path.resolve()): re.search(r"\.so\.(\d+\.\d+\.\d+)", path.resolve().name) for path in paths}
    return {path: match.group(1) for path, match in versions.items() if match}


def matrix_products(machine: Machine, facts: dict) -> list[Finding]:
    """bf16 on every GPU against its peak; the other precisions on the first GPU."""
    why = (
        "Training is mostly matrix products (GEMMs). A GPU far below its peak is throttled, shared or broken. Here one "
        "GEMM follows another without a pause: the power limit lowers the clock, and those of a training step, between "
        "lighter kernels, run faster."
    )
    findings = []
    for number, gpu in enumerate(machine.gpus):
        step, name = facts.get(f"gpu {number} gemm bf16"), f"GPU {number}, bf16 GEMM"
        if step is None or "error" in step:
            findings.append(Finding(name, "problem", (step or ended(facts))["error"], why, BUSY))
            continue
        found = f"{step['tflops']:.0f} TFLOP/s"
        share = step["tflops"] * 1e12 / gpu.peak_bf16_flops if gpu.peak_bf16_flops else None
        found += f" at {step['megahertz']:,} MHz" if step.get("megahertz") else ""
        found += f", {share:.0%} of the peak {gpu.peak_bf16_flops / 1e12:.0f}" if share else ", peak not known"
        found += f"; the first one {step['first_tflops']:.0f}" if "first_tflops" in step else ""
        low = share is not None and share < HEALTHY
        findings.append(Finding(name, "note" if low else "ok", found, why, BUSY if low else ""))
    others = [
        f"{precision} {facts[key]['tflops']:.0f}"
        for precision in ("fp16", "tf32", "fp32")
        if "tflops" in facts.get(key := f"gpu 0 gemm {precision}", {})
    ]
    if others:
        findings.append(Finding("GPU 0, other precisions", "ok", ", ".join(others) + " TFLOP/s", why))
    return findings


BUSY = "`nvidia-smi` shows who else uses the GPU, its temperature and its power limit."


def ended(facts: dict) -> dict:
    return facts.get("end", {"error": "the probe said nothing about it"})


def memory_bandwidth(machine: Machine, facts: dict) -> list[Finding]:
    why = "Optimizer steps, norms and dropout wait for memory, not for arithmetic."
    told = [facts.get(f"gpu {number} memory", ended(facts)) for number in range(len(machine.gpus))]
    if errors := [step["error"] for step in told if "error" in step]:
        return [Finding("GPU memory", "problem", errors[0], why, BUSY)]
    found = ", ".join(f"{step['bytes_per_second'] / 1e12:.2f}" for step in told) + " TB/s read and written"
    return [Finding("GPU memory", "ok", found, why)]


def fp8(machine: Machine, facts: dict) -> list[Finding]:
    why = "Notebook 04 trains in FP8; it pays only where the product of two FP8 matrices beats bf16."
    if not machine.supports_fp8:
        capability = ".".join(map(str, machine.gpus[0].compute_capability))
        return [Finding("FP8", "note", f"compute capability {capability} has none (8.9 and newer do)", why)]
    if not machine.transformer_engine:
        return [Finding("FP8", "note", "needs Transformer Engine", why, "Run `uv sync --extra gpu`.")]
    step = facts.get("fp8", ended(facts))
    if "error" in step:
        fix = "First fix the Transformer Engine and cuDNN lines above; FP8 products go through both."
        return [Finding("FP8", "problem", step["error"], why, fix)]
    bf16 = facts.get("gpu 0 gemm bf16", {}).get("tflops")
    found = f"{step['tflops']:.0f} TFLOP/s, casts included" + (f", {step['tflops'] / bf16:.2f} × bf16" if bf16 else "")
    return [Finding("FP8", "ok", f"{found}; relative error {step['relative_error']:.3f}", why)]


def attention(machine: Machine, facts: dict) -> list[Finding]:
    why = "Fused and flash attention never store the score matrix; the unfused one takes twice the memory (GPT3-345M)."
    if not machine.transformer_engine:
        return []
    step = facts.get("attention", ended(facts))
    if "error" in step:
        return [Finding("Attention", "problem", step["error"], why, "Mend the cuDNN line first.")]
    refusals = "; ".join(line.removeprefix("Disabling ") for line in step["refused"])
    found = f"{step['backend']}" + (f" (refused: {refusals})" if refusals else "")
    if step["backend"] is None or "Unfused" in step["backend"]:
        fix = "The reason is in brackets. Usually cuDNN: see its line. Else unset NVTE_FUSED_ATTN, NVTE_FLASH_ATTN."
        return [Finding("Attention", "problem", found, why, fix)]
    return [Finding("Attention", "ok", found, why)]


def link() -> str:
    """NVLink with the number of active links of the driver's first GPU, whatever CUDA_VISIBLE_DEVICES says, or PCIe."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        active = 0
        for number in range(pynvml.NVML_NVLINK_MAX_LINKS):
            try:
                active += pynvml.nvmlDeviceGetNvLinkState(handle, number) == pynvml.NVML_FEATURE_ENABLED
            except pynvml.NVMLError:
                break
        return f"NVLink ({active} links)" if active else "PCIe"
    finally:
        pynvml.nvmlShutdown()


MEASURED = (matrix_products, memory_bandwidth, fp8, attention)
