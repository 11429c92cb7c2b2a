"""A wall clock of their own for some processes of this machine, by libfaketime; the monotonic clock stays as it is.

Needs Debian's packages: apt-get install faketime gcc
"""

import shutil
import subprocess
from pathlib import Path

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
# libfaketime 0.9.10 answers time.sleep() of Python with EINVAL while the monotonic clock is left alone.
SLEEP = """
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
  return syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
}
"""


def why_not() -> str | None:
    """What is missing, in words; None where nothing is."""
    missing = ["faketime"] * (not LIBRARY.is_file()) + ["gcc"] * (shutil.which("gcc") is None)
    return f"{', '.join(missing)} is not installed here: apt-get install {' '.join(missing)}." if missing else None


def variables(seconds: int, folder: Path) -> dict[str, str]:
    """With which a process and all that it starts have a clock that is so many seconds ahead.

    Times of files stay those of the other clock, as where a file server has its own. `folder` keeps a small library.
    """
    if why := why_not():
        raise SystemExit(why)
    library = folder / "sleep.so"
    command = ["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=SLEEP, text=True, check=True)
    ahead = {"FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    return ahead | {"LD_PRELOAD": f"{library}:{LIBRARY}"}


def clean() -> None:
    """Remove what libfaketime leaves of processes that were killed."""
    for path in Path("/dev/shm").glob("*faketime_s*"):
        path.unlink(missing_ok=True)
