"""The process that owns a run: it starts `command.sh` (torchrun), keeps the log, and sees to it that nothing lives on.

    python -m helpers.processes.supervisor --run-directory runs/gpt3_345m/20260301-101500 --processes 2 --lock 3

Started by `control.start`, one per launch, in a session of its own. It stops the run when it is told to (SIGTERM,
SIGINT), when the notebook's kernel is gone (end of file on standard input, unless `--detached`), when no step comes
any more, or when training is done and the ranks do not end. It reads a few file sizes five times a second and sleeps
otherwise.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from helpers.machine import PROJECT
from helpers.processes import checkpoints, control, hang, loading, logs
from helpers.processes.owned import Owned, ranks_of
from helpers.processes.status import open_append

POLL_SECONDS = 0.2


class Run:
    """One launch of one run directory, from torchrun's start to the last process's end."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.directory: Path = options.run_directory
        self.checkpoints = self.directory / "checkpoints"
        self.status = control.read_status(self.directory)
        self.rank_directory = self.directory / "ranks" / str(self.status["launch"])
        on_ranks = options.processes, self.status.get("processes_per_node")
        self.rank_logs = logs.RankLogs(self.rank_directory, self.directory / "log.txt", *on_ranks)
        self.watch = hang.HangWatch(options.hang_timeout_seconds, time.monotonic(), options.eval_interval)
        self.goes_on_after = checkpoints.latest(self.checkpoints)
        self.stop_asked: str | None = None
        self.wrong_start: str | None = None
        self.starts_again: str | None = None  # why a scheduler starts it again
        self.tracker_time = 0.0
        self.half_time: set[tuple] | None = None  # the checkpoints' files when half of the longest silence was over
        self.kernel = None if options.detached else psutil.Process(options.kernel)
        self.kernel_looked_at = time.monotonic()

    def start(self) -> None:
        self.rank_directory.mkdir(parents=True, exist_ok=True)
        # torchrun reads PET_* as defaults of its own options, so the command stays the one the learner sees.
        environment = {
            "PET_LOG_DIR": str(self.rank_directory),
            "PET_REDIRECTS": "3",
            "PYTHONFAULTHANDLER": "1",  # a rank that is ended for hanging prints where it stood
        }
        with open_append(self.directory / "log.txt") as log:
            self.torchrun = Owned(self._words(), environment | os.environ, log)
        me, torchrun_started = psutil.Process(), time.time()
        control.write_status(
            self.directory,
            pid=me.pid,
            create_time=me.create_time(),
            torchrun_pid=self.torchrun.process.pid,
            torchrun_started=torchrun_started,
        )

    def _words(self) -> list[str]:
        return ["bash", str(self.directory / self.options.script)]

    def supervise(self) -> None:
        """Watch until torchrun ends, something ends it, or somebody asks for the end; then leave nothing behind."""
        hangs = False
        while self.torchrun.code is None and not self.stop_asked and not self.wrong_start and not hangs:
            self._wait()
            self._look()
            hangs = not self.stop_asked and self._hangs()
        if hangs and self.watch.is_over:
            self._log(f"training was done, but the ranks did not end: silent for {self.watch.allowed_seconds():.0f} s")
            self._end_processes()
            self._conclude("finished", None)
        elif hangs:
            failure = self._hanging()
            self._end_processes()
            self._conclude("failed", failure)
        elif self.stop_asked and self.torchrun.code is None:
            self._end_processes()
            self._conclude("stopped", None)
        elif self.wrong_start:
            self._end_processes()
            self._conclude("failed", logs.Failure(None, None, self.wrong_start))
        else:
            self._end_processes()
            self._conclude(*self._outcome())

    def _wait(self) -> None:
        watched = [] if self.options.detached else [sys.stdin.fileno()]
        with contextlib.suppress(InterruptedError):
            readable, _, _ = select.select(watched, [], [], POLL_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                self.stop_asked = "the notebook's kernel ended"
        now = time.monotonic()
        if self.kernel and now - self.kernel_looked_at > 2:  # a child forked by the kernel may keep the pipe open
            self.kernel_looked_at = now
            if not self.kernel.is_running() or self.kernel.status() == psutil.STATUS_ZOMBIE:
                self.stop_asked = "the notebook's kernel ended"

    def _look(self) -> None:
        """Bring the log up to date, bury orphans, let old checkpoints go."""
        if text := self.rank_logs.merge():
            if self.options.trains and not self.watch.steps:
                self.wrong_start = loading.wrong_start(text, self.checkpoints, self.goes_on_after)
            self.watch.hear(text, time.monotonic())
        self.torchrun.bury_orphans()
        if self.options.keep:
            with contextlib.suppress(OSError):
                changed = (self.checkpoints / checkpoints.TRACKER).stat().st_mtime
                if changed != self.tracker_time:
                    self.tracker_time = changed
                    checkpoints.prune(self.checkpoints, self.options.keep)

    def _hangs(self) -> bool:
        """Whether the silence is too long, and no file of a checkpoint has changed in its second half.

        What the files' times are by the clock of this host does not matter: a file server has its own.
        """
        now = time.monotonic()
        if now - self.watch.last_output < self.watch.allowed_seconds() / 2:
            self.half_time = None
            return False
        if self.half_time is None:
            self.half_time = self._written()
        if not self.watch.is_hanging(now):
            return False
        if self._written() != self.half_time:  # a checkpoint grows
            self.watch.last_output = now
            return False
        return True

    def _written(self) -> set[tuple]:
        found = set()
        for path in self.checkpoints.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path, path.stat().st_size, path.stat().st_mtime_ns))
        return found

    def _hanging(self) -> logs.Failure:
        ranks = ranks_of(self.torchrun)
        return hang.describe(ranks, hang.dump(ranks), self.rank_logs, self.watch.allowed_seconds())

    def _end_processes(self) -> None:
        self.torchrun.end(control.TERM_SECONDS, meanwhile=self._look)
        if text := self.rank_logs.merge(final=True):
            self.watch.hear(text, time.monotonic())

    def _outcome(self) -> tuple[str, logs.Failure | None]:
        """What torchrun's end means."""
        code = self.torchrun.code
        if code == 0 and (self.watch.is_done or not self.options.trains):
            return "finished", None
        launch_log = self.launch_log()
        if code == 0:
            return "failed", logs.Failure(None, 0, "the program ended before training was done", launch_log[-2000:])
        if code < 0:
            return "failed", logs.Failure(None, code, f"torchrun was killed by {logs.signal_name(-code)}")
        return "failed", logs.find_failure(self.rank_logs, launch_log, code)

    def launch_log(self) -> str:
        with contextlib.suppress(OSError), open(self.directory / "log.txt", "rb") as log:
            log.seek(self.status.get("log_start", 0))
            return log.read().decode(errors="replace")
        return ""

    def _conclude(self, state: str, failure: logs.Failure | None) -> None:
        """Make room if the disk is full, then write how it ended."""
        note = checkpoints.no_room(self.checkpoints) if failure else None
        did_not_load = failure and self.goes_on_after is not None and not self.watch.steps
        damaged = loading.set_aside(self.launch_log(), self.checkpoints, self.goes_on_after) if did_not_load else []
        repaired = damaged + checkpoints.repair(self.checkpoints, 0)
        self.rank_logs.merge(final=True)
        stopped = self.stop_asked if state == "stopped" else None  # it may have ended by itself before it was asked to
        if stopped:
            self._log(f"stopped: {stopped}")
        if note or damaged:
            self._log("; ".join(filter(None, [note, *repaired])))
        if state == "finished":  # all of it is in log.txt
            shutil.rmtree(self.rank_directory, ignore_errors=True)
        reason = stopped if failure is None else "; ".join(filter(None, [failure.reason, note, *damaged]))
        ended = time.time()
        control.write_status(
            self.directory,
            state="running" if self.starts_again else state,
            exit_code=self.torchrun.code,
            reason=reason,
            failing_rank=failure.rank if failure else None,
            failing_node=self._node_of(failure),
            traceback=failure.traceback if failure else "",
            disk_full=note is not None,
            ended=ended,
            wall_seconds=self.status.get("wall_seconds", 0) + ended - self.status["started"],
        )

    def _node_of(self, failure: logs.Failure | None) -> str | None:
        return None

    def _log(self, words: str) -> None:
        with contextlib.suppress(OSError), open_append(self.directory / "log.txt") as log:
            log.write(f"=== {words} ===\n".encode())


