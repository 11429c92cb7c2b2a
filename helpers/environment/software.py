"""The software, one function per finding: from what was found on a machine to a Finding that says what to do.

Each reads facts and judges them; it starts nothing. What needs PyTorch or a GPU was asked before, in a child process
(`helpers/ranks/probe.py`), and comes here as `facts`: step → what was told, with "error" where the step failed.
"""

import importlib.util
import os
import platform
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

from helpers.environment.finding import Finding
from helpers.machine import PROJECT, Machine


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def pins() -> dict[str, str]:
    """Package → exact version, as pinned in pyproject.toml; extras and groups included."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    lines = list(project["project"]["dependencies"])
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        lines += group
    found = (re.match(r"([\w-]+)(?:\[.*\])?==(.+)", line) for line in lines)  # a group may name an extra of ours
    return dict(pin.groups() for pin in found if pin)


def python(machine: Machine, facts: dict) -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    why = "On Python 3.11 pip quietly picks megatron-core 0.16, which has no megatron.training."
    if sys.version_info[:2] != (3, 12):
        fix = "Run `uv run jupyter lab notebooks` from the project; uv brings Python 3.12 along."
        return Finding("Python", "problem", found, why, fix)
    return Finding("Python", "ok", found, why)


def our_package(machine: Machine, facts: dict) -> Finding:
    why = "Another package called helpers would be imported instead of ours."
    named = [Path(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    places = [place for place in (PROJECT / "notebooks", *named) if place.resolve() != PROJECT]
    for place in places:
        if (place / "helpers" / "__init__.py").is_file() or (place / "helpers").with_suffix(".py").is_file():
            fix = f"Take {place} out of PYTHONPATH (`unset PYTHONPATH` takes all out) before you start Jupyter."
            if place not in named:
                fix = f"Give helpers in {place} another name."
            return Finding("Package helpers", "problem", f"another one lies in {place}", why, fix)
    return Finding("Package helpers", "ok", str(PROJECT / "helpers"), why)


# --- the software ---------------------------------------------------------------------------------------------------


def failed(facts: dict, step: str) -> str | None:
    """The error of a step; a step that told nothing has taken its process down or ran out of time."""
    return facts.get(step, {"error": facts.get("end", {}).get("error", "the child process said nothing")}).get("error")


def torch(machine: Machine, facts: dict) -> Finding:
    why = "Everything computes with PyTorch, and Transformer Engine is compiled for one exact version of it."
    pin = pins()["torch"]
    if error := failed(facts, "torch"):
        return Finding("PyTorch", "problem", error, why, "Run `uv sync` (in NVIDIA's container: see environment.md).")
    told = facts["torch"]
    found = f"{told['version']}, " + (f"built for CUDA {told['cuda']}" if told["cuda"] else "built without CUDA")
    if machine.gpus and not told["cuda"]:
        return Finding(
            "PyTorch", "problem", found, why, f"This build cannot use the GPU: `uv pip install torch=={pin}`."
        )
    if told["version"].split("+")[0] != pin:
        fix = f"We verified {pin}. In NVIDIA's container keep the container's own; elsewhere run `uv sync`."
        return Finding("PyTorch", "note", found, why, fix)
    return Finding("PyTorch", "ok", found, why)


def megatron(machine: Machine, facts: dict) -> Finding:
    why = "The wheel carries megatron.core and megatron.training, so nothing has to be cloned."
    pin = pins()["megatron-core"]
    if error := failed(facts, "megatron"):
        return Finding("Megatron-Core", "problem", error, why, "Run `uv sync`.")
    told = facts["megatron"]
    if not told["training"]:
        fix = f"Older wheels lack megatron.training: `uv pip install megatron-core=={pin}` on Python 3.12."
        return Finding("Megatron-Core", "problem", f"{told['version']} without megatron.training", why, fix)
    if told["version"] != pin:
        fix = f"We verified {pin}: `uv pip install megatron-core=={pin}`."
        return Finding("Megatron-Core", "note", f"{told['version']} at {told['path']}", why, fix)
    return Finding("Megatron-Core", "ok", f"{told['version']} with megatron.training", why)


def index_helpers(machine: Machine, facts: dict) -> Finding:
    why = "Megatron's C++ module that maps samples to documents; precompiled in the wheel."
    if error := failed(facts, "index helpers"):
        fix = f"`uv pip install --reinstall megatron-core=={pins()['megatron-core']}`"
        return Finding("Megatron's helpers_cpp", "problem", error, why, fix)
    return Finding("Megatron's helpers_cpp", "ok", "loads", why)


def transformer_engine(machine: Machine, facts: dict) -> Finding:
    why = "NVIDIA's fused layers and FP8. Without it Megatron's local layers train, without FP8 and with fewer fusions."
    install = "`uv sync --extra gpu` (compiles for about 8 minutes on 2 cores)"
    if not importlib.util.find_spec("transformer_engine"):
        fix = f"{install}." if machine.gpus else "Nothing to fix: it needs a GPU."
        return Finding("Transformer Engine", "note", "not installed", why, fix)
    if error := failed(facts, "transformer engine"):
        fix = f"Set CUDNN_HOME as the cuDNN line says, or build it again for this PyTorch: {install}."
        return Finding("Transformer Engine", "problem" if machine.gpus else "note", error, why, fix)
    found = facts["transformer engine"]["version"]
    if found.split("+")[0] != pins()["transformer-engine"]:
        fix = f"We verified {pins()['transformer-engine']}. In NVIDIA's container keep the container's own."
        return Finding("Transformer Engine", "note", found, why, fix)
    return Finding("Transformer Engine", "ok", found, why)


def apex(machine: Machine, facts: dict) -> Finding:
    found = "installed" if importlib.util.find_spec("apex") else "not installed, not needed"
    why = (
        "Its fused norms have stand-ins, and on a GPU so has its kernel for gradients: Transformer Engine's. Without "
        "it the recipes give --no-gradient-accumulation-fusion."
    )
    return Finding("Apex", "ok", found, why)


def nccl(machine: Machine, facts: dict) -> Finding:
    why = "Ranks talk over NCCL on GPUs and over gloo on a CPU. Both come with PyTorch."
    told = facts.get("torch", {})
    versions = {"nccl": "NCCL " + ".".join(map(str, told.get("nccl") or ())), "gloo": "gloo"}
    found = ", ".join(text for name, text in versions.items() if told.get(name))
    needed = "nccl" if machine.gpus else "gloo"
    if not told.get(needed):
        return Finding(
            "Collectives", "problem", found or "none", why, "Run `uv sync`: this PyTorch lacks " + needed + "."
        )
    return Finding("Collectives", "ok", found, why)


SOFTWARE = (python, our_package, torch, megatron, index_helpers, transformer_engine, apex, nccl)
