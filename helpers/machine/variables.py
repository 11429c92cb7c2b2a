"""The environment variables that every program of ranks needs on a device."""

from helpers.machine import cuda_libraries
from helpers.machine.hardware import Machine


def device_environment(machine: Machine) -> dict[str, tuple[str, str]]:
    """What every program of ranks needs on such a machine: name → (value, why)."""
    if machine.device == "cpu":
        alone = ("1", "one thread a rank: ranks must not fight for cores")
        return {"MEGATRON_CPU": ("1", "run on the CPU"), "OMP_NUM_THREADS": alone}
    return cuda_libraries.variables() if machine.transformer_engine else {}