def parser() -> argparse.ArgumentParser:
    """The options of a supervisor, wherever it runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-directory", type=Path, required=True)
    parser.add_argument("--processes", type=int, required=True, help="ranks")
    parser.add_argument("--hang-timeout-seconds", type=float, default=600)
    parser.add_argument("--eval-interval", type=int, default=0, help="steps between evaluations; 0: none")
    parser.add_argument("--keep", type=int, default=0, help="checkpoints to keep; 0 keeps all")
    parser.add_argument("--trains", action="store_true", help="exit code 0 without training is a failure")
    return parser


def main() -> None:
    arguments = parser()
    arguments.add_argument("--lock", type=int, required=True, help="file descriptor of the run directory's lock")
    arguments.add_argument("--kernel", type=int, default=os.getppid(), help="process whose end is the run's end")
    arguments.add_argument("--afterwards", type=json.loads, help="a command, as JSON: run once the run has ended")
    arguments.add_argument("--script", default="command.sh", help="what starts them, a file of the run directory")
    arguments.add_argument("--detached", action="store_true", help="outlive the kernel")
    options = arguments.parse_args()
    os.set_inheritable(options.lock, False)  # the lock ends with this process, not with torchrun
    run = Run(options)

    def ask(number, frame):
        run.stop_asked = run.stop_asked or f"asked to by {signal.Signals(number).name}"

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    if options.detached:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run.start()
    run.supervise()
    if options.afterwards:
        os.close(options.lock)
        subprocess.run(options.afterwards, cwd=PROJECT)


if __name__ == "__main__":
    main()
