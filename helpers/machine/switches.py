"""Environment variables that are 1 or 0, read in one place: "true" or "yes" would pass for off without a word."""

import os

STOCK, CPU_ONLY = "MEGATRON_TOUR_STOCK", "MEGATRON_CPU"
SWITCHES = (STOCK, CPU_ONLY)


def is_on(name: str) -> bool:
    """Whether a variable is 1; it is off where it is 0, empty or not set.

    Raises:
        ValueError: it is something else.
    """
    value = os.environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise ValueError(f"{name}={value!r} in the environment: it is 1 or 0. `export {name}=1` turns it on.")
    return value == "1"
