"""The life and death of a run's processes, seen from outside: start its supervisor, know its state, stop it for good.

A run's processes are the supervisor (`helpers/processes/supervisor.py`), the torchrun it starts and one process per
rank. The supervisor holds the lock of the run directory as long as it lives, so "is this run going?" is asked of the
lock, not of a process id that somebody else may have by now. Every process of a run carries the run directory in its
environment: that finds the ones that outlived their parents.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.machine import PROJECT
from helpers.processes import hang, locks, logs, slurm
from helpers.processes.locks import Busy, held
from helpers.processes.status import begin, read_status, write_status

MARK = "MEGATRON_TOUR_RUN"  # environment variable of every process of a run: its directory
TERM_SECONDS = 20  # what ranks get between SIGTERM and SIGKILL; torchrun itself would wait 30
STOP = "stop"  # in the directory of a run on Slurm: its ranks were told to save because somebody wants it to end
SAVE = "USR1"  # the signal that tells them, and that Slurm sends before the time limit
JOB_SECONDS = 60  # what Slurm takes to end a job that is cancelled, its KillWait included
SUSPENDED = "the run's supervisor is stopped (SIGSTOP): run.stop() ends the run, SIGCONT lets it go on"
SILENT_SECONDS = 3  # of the log, before its ranks are looked at one by one
GONE_SECONDS = 10  # what the kernel takes to bury killed processes on a busy machine, at most
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


@dataclass
class Supervisor:
    """A started supervisor. As long as `lifeline` is open the run lives; a detached run has none."""

    process: subprocess.Popen
    lifeline: int | None

    def close(self) -> None:
        """Let go of the lifeline: an attached run stops, if it has not ended, and its supervisor is waited for."""
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TERM_SECONDS + GONE_SECONDS)
        self.process.poll()


def state(run_directory: Path) -> str:
    """ "running", "finished", "failed" or "stopped". A run whose supervisor is gone without a word has failed.

    A run on Slurm is "running" while its job waits, too.
    """
    last = read_status(run_directory).get("state", "stopped")
    if last == "running" and not is_alive(run_directory):
        last = read_status(run_directory).get("state", "stopped")  # it may have ended between the two looks
        return _without_a_word(run_directory)[0] if last == "running" else last
    return last


def _without_a_word(run_directory: Path) -> tuple[str, str]:
    """State and reason of a run whose supervisor left none."""
    if job := slurm.look(run_directory):
        return "stopped" if job.state == "CANCELLED" else "failed", f"Slurm ended {job}"
    return "failed", "the run's supervisor was killed or crashed"


def is_alive(run_directory: Path) -> bool:
    """Whether a supervisor holds the run directory. The lock of another user's run is theirs: there, by its process.

    Of a run on Slurm, whose supervisor is on another machine, Slurm is asked.
    """
    if job := slurm.look(run_directory):
        return job.is_going
    try:
        return locks.is_taken(run_directory)
    except FileNotFoundError:
        return False
    except PermissionError:
        return _supervisor(run_directory) is not None


def suspended(run_directory: Path) -> bool:
    """Whether the run's supervisor is stopped by a signal (SIGSTOP): then nobody looks after the ranks, which go on."""
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor = _supervisor(run_directory)
        return supervisor is not None and supervisor.status() == psutil.STATUS_STOPPED
    return False


def standstill(run_directory: Path) -> str | None:
    """Why nothing can come from a run just now, in words; None where something may."""
    job = slurm.look(run_directory)
    if job and (job.waits or job.state == slurm.SILENT):
        last = read_status(run_directory)
        without_a_word = "its last start ended without a word: the first node failed" if last.get("pid") else None
        return "; ".join(filter(None, [str(job), last.get("queued_again") or without_a_word]))
    if suspended(run_directory):
        return SUSPENDED
    with contextlib.suppress(OSError, psutil.NoSuchProcess):
        silent_seconds = time.time() - (Path(run_directory) / "log.txt").stat().st_mtime
        if not job and silent_seconds > SILENT_SECONDS and (supervisor := _supervisor(run_directory)):
            return hang.stopped_by_a_signal(hang.ranks_among(supervisor.children(recursive=True)))
    return None


def start(
    run_directory: Path,
    lock: int,
    *,
    processes: int,
    processes_per_node: int | None = None,
    script: str = "command.sh",
    detach: bool = False,
    hang_timeout_seconds: float = 600,
    trains: bool = True,
    eval_interval: int = 0,
    keep: int = 0,
    afterwards: Sequence[str] = (),
) -> Supervisor:
    """Start the supervisor of a run directory that holds `command.sh`; `lock` comes from `held`.

    `processes` is the number of ranks, `processes_per_node` of those on each of several hosts, `script` the file there
    that starts them all, `keep` how many checkpoints stay (0: all), `trains` whether an end without
    Megatron's closing words counts as a failure, `afterwards` a command that the supervisor runs last. It has a session
    of its own: what a terminal or Jupyter sends to the kernel's process group does not reach it. It hears of the
    kernel's end through a pipe that only the kernel holds open.
    """
    reading, lifeline = (None, None) if detach else os.pipe()  # neither end goes to other children of this process
    run_directory = Path(run_directory).resolve()
    arguments = ["--run-directory", str(run_directory), "--processes", str(processes), "--lock", str(lock)]
    arguments += ["--hang-timeout-seconds", str(hang_timeout_seconds), "--eval-interval", str(eval_interval)]
    arguments += ["--keep", str(keep), *["--detached"] * detach, *["--trains"] * trains]
    arguments += ["--script", script, "--afterwards", json.dumps(afterwards)]
    each = processes_per_node
    slurm.forget(run_directory)
    log = begin(run_directory, processes=processes, processes_per_node=each, detached=detach)
    # With that one set, as in many containers, every start would compile torch and Megatron anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "helpers.processes.supervisor", *arguments],
            cwd=PROJECT,
            env=environment | {MARK: str(run_directory)},
            stdin=subprocess.DEVNULL if detach else reading,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
        )
    except BaseException:
        if lifeline is not None:
            os.close(lifeline)
        raise
    finally:
        log.close()
        if reading is not None:
            os.close(reading)
    return Supervisor(process, lifeline)


