"""The machine under the software: system, cores, memory, disk, limits, driver."""

import os
import platform
import re
import resource
import shutil
from pathlib import Path

import psutil

from helpers.environment.finding import Finding
from helpers.machine import Machine, cache_root, driver_versions, runs_root, switches
from helpers.machine.shared_memory import PLACE, why_unusable

GB = 1e9
CONTAINER = "nvcr.io/nvidia/pytorch:26.06-py3"
CONTAINER_FLAGS = "--gpus all --ipc=host --ulimit memlock=-1 --ulimit stack=67108864"


def container() -> str | None:
    """The kind of container this process runs in; None outside one."""
    if release := os.environ.get("NVIDIA_PYTORCH_VERSION"):
        return f"NVIDIA's PyTorch container {release}"
    if Path("/run/.containerenv").exists():
        return "a Podman container"
    if Path("/.dockerenv").exists():
        return "a Docker container"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "a Kubernetes pod"
    return "an Apptainer container" if os.environ.get("APPTAINER_CONTAINER") else None


# --- the machine ----------------------------------------------------------------------------------------------------


def operating_system(machine: Machine, facts: dict) -> Finding:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        name = "Linux"
    inside = container()
    wsl = ", WSL2" if "microsoft" in platform.release().lower() else ""
    found = f"{name}, {machine.architecture}{wsl}" + (f", in {inside}" if inside else "")
    why = "Megatron and its wheels exist for Linux on x86_64 and aarch64."
    if machine.architecture not in ("x86_64", "aarch64"):
        fix = f"Use a machine with one of these processors; there is no PyTorch wheel for {machine.architecture}."
        return Finding("Operating system", "problem", found, why, fix)
    return Finding("Operating system", "ok", found, why)


def cores(machine: Machine, facts: dict) -> Finding:
    why = "Without a GPU each rank computes on a core of its own; two ranks on one core wait for each other."
    if machine.cpu_count < 2 and machine.device == "cpu":
        return Finding("Processor cores", "note", "1", why, "Everything runs, slower. Two cores are better.")
    return Finding("Processor cores", "ok", str(machine.cpu_count), why)


def memory(machine: Machine, facts: dict) -> Finding:
    free = min(psutil.virtual_memory().available, machine.memory_bytes)
    found = f"{free / GB:.1f} GB free of {machine.memory_bytes / GB:.1f} GB"
    why = "A rank takes about 1 GB before the first weight: PyTorch and Megatron themselves."
    fix = "Close what you do not need (browsers first). In WSL2 raise `memory=` in .wslconfig."
    status = "problem" if free < 2 * GB else "note" if free < 4 * GB else "ok"
    return Finding("Memory", status, found, why, "" if status == "ok" else fix)


def disk(machine: Machine, facts: dict) -> Finding:
    free = {path: shutil.disk_usage(existing(path)).free for path in (runs_root(), cache_root())}
    where, least = min(free.items(), key=lambda item: item[1])
    needed = 20 * GB if machine.gpus else 2 * GB
    found = f"{least / GB:.0f} GB free for {where.name}/"
    why = "Runs keep checkpoints: about 5 GB each for the real GPT3-345M, some megabytes on a CPU."
    fix = "Point MEGATRON_TOUR_RUNS and MEGATRON_TOUR_CACHE at a bigger disk."
    status = "problem" if least < 0.5 * GB else "note" if least < needed else "ok"
    return Finding("Disk", status, found, why, "" if status == "ok" else fix)


def existing(path: Path) -> Path:
    """`path`, or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def shared_memory(machine: Machine, facts: dict) -> Finding:
    why = "Ranks on one machine and data-loading workers pass tensors through /dev/shm; Docker gives 64 MB."
    fix = "Start the container with `--ipc=host` (or `--shm-size=8g`)."
    if unusable := why_unusable():
        return Finding(
            "Shared memory", "problem", unusable, why, "Delete what fills it, or mount it for writing. " + fix
        )
    size = shutil.disk_usage(PLACE).total
    if size >= GB:
        return Finding("Shared memory", "ok", f"{size / GB:.1f} GB", why)
    status = "problem" if len(machine.gpus) > 1 else "note"
    return Finding("Shared memory", status, f"{size / 1e6:.0f} MB", why, fix)


def limits(machine: Machine, facts: dict) -> Finding:
    unlimited = resource.RLIM_INFINITY
    locked, stack, files = (
        resource.getrlimit(which)[0]
        for which in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_STACK, resource.RLIMIT_NOFILE)
    )
    found = ", ".join(
        f"{name} {'unlimited' if limit == unlimited else text}"
        for name, limit, text in (
            ("locked memory", locked, f"{locked / 2**20:.0f} MiB"),
            ("stack", stack, f"{stack / 2**20:.0f} MiB"),
            ("open files", files, str(files)),
        )
    )
    why = "NCCL locks memory for network cards, deep C++ calls need stack, each rank opens hundreds of files."
    fixes = []
    if machine.gpus and 0 <= locked < 64 * 2**20:
        fixes.append("`ulimit -l unlimited` (container: `--ulimit memlock=-1`)")
    if 0 <= stack < 8 * 2**20:
        fixes.append("`ulimit -s 8192` (container: `--ulimit stack=67108864`)")
    if 0 <= files < 1024:
        fixes.append("`ulimit -n 4096`")
    fix = "Before starting Jupyter: " + ", ".join(fixes) + "." if fixes else ""
    return Finding("Limits", "note" if fixes else "ok", found, why, fix)


def driver(machine: Machine, facts: dict) -> Finding:
    why = "The driver must know the CUDA version that PyTorch was built for; the CUDA toolkit itself is not needed."
    if not machine.gpus:
        hidden = "MEGATRON_CPU=1 hides it" if switches.is_on(switches.CPU_ONLY) else "none"
        fix = "Nothing to fix: the same notebooks train small models on the processor."
        return Finding("GPU and driver", "note", hidden, why, fix)
    driver_version, driver_cuda = driver_versions()
    gpu = machine.gpus[0]
    found = (
        f"{machine.name}, {gpu.memory_bytes / GB:.0f} GB, compute capability "
        f"{gpu.compute_capability[0]}.{gpu.compute_capability[1]}, driver {driver_version} (CUDA {driver_cuda})"
    )
    told = facts.get("torch", {})
    built_for = told.get("cuda")
    if built_for and int(driver_cuda.split(".")[0]) < int(built_for.split(".")[0]):
        fix = f"Update NVIDIA's driver to one for CUDA {built_for.split('.')[0]} (580 or newer for CUDA 13)."
        return Finding("GPU and driver", "problem", found, why, fix)
    if "error" not in told and told and not told["cuda_available"]:
        fix = (
            "The driver sees the GPU, PyTorch does not: reboot after a driver update; in a container add `--gpus all`."
        )
        return Finding("GPU and driver", "problem", found + ", not usable by PyTorch", why, fix)
    architectures = [int(digits) for name in told.get("architectures", []) for digits in re.findall(r"sm_(\d+)", name)]
    if architectures and gpu.compute_capability[0] * 10 + gpu.compute_capability[1] < min(architectures):
        fix = "This PyTorch has no kernels for a GPU this old: set MEGATRON_CPU=1, or use a newer GPU."
        return Finding("GPU and driver", "problem", found, why, fix)
    return Finding("GPU and driver", "ok", found, why)


# --- what the notebooks use -----------------------------------------------------------------------------------------


MACHINE = (operating_system, cores, memory, disk, shared_memory, limits, driver)
