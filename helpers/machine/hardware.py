"""What is here: GPUs, cores, memory. Next to a leaf: every wing above may import it."""

import contextlib
import math
import os
import platform
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import psutil

from helpers.machine import cuda_libraries, data_sheets, switches
from helpers.show import bounds
from helpers.show.arguments import checked, require_fields
from helpers.show.names import named, told
from helpers.show.numbers import as_typed

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
MEMORY = range(1, 2**63)  # bytes

# With all of one of these PyTorch multiplies bf16 matrices by oneDNN on a CPU, else in a plain loop: oneDNN's
# cpu/platform.cpp (has_data_type_support) and cpu/x64/cpu_isa_traits.hpp, for Arm PyTorch's native/mkldnn/Utils.h.
BF16_NEEDS = {
    "x86_64": (
        {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
        {"avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"},
    ),
    "aarch64": ({"bf16"},),
}


class UnsupportedPlatform(RuntimeError):
    """Megatron runs on Linux only, and the recipes plan with whole GPUs."""


@told
@dataclass(frozen=True)
class GPU:
    """One visible GPU. `memory_bytes` is all of its memory, used or not."""

    IN_WORDS = 'a GPU, such as GPU("NVIDIA H100 80GB HBM3", 80 * 2**30, (9, 0))'

    name: str
    memory_bytes: Annotated[int, MEMORY]
    compute_capability: tuple[int, int]  # (9, 0) of an H100

    def __post_init__(self):
        require_fields(self)

    @property
    def supports_bf16(self) -> bool:
        """Ampere (8.0) and newer have bf16 tensor cores."""
        return self.compute_capability >= (8, 0)

    @property
    def supports_fp8(self) -> bool:
        """Ada (8.9), Hopper (9.0) and newer have FP8 tensor cores."""
        return self.compute_capability >= (8, 9)

    @property
    def peak_bf16_flops(self) -> float | None:
        """Dense bf16 peak in FLOP/s; None for a GPU whose data sheet is not in the table (then no MFU is shown)."""
        sheet = data_sheets.find(self.name)
        return sheet and sheet.bf16_flops


@told
@dataclass(frozen=True)
class Machine:
    """A machine as training sees it. Make one by hand to plan for a machine that is not here.

    `fast_cpu_bf16`: the CPU has AVX-512, or what else PyTorch needs to multiply bf16 matrices fast; without, such a
    product takes many times as long as one in fp32. `gpus` are those of all `nodes`, between which the network carries
    `between_nodes_gbps` Gbit/s for each GPU (see `machine.described`).
    """

    IN_WORDS = "a machine (helpers.machine.here() is this one)"

    gpus: tuple[GPU, ...] = ()
    cpu_count: Annotated[int, bounds.COUNT] = 2
    memory_bytes: Annotated[int, MEMORY] = 16 * 2**30
    system: str = "Linux"
    architecture: str = "x86_64"
    transformer_engine: bool = False
    fast_cpu_bf16: bool = True
    nodes: Annotated[int, bounds.RANKS] = 1
    between_nodes_gbps: Annotated[float, bounds.Above(100_000)] | None = None

    def __post_init__(self):
        require_fields(self)

    @classmethod
    @checked
    def from_json(cls, described: dict) -> "Machine":
        """A machine from what a run's environment.json says of it, whatever else that says.

        Raises:
            TypeError: a value in it is of another kind than its field.
        """
        known = {f.name: described[f.name] for f in fields(cls) if f.name in described}
        if isinstance(gpus := known.get("gpus"), list | tuple):
            known["gpus"] = tuple(_from_json(gpu) if isinstance(gpu, dict) else gpu for gpu in gpus)
        return cls(**known)

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def name(self) -> str:
        if not self.gpus:
            return f"{self.cpu_count}-core CPU"
        each = len(self.gpus) // self.nodes
        many = (f"{self.nodes} × " if self.nodes > 1 else "") + (f"{each} × " if each > 1 else "")
        return many + self.gpus[0].name

    @property
    def kind(self) -> str:
        """Its name; that of a CPU tells whether it multiplies bf16 fast: "2-core CPU without AVX-512"."""
        slower = self.device == "cpu" and self.architecture == "x86_64" and not self.fast_cpu_bf16
        return self.name + (" without AVX-512" if slower else "")

    @property
    def label(self) -> str:
        """Short lower-case name, as used for the folders of `notebooks/recorded/`: "h200", "rtx-4090", "cpu"."""
        if not self.gpus:
            return "cpu"
        drop = {"nvidia", "geforce", "tesla"}
        return "-".join(w for w in self.gpus[0].name.lower().replace("-", " ").split() if w not in drop)

    @property
    def supports_bf16(self) -> bool:
        """True on a CPU too: PyTorch computes bf16 on any, if not always fast (`fast_cpu_bf16`)."""
        return all(gpu.supports_bf16 for gpu in self.gpus)

    @property
    def supports_fp8(self) -> bool:
        return bool(self.gpus) and all(gpu.supports_fp8 for gpu in self.gpus)

    @property
    def processes(self) -> int:
        """How many ranks a notebook may start here: one per GPU; on a CPU two, however few the cores."""
        return len(self.gpus) or 2


def _from_json(gpu: dict) -> GPU:
    capability = gpu.get("compute_capability")
    return GPU(
        gpu.get("name"), gpu.get("memory_bytes"), tuple(capability) if isinstance(capability, list) else capability
    )


CPU = Machine(cpu_count=2, memory_bytes=8 * 2**30)


@cache
def here() -> Machine:
    """The machine this process runs on.

    GPUs come from the driver (nvidia-ml-py), narrowed by CUDA_VISIBLE_DEVICES. MEGATRON_CPU=1 hides them all.
    Cores and memory are what the container leaves of the machine's.

    Raises:
        UnsupportedPlatform: on macOS and Windows, and where CUDA_VISIBLE_DEVICES names a slice of a GPU (MIG).
        ValueError: MEGATRON_CPU is neither 1 nor 0.
    """
    if platform.system() != "Linux":
        raise UnsupportedPlatform(
            f"Megatron runs on Linux only and this is {platform.system()}: "
            "start the container (see environment.md, 'The container') or use WSL2 and run the notebooks there."
        )
    cpu_count, memory_bytes = within_container(len(os.sched_getaffinity(0)), psutil.virtual_memory().total)
    return Machine(
        gpus=() if switches.is_on(switches.CPU_ONLY) else visible_gpus(),
        cpu_count=cpu_count,
        memory_bytes=memory_bytes,
        system=platform.system(),
        architecture=platform.machine(),
        transformer_engine=cuda_libraries.transformer_engine_installed(),
        fast_cpu_bf16=multiplies_bf16(platform.machine()),
    )


def multiplies_bf16(architecture: str, cpuinfo: Path = CPUINFO) -> bool:
    """Whether PyTorch has a fast bf16 matrix product for this CPU: the answer of its own
    `torch.ops.mkldnn._is_mkldnn_bf16_supported()`, from the flags that Linux lists, so that torch is not imported."""
    listed = ""
    with contextlib.suppress(OSError), cpuinfo.open() as lines:
        listed = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # the first core's
    flags = set(listed.partition(":")[2].split())
    return any(needed <= flags for needed in BF16_NEEDS.get(architecture, ()))


def within_container(cpu_count: int, memory_bytes: int, cgroup: Path = CGROUP) -> tuple[int, int]:
    """Cores (rounded up) and bytes of memory, at most what the container may use: docker's --cpus and --memory.

    Read from cgroup v2; where there is no such file, or it says "max", nothing is taken away.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, (cgroup / "cpu.max").read_text().split())
        cpu_count = min(cpu_count, math.ceil(quota / period))
    with contextlib.suppress(OSError, ValueError):
        memory_bytes = min(memory_bytes, int((cgroup / "memory.max").read_text()))
    return cpu_count, memory_bytes


@named
def for_ranks(count: int) -> Machine:
    """The machine that can run `count` ranks: this one, or its CPU when it has GPUs but fewer than that, or no
    Transformer Engine, without which GPUs have no sequence parallelism.

    Raises:
        ValueError: that is no number of ranks.
    """
    require_whole("ranks", count)
    machine = here()
    can = machine.transformer_engine and len(machine.gpus) >= count
    return machine if can or not machine.gpus else replace(machine, gpus=())


def require_whole(what: str, number) -> None:
    """Nothing for a count of something.

    Raises:
        ValueError: it is none.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{as_typed(number)} {what}: a whole number from 1.")


def visible_gpus() -> tuple[GPU, ...]:
    """The GPUs that CUDA would show to a new process; empty without a driver.

    They are numbered by PCI bus. CUDA numbers them so, too, unless they differ: then the fastest is its first, and
    CUDA_DEVICE_ORDER=PCI_BUS_ID makes both agree.

    Raises:
        UnsupportedPlatform: where CUDA_VISIBLE_DEVICES names a slice of a GPU (MIG).
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is not None:
            handles = _selected(handles, chosen)
        return tuple(
            GPU(
                name=_text(pynvml.nvmlDeviceGetName(h)),
                memory_bytes=_memory_bytes(h),
                compute_capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(h)),
            )
            for h in handles
        )
    finally:
        pynvml.nvmlShutdown()


def _memory_bytes(handle) -> int:
    """A GPU's memory; the machine's where both share one and the driver has no number (GB10, the DGX Spark's)."""
    import pynvml

    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle).total
    except pynvml.NVMLError_NotSupported:
        return psutil.virtual_memory().total


def driver_versions() -> tuple[str, str] | None:
    """The driver's version and the newest CUDA that it knows, such as ("580.159.04", "13.0"); None without one."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return _text(pynvml.nvmlSystemGetDriverVersion()), f"{number // 1000}.{number % 1000 // 10}"
    finally:
        pynvml.nvmlShutdown()


def _selected(handles: list, chosen: str) -> list:
    """CUDA's rule: entries are indices or UUID prefixes; the first invalid one hides itself and all that follow."""
    import pynvml

    uuids = [_text(pynvml.nvmlDeviceGetUUID(h)) for h in handles]
    selected = []
    for entry in (e.strip() for e in chosen.split(",")):
        if entry.startswith("MIG-"):
            raise UnsupportedPlatform(
                f"CUDA_VISIBLE_DEVICES names {entry}, a slice of a GPU, and the recipes plan with whole GPUs: give the "
                "number of one that is not cut (`nvidia-smi -L` lists them), or export MEGATRON_CPU=1 to train on the "
                "CPU."
            )
        if entry.isdigit() and int(entry) < len(handles):
            selected.append(handles[int(entry)])
        elif matches := [h for h, uuid in zip(handles, uuids, strict=True) if entry and uuid.startswith(entry)]:
            selected.append(matches[0])
        else:
            break
    return selected


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