def members(run_directory: Path) -> list[psutil.Process]:
    """Every living process of the run, orphans too: those with the run directory in their environment."""
    run_directory = Path(run_directory).resolve()
    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(run_directory) and process.status() != psutil.STATUS_ZOMBIE:
                marked.append(process)
    return [process for process in marked if process.pid != os.getpid()]


def stop(run_directory: Path) -> str:
    """End a run, whatever state it is in, and return once no process of it lives (35 s at most); its state is returned.

    The supervisor is asked first and does it cleanly. If it is gone or does not answer, its processes are killed one
    by one; then what the ranks wrote last is brought into `log.txt`. A run on Slurm saves first, if it has taken a
    step and can do so in 20 s.

    Raises:
        Busy: it is another user's run.
    """
    run_directory = Path(run_directory).resolve()
    if os.getuid() not in (0, run_directory.stat().st_uid):
        raise Busy(locks.whose(run_directory))
    if slurm.number_of(run_directory):
        _stop_job(run_directory)
        bury(run_directory)
        return state(run_directory)
    deadline = time.monotonic() + TERM_SECONDS + GONE_SECONDS
    asked = False
    while is_alive(run_directory) and time.monotonic() < deadline:
        asked = asked or _signal_supervisor(run_directory, signal.SIGTERM)
        time.sleep(0.05)
    if is_alive(run_directory):
        _signal_supervisor(run_directory, signal.SIGKILL)
        deadline = time.monotonic() + GONE_SECONDS
        while is_alive(run_directory) and time.monotonic() < deadline:
            time.sleep(0.05)
    bury(run_directory)
    return state(run_directory)


def _stop_job(run_directory: Path) -> None:
    """End the job of a run on Slurm and wait until Slurm says that it is over."""
    if not (job := slurm.look(run_directory)).is_going:
        return
    status = read_status(run_directory)
    if not job.waits and status.get("pid") and logs.last_step(run_directory / "log.txt", status["log_start"]):
        (run_directory / STOP).touch()
        slurm.signal_ranks(run_directory, SAVE)
        _wait(TERM_SECONDS, lambda: state(run_directory) != "running")
    if state(run_directory) == "running":
        slurm.cancel(run_directory)
    _wait(JOB_SECONDS, lambda: not slurm.look(run_directory).is_going)


def _wait(seconds: float, is_over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not is_over() and time.monotonic() < deadline:
        time.sleep(0.2)


def bury(run_directory: Path) -> None:
    """Kill what a dead supervisor left alive and finish its log and status; nothing to do after a clean end.

    A run that somebody holds is left alone: it has been started anew.
    """
    with contextlib.suppress(Busy), held(run_directory):
        bury_held(run_directory)


def bury_held(run_directory: Path) -> None:
    """What `bury` does, for a caller who holds the run directory."""
    run_directory = Path(run_directory)
    kill(members(run_directory))
    status = read_status(run_directory)
    if status.get("state") != "running":
        return
    ended, reason = _without_a_word(run_directory)
    ranks = run_directory / "ranks" / str(status.get("launch", 1))
    started = status.get("started", time.time())
    last_words = max([started, *(path.stat().st_mtime for path in ranks.rglob("*.log"))])
    on_ranks = status.get("processes", 1), status.get("processes_per_node")
    logs.RankLogs(ranks, run_directory / "log.txt", *on_ranks).merge(final=True)
    write_status(
        run_directory,
        state=ended,
        reason=reason,
        ended=last_words,
        wall_seconds=status.get("wall_seconds", 0) + last_words - started,
    )


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL each by itself (psutil checks that the id still means the same process) and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=GONE_SECONDS)


def die_with_parent(death_signal: int = signal.SIGTERM) -> None:
    """Ask Linux for `death_signal` when the thread that started this process ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _signal_supervisor(run_directory: Path, number: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        if supervisor := _supervisor(run_directory):
            supervisor.send_signal(number)
            supervisor.resume()  # one that is stopped would hear it never
            return True
    return False


def _supervisor(run_directory: Path) -> psutil.Process | None:
    """The process that `status.json` names, if it is still the same one."""
    status = read_status(run_directory)
    with contextlib.suppress(psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        supervisor = psutil.Process(status["pid"])
        if abs(supervisor.create_time() - status["create_time"]) < 1:
            return supervisor
    return None
