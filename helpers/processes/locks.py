"""The lock of a run directory: its supervisor holds it as long as it lives, and nobody but its owner can open it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

NAME = ".lock"


class Busy(RuntimeError):
    """The run directory belongs to a run that is going on."""


def is_taken(run_directory: Path) -> bool:
    """Whether a process of the run's own user holds the lock.

    Raises:
        FileNotFoundError: no run was ever started there.
        PermissionError: it is another user's run.
    """
    lock = os.open(Path(run_directory) / NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return stranger(run_directory) is None
    finally:
        os.close(lock)
    return False


def stranger(run_directory: Path) -> str | None:
    """Who holds the run directory's lock though the run is not theirs, in words; None where nobody does.

    /proc/locks names the process of every lock (proc_locks(5)).
    """
    lock = (Path(run_directory) / NAME).stat()
    for line in Path("/proc/locks").read_text().splitlines():
        words = [word for word in line.split() if word != "->"]
        if words[1] != "FLOCK" or words[5].rsplit(":", 1)[-1] != str(lock.st_ino):
            continue
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(int(words[4]))
            if process.uids().real != lock.st_uid:
                return f"user {process.username()} (process {process.pid}, {process.name()})"
    return None


@contextlib.contextmanager
def held(run_directory: Path, wait_seconds: float = 0.2) -> Iterator[int]:
    """Hold the run directory; yields the lock's file descriptor, to hand on. No other user can open the lock.

    Args:
        wait_seconds: for whoever else holds it; a look by `is_alive` takes the lock for a moment, too.

    Raises:
        Busy: somebody else holds it; the message says who, where that is another user.
    """
    path = Path(run_directory) / NAME
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise Busy(whose(run_directory)) from None
    try:
        if os.fstat(lock).st_uid == os.getuid():
            os.fchmod(lock, 0o600)  # whatever an older version of this program gave it
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(_why_busy(run_directory)) from None
                time.sleep(0.01)
        yield lock
    finally:
        os.close(lock)


def whose(run_directory: Path) -> str:
    return f"{run_directory} belongs to user {Path(run_directory).owner()}, and only they can start or end it."


def _why_busy(run_directory: Path) -> str:
    if who := stranger(run_directory):
        return f"{run_directory} is not running, but {who} holds its lock: they must end that process."
    return f"{run_directory} belongs to a run that is going on."
