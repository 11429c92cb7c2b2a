"""Environment variables: those that programs need here, and what one of the learner's says."""

import os

from helpers.machine import cuda_libraries
from helpers.machine.hardware import Machine
from helpers.machine.places import PROJECT


def device_environment(machine: Machine, interface: str | None = "lo") -> dict[str, tuple[str, str]]:
    """What every program of ranks needs on such a machine: name → (value, why).

    `interface` is the network through which they talk: loopback where all are on one machine; None lets gloo and NCCL
    find one.
    """
    sockets = {}
    if interface is not None:
        why = "ranks of one machine listen on no network" if interface == "lo" else "the network between the hosts"
        sockets["GLOO_SOCKET_IFNAME"] = (interface, why)
    if machine.device == "cpu":
        alone = ("1", "one thread per rank: ranks must not fight for cores")
        return {"MEGATRON_CPU": ("1", "run on the CPU"), "OMP_NUM_THREADS": alone} | sockets
    if interface is not None:
        why = "NVLink and shared memory carry the data; only its start takes sockets"
        sockets["NCCL_SOCKET_IFNAME"] = (interface, why if interface == "lo" else "the same for NCCL's start")
    return sockets | (cuda_libraries.variables() if machine.transformer_engine else {})


def python_path() -> dict[str, str]:
    """What lets a Python program of ours import `helpers` from any folder; what the learner has set stays, after it."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))}


def hub_is_off() -> bool:
    """Whether the learner wants the Hugging Face hub left alone: HF_HUB_OFFLINE, read as the hub's own client does."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
