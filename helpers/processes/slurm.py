"""What Slurm knows of a run's job, and what is asked of it, in its own commands: sbatch, squeue, scontrol, scancel."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from helpers.processes.run_files import read_json

JOB = "job.json"  # in a run directory: the job that trains there, if it is one of Slurm
COMMANDS = ("sbatch", "sinfo", "squeue", "scontrol", "scancel")
LOOK_SECONDS = 2.0  # between two questions about one job, whoever asks: slurmctld serves a whole cluster
ANSWER_SECONDS = 60.0
LOOK_ANSWER_SECONDS = 10.0  # a cell that shows a run waits for no longer
FORMAT = "%T|%r|%N|%S"  # state, reason, nodes, start: of a waiting job the expected one
# squeue(1), JOB STATE CODES: those from which no job comes back by itself. GONE: forgotten (MinJobAge).
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "GONE",
)  # fmt: skip
UNTRUSTED = ("Zero Bytes were transmitted", "authentication")  # slurmctld hangs up on whom it does not trust
WHY_UNTRUSTED = (
    "slurmctld does not trust this machine: munge's key differs, or the clocks are more than five minutes apart. "
    "`munge -n | ssh <slurmctld's host> unmunge` says which"
)
SILENT = "SILENT"  # Slurm itself does not answer
_known: dict[tuple, tuple[float, "Job"]] = {}


class SlurmRefused(RuntimeError):
    """Slurm did not do what it was asked to; the message has its own words."""


@dataclass(frozen=True)
class Job:
    """A job as squeue tells of it; `nodes` as Slurm writes a list of them ("n[1-2]"), "" while it waits."""

    number: int
    state: str
    reason: str = ""
    nodes: str = ""
    start: str = ""

    @property
    def is_going(self) -> bool:
        """Whether it runs, waits or ends just now. One that Slurm says nothing about is taken to go on."""
        return self.state not in ENDED

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")

    def __str__(self) -> str:
        if self.state == SILENT:
            return f"Slurm does not answer about job {self.number}: {self.reason}"
        if self.waits:
            when = f", expected to start at {self.start}" if self.start not in ("", "N/A") else ""
            return f"job {self.number} waits: {self.state.lower()}, reason {self.reason}{when}"
        return f"job {self.number}: {self.state.lower()}" + (f" on {self.nodes}" if self.nodes else "")


def why_not() -> str | None:
    """Why no job can be submitted from here, in words; None where Slurm's commands are there, and it answers them."""
    if why := _why_no_commands():
        return why
    try:
        _ask("sinfo", "--noheader", seconds=LOOK_ANSWER_SECONDS)
    except SlurmRefused as refusal:
        return f"No slurmctld answers here. {refusal}."
    return None


def _why_no_commands() -> str | None:
    missing = [name for name in COMMANDS if not shutil.which(name)]
    return f"{', '.join(missing)} not found: this is no login node of a Slurm cluster." if missing else None


def has_other_machines() -> bool:
    """Whether a job may run elsewhere: False where all nodes are this machine, as those of `cluster.OwnSlurm`.

    Raises:
        SlurmRefused: Slurm does not answer.
    """
    addresses = set(_ask("sinfo", "--noheader", "--Node", "--format=%o", seconds=LOOK_ANSWER_SECONDS).split())
    return not addresses <= {"127.0.0.1", "localhost", socket.gethostname()}


def submit(run_directory: Path) -> int:
    """Submit `job.sh` of a run directory; its number is kept beside it.

    Raises:
        SlurmRefused: sbatch said no.
    """
    answer = _ask("sbatch", "--parsable", str(Path(run_directory) / "job.sh"))
    number = int(answer.split(";")[0])
    described = {"job": number, "slurm_conf": os.environ.get("SLURM_CONF")}
    (Path(run_directory) / JOB).write_text(json.dumps(described) + "\n")
    return number


def forget(run_directory: Path) -> None:
    """The run goes on without Slurm."""
    (Path(run_directory) / JOB).unlink(missing_ok=True)


def number_of(run_directory: Path) -> int | None:
    """The number of the job that trains in a run directory; None where none was ever submitted."""
    return read_json(Path(run_directory) / JOB).get("job")


def look(run_directory: Path) -> Job | None:
    """What Slurm says of a run's job now, at most two seconds old; None where the run has none."""
    described = read_json(Path(run_directory) / JOB)
    if not (number := described.get("job")):
        return None
    key = (number, described.get("slurm_conf"))
    asked, job = _known.get(key, (-LOOK_SECONDS, None))
    if time.monotonic() - asked >= LOOK_SECONDS:
        job = _look(*key)
        _known[key] = (time.monotonic(), job)
    return job


def _look(number: int, conf: str | None) -> Job:
    try:
        line = _ask(
            "squeue",
            "--noheader",
            "--states=all",
            f"--jobs={number}",
            f"--format={FORMAT}",
            conf=conf,
            seconds=LOOK_ANSWER_SECONDS,
        )
    except SlurmRefused as refusal:
        return Job(number, "GONE") if "Invalid job id" in str(refusal) else Job(number, SILENT, str(refusal))
    parts = line.strip().split("|")
    return Job(number, *parts) if len(parts) == 4 else Job(number, "GONE")


def cancel(run_directory: Path) -> None:
    """End a run's job, waiting or running: SIGTERM to all its processes, SIGKILL after Slurm's KillWait."""
    _told(run_directory, "scancel")


def signal_ranks(run_directory: Path, name: str) -> None:
    """Send a signal ("USR1") to every process of the job's steps, on all nodes; its batch script does not hear it."""
    _told(run_directory, "scancel", f"--signal={name}")


def _told(run_directory: Path, *words: str) -> None:
    described = read_json(Path(run_directory) / JOB)
    with contextlib.suppress(SlurmRefused):  # it has ended since
        _ask(*words, str(described["job"]), conf=described.get("slurm_conf"))
    _known.pop((described["job"], described.get("slurm_conf")), None)


def _ask(*words: str, conf: str | None = None, seconds: float = ANSWER_SECONDS) -> str:
    environment = os.environ | ({"SLURM_CONF": conf} if conf else {})
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise SlurmRefused(_why_no_commands() or f"{words[0]} cannot be started") from None
    except subprocess.TimeoutExpired:
        raise SlurmRefused(f"{words[0]} gave no answer within {seconds:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        why = f" ({WHY_UNTRUSTED})" if any(sign in said for sign in UNTRUSTED) else ""
        raise SlurmRefused(f"{words[0]}: {said}{why}")
    return done.stdout
