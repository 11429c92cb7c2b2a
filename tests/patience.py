"""How long a test waits: until what it waits for is there, or until only a hang can explain that it is not."""

import time

import psutil

HANG_SECONDS = 600.0  # far longer than anything that a test waits for takes, on however busy a machine


def wait_for(condition, what: str = "it", seconds: float = HANG_SECONDS, pause: float = 0.05):
    """The first true answer of `condition`, which is asked again after each `pause`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(pause)
    return found


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end."""
    return psutil.wait_procs(processes, timeout=HANG_SECONDS)[1]
