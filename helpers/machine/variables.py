"""Environment variables: those that programs need here, and what one of the learner's says."""

import os

from helpers.machine import cuda_libraries
from helpers.machine.hardware import Machine
from helpers.machine.places import PROJECT


def device_environment(machine: Machine) -> dict[str, tuple[str, str]]:
    """What every program of ranks needs on such a machine: name → (value, why)."""
    sockets = {"GLOO_SOCKET_IFNAME": ("lo", "ranks of one machine listen on no network")}
    if machine.device == "cpu":
        alone = ("1", "one thread per rank: ranks must not fight for cores")
        return {"MEGATRON_CPU": ("1", "run on the CPU"), "OMP_NUM_THREADS": alone} | sockets
    sockets["NCCL_SOCKET_IFNAME"] = ("lo", "NVLink and shared memory carry the data; only its start takes sockets")
    return sockets | (cuda_libraries.variables() if machine.transformer_engine else {})


def python_path() -> dict[str, str]:
    """What lets a Python program of ours import `helpers` from any folder; what the learner has set stays, after it."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))}


def hub_is_off() -> bool:
    """Whether the learner wants the Hugging Face hub left alone: HF_HUB_OFFLINE, read as the hub's own client does."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
