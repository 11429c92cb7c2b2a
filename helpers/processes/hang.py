"""When is a silent run a hanging one, and which rank do the others wait for?"""

import contextlib
import linecache
import re
import signal
from collections.abc import Iterable

import psutil

from helpers.processes import logs

QUIET_START_SECONDS = 1200  # before the first step: imports, index building, compiling
QUIET_PHASE_SECONDS = 1200  # evaluating, or writing a checkpoint
LINGER_SECONDS = 30  # after training, when all is evaluated and written: only the processes' end is left
DUMP_SECONDS = 3  # for a hanging rank to print where it stands
FRAME = re.compile(r'File "(.+?)", line (\d+)')
OF_A_RANK = "TORCHELASTIC_RUN_ID"  # a variable that torchrun sets for each
READS_GPU = re.compile(r"\.item\(\)|\.tolist\(\)|\.cpu\(\)|synchronize\(")
PHASES = {"saving checkpoint": "successfully saved", "Evaluating on": " loss at iteration"}  # first and last words


class HangWatch:
    """Decides from the log and the clock (seconds) whether training still goes forward.

    Silence is measured since the last output. It may last `timeout_seconds` between steps, or three times the longest
    gap between two steps so far; before the first two steps, and while a checkpoint is written or the model
    evaluated (every `eval_interval` steps and at the end), at least 20 minutes. Once `is_over` it may last 30 s.
    """

    def __init__(self, timeout_seconds: float, now: float, eval_interval: int = 0):
        self.timeout_seconds, self.eval_interval = timeout_seconds, eval_interval
        self.steps = 0
        self.longest_gap = 0.0
        self.last_output = self.last_step = now
        self.slow_phase = self.at_end = self.is_done = False
        self.awaited: set[str] = set()  # last words of the phases that go on

    def hear(self, text: str, now: float) -> None:
        """Take new log text into account."""
        self.last_output = now
        for line in text.splitlines():
            if step := logs.parse_step(line):
                if self.steps and not self.slow_phase:
                    self.longest_gap = max(self.longest_gap, now - self.last_step)
                self.steps += 1
                self.last_step = now
                evaluates = self.eval_interval and step.step % self.eval_interval == 0
                self.at_end = step.step == step.train_iters
                self.slow_phase = bool(evaluates) or self.at_end
            self.is_done = self.is_done or any(words in line for words in logs.TRAINING_IS_DONE)
            for first, last in PHASES.items():
                if first in line:
                    self.slow_phase = True
                    self.awaited.add(last)
                elif last in line:
                    self.slow_phase = self.at_end
                    self.awaited.discard(last)

    @property
    def is_over(self) -> bool:
        """Whether training is done, and so are the checkpoints and evaluations that began."""
        return self.is_done and not self.awaited

    def allowed_seconds(self) -> float:
        """How long the silence may last now."""
        if self.is_over:
            return min(self.timeout_seconds, LINGER_SECONDS)
        if self.steps < 2:
            return max(self.timeout_seconds, QUIET_START_SECONDS)
        allowed = max(self.timeout_seconds, 3 * self.longest_gap)
        return max(allowed, QUIET_PHASE_SECONDS) if self.slow_phase else allowed

    def is_hanging(self, now: float) -> bool:
        return now - self.last_output > self.allowed_seconds()


def main_thread(stacks: str) -> str:
    """The main thread's part of what faulthandler printed; all of it where none is told apart."""
    return next((block for block in re.split(r"\n\s*\n", stacks) if " in <module>" in block), stacks)


def waits_for_others(stacks: str) -> bool:
    """Whether a rank's main thread stands in a collective, or waits for a GPU that does.

    NCCL's collectives are only queued; the rank goes on until it reads a number from the GPU. That "torch/distributed"
    is in a dump says nothing: torch's `record` wraps `main`.
    """
    main = main_thread(stacks)
    if "torch/distributed/distributed_c10d.py" in main:
        return True
    innermost = FRAME.search(main)
    return bool(innermost and READS_GPU.search(linecache.getline(innermost[1], int(innermost[2]))))


def ranks_among(processes: Iterable[psutil.Process]) -> dict[int, psutil.Process]:
    """Those that are ranks, by rank."""
    ranks = {}
    for process in processes:
        with contextlib.suppress(psutil.Error, KeyError):
            rank = int(process.environ()["RANK"])
            if OF_A_RANK not in process.parent().environ():  # that is torchrun; a rank's own children have it, too
                ranks[rank] = process
    return ranks


def stopped_by_a_signal(ranks: dict[int, psutil.Process]) -> str | None:
    """Which ranks a signal (SIGSTOP) has stopped, and what to do, in words; None where none is."""
    stopped = []
    for rank, process in sorted(ranks.items()):
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                stopped.append(f"rank {rank} (process {process.pid})")
    fix = "stopped by SIGSTOP, so the run stands still. SIGCONT lets it go on, run.stop() ends it"
    return f"{', '.join(stopped)}: {fix}" if stopped else None


def dump(ranks: dict[int, psutil.Process]) -> list[int]:
    """Let every rank print its stacks (SIGABRT under faulthandler); those that a signal had stopped are returned."""
    stopped = []
    for rank, process in ranks.items():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                stopped.append(rank)
            process.send_signal(signal.SIGABRT)
            process.send_signal(signal.SIGCONT)
    psutil.wait_procs(list(ranks.values()), timeout=DUMP_SECONDS)
    return stopped


def describe(ranks: Iterable[int], stopped: list[int], rank_logs: logs.RankLogs, seconds: float) -> logs.Failure:
    """Of ranks that have printed their stacks, find the one that the others wait for."""
    stacks = {rank: logs.last_traceback(rank_logs.rank_text(rank)) for rank in ranks}
    waiting = [rank for rank, stack in stacks.items() if waits_for_others(stack)]
    suspects = stopped or [rank for rank in stacks if rank not in waiting] or sorted(stacks) or [None]
    reason = f"hangs: no step for {seconds:.0f} s" + (" (the process was stopped)" if stopped else "")
    return logs.Failure(suspects[0], None, reason, main_thread(stacks.get(suspects[0], "")))
