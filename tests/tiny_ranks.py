"""Runs for tests of processes: real torchrun, ranks that are ten lines long."""

import sys
import textwrap
from pathlib import Path

import psutil
from patience import wait_for

from helpers.processes import control

STEP_LINE = (
    " [2026-01-01 00:00:00.000000] iteration {:8d}/     100 | consumed samples: 8 |"
    " elapsed time per iteration (ms): 50.0 | learning rate: 1.0E-03 |"
    " global batch size:     8 | lm loss: 5.000000E+00 | loss scale: 1.0 |"
)
RANK = f"""
import os, signal, sys, time
rank = int(os.environ["RANK"])

def steps(count=100_000):  # for over an hour: no test waits for that end
    for step in range(1, count + 1):
        print({STEP_LINE!r}.format(step))
        time.sleep(0.05)

"""


def write_run(directory: Path, script: str, count: int = 2) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "rank.py").write_text(RANK + textwrap.dedent(script))
    torchrun = f"{sys.executable} -m helpers.ranks.torchrun --nproc-per-node {count}"
    (directory / "command.sh").write_text(f"exec {torchrun} {directory}/rank.py\n")
    return directory


def start(directory: Path, count: int = 2, **options) -> control.Supervisor:
    with control.held(directory) as lock:
        return control.start(directory, lock, processes=count, trains=False, **options)


def log_of(directory: Path) -> str:
    return (directory / "log.txt").read_text() if (directory / "log.txt").exists() else ""


def all_ranks(directory: Path, count: int = 2) -> list[psutil.Process]:
    """The rank processes, once each of them has taken a step."""
    wait_for(lambda: all(f"[rank {r}]  [20" in log_of(directory) for r in range(count)), "first steps")
    ranks = [p for p in control.members(directory) if "RANK" in p.environ()]
    assert len(ranks) == count
    return sorted(ranks, key=lambda p: int(p.environ()["RANK"]))


def listening(process: psutil.Process) -> list:
    """The sockets on which a process waits for others."""
    return [socket for socket in process.net_connections("inet") if socket.status == psutil.CONN_LISTEN]


def end_of(directory: Path) -> dict:
    wait_for(lambda: control.state(directory) != "running", "the run's end")
    return control.read_status(directory)


def nobody_lives(directory: Path, pids: list[int]) -> bool:
    """After a while: the supervisor itself ends a moment after it wrote how the run ended."""

    def alive(pid: int) -> bool:
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    return wait_for(lambda: not control.members(directory) and not any(map(alive, pids)), "the last process's end")
