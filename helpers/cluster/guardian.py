"""Owns the daemons of a Slurm of one's own: nothing of them, and of the jobs they run, outlives it.

    python -m helpers.cluster.guardian FOLDER n1 n2 < lifeline

Started by `OwnSlurm.start`. The end of its standard input is its end, and theirs; a line there names a node to start.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from helpers.processes import control

KILL_SECONDS = 3.0  # what the daemons get between SIGTERM and SIGKILL: they only have state to write
MUNGED = "munged --foreground --force --num-threads=2"
DAEMONS = ("munged", "slurmctld", "slurmscriptd", "slurmd")


def main(folder: Path, nodes: list[str]) -> None:
    control.adopt_orphans()  # slurmd lets go of its slurmstepd
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(0))
    os.environ["PATH"] += ":/usr/sbin"
    try:
        own = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
        own["seed-file"] = "munge.seed"
        spawn(*MUNGED.split(), *(f"--{name}={folder / file}" for name, file in own.items()))
        while not (folder / "munge.sock").exists():
            time.sleep(0.01)
        spawn("slurmctld", "-D", "-i")
        for node in nodes:
            spawn("slurmd", "-D", "-N", node)
        serve()
    finally:
        end(folder)


def serve() -> None:
    """Until the lifeline breaks: start the nodes that it names, bury what has ended."""
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], 0.5)
        if readable:
            if not (words := os.read(sys.stdin.fileno(), 1000)):
                return
            for node in words.decode().split():
                spawn("slurmd", "-D", "-N", node)
        bury()


def spawn(*words: str) -> None:
    subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=control.die_with_parent)


def bury() -> None:
    """Reap whoever has ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return


def living() -> list[psutil.Process]:
    bury()
    return psutil.Process().children(recursive=True)


def end(folder: Path) -> None:
    """SIGKILL to what the jobs run, SIGTERM to the daemons, SIGKILL to whatever is left; then their folder goes."""
    control.kill([process for process in living() if process.name() not in DAEMONS])
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + KILL_SECONDS
    while living() and time.monotonic() < deadline:
        time.sleep(0.05)
    while left := living():
        control.kill(left)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
