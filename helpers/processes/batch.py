"""The supervisor of a run on Slurm: it runs on the job's first node and has srun start a keeper on each.

    python -m helpers.processes.batch --run-directory RUN --processes 16 -- srun … helpers.processes.keeper RUN

Started by `job.sh`, once for each start of the job. What it does beyond a run of one machine: it hears from srun which
node lost its part, ends the others, and says whether another start is worth it (exit code 75; `job.sh` then queues the
job again). Ranks are counted over all nodes.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

from helpers.processes import checkpoints, control, diagnosis, hang, keeper, logs, status
from helpers.processes.supervisor import Run, parser

AGAIN = 75  # exit code: another start may go better (EX_TEMPFAIL in sysexits.h)
LAST_WORDS_SECONDS = 3.0  # what the other nodes' ranks get to say that they lost one
QUEUED_SECONDS = 60.0  # what whoever submits a job that starts at once gets to write down its number
CLOCK_SECONDS = 5.0  # by which a node's clock differs before it is told
END_SECONDS = 10.0  # what keepers get to end everything on their nodes
LOST = re.compile(r"^srun: error: (?P<node>\S+): tasks? \S+: (?!Terminated)(?P<how>.+)$", re.MULTILINE)
NODE_FAILED = re.compile(
    r"^srun: error: (?:Node failure on (?P<node>\S+)|.*missing step on node (?P<number>\d+))", re.M
)
TORCHRUN = re.compile(r"^=== torchrun on (?P<node>\S+) (?P<how>was killed by .+) ===$", re.MULTILINE)
ENDED = re.compile(r"error: \*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ (?:DUE TO (?P<why>[A-Z ]+?) )?\*\*\*")
SAVED = "[exiting program after receiving SIGTERM.]"  # Megatron's words, whichever signal it was
PASSING = (  # symptoms that another start, on other nodes and with another port, may not meet again
    "port taken", "machines did not meet", "NCCL error", "NCCL waited too long", "gloo waited too long", "lost a rank",
    "defective GPU memory", "killed by the kernel", "crashed in native code",
)  # fmt: skip


class Job(Run):
    """One start of a job, from srun's start to the last process's end on any node."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        self.nodes: list[str] = self.status["nodes"]
        self.own = logs.Tail(self.directory / "log.txt", self.status["log_start"])
        self.lost_at: float | None = None
        self.told = False
        self.without_clock = dict(enumerate(self.nodes))  # those whose clock was not looked at so far

    def _words(self) -> list[str]:
        return self.options.command

    def _look(self) -> None:
        """Where a node is lost, the others get a while to notice; then their keepers are told, at last srun."""
        super()._look()
        self._compare_clocks()
        if self.lost_at is None:
            said = self.own.read()
            if LOST.search(said) or NODE_FAILED.search(said) or self._ended_badly():
                self.lost_at = time.monotonic()
            return
        since = time.monotonic() - self.lost_at
        if since > LAST_WORDS_SECONDS and not self.told:
            self.told = True
            self._tell(keeper.END)
        if since > LAST_WORDS_SECONDS + END_SECONDS and self.torchrun.code is None:
            self.torchrun.process.terminate()

    def _compare_clocks(self) -> None:
        """A keeper has written what time it was: a moment since this launch began, where its clock agrees with ours."""
        for node, name in list(self.without_clock.items()):
            with contextlib.suppress(OSError, ValueError):
                theirs = float((self.rank_directory / f"node{node}" / keeper.CLOCK).read_text())
                del self.without_clock[node]
                ahead = theirs - min(max(theirs, self.status["started"]), time.time())
                if abs(ahead) > CLOCK_SECONDS:
                    self.rank_logs.ahead[node] = ahead
                    how = f"at least {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {self.nodes[0]}"
                    self._log(f"the clock of {name} is {how}: times in this log differ by as much. Fix: NTP on both")

    def _ended_badly(self) -> bool:
        ends = [path.read_text() for path in self.rank_directory.glob(f"node*/{keeper.ENDED}")]
        return any(end not in ("", "0") for end in ends)

    def _tell(self, number: signal.Signals) -> None:
        """By srun: what scancel cannot tell a dead node Slurm keeps, and tells the next start there a minute later."""
        if self.torchrun.code is None:
            self.torchrun.process.send_signal(number)

    def _hanging(self) -> logs.Failure:
        self._tell(keeper.STACKS)
        time.sleep(hang.DUMP_SECONDS)
        self.rank_logs.merge()
        return hang.describe(range(self.options.processes), [], self.rank_logs, self.watch.allowed_seconds())

    def _end_processes(self) -> None:
        """Keepers end what is on their nodes; then srun, whose end would have Slurm kill them."""
        deadline = time.monotonic() + END_SECONDS
        if not self.stop_asked:
            self._tell(keeper.END)
        while self.torchrun.code is None and time.monotonic() < deadline:
            time.sleep(0.1)
            super()._look()
        super()._end_processes()

    def _outcome(self) -> tuple[str, logs.Failure | None]:
        said = self.launch_log()
        if SAVED in said and self.torchrun.code == 0:
            if (self.directory / control.STOP).exists():
                self.stop_asked = f"asked to by run.stop(), saved after step {checkpoints.latest(self.checkpoints)}"
            else:
                self.stop_asked = "the time limit was near"
                self._start_again(self.stop_asked)
            return "stopped", None
        if gone := NODE_FAILED.search(said):
            node = gone["node"] or self.nodes[int(gone["number"])]
            return self._failed(logs.Failure(None, None, f"node {node} failed"), passing=True)
        if self.torchrun.code != 0 and any(ended[0].startswith("error: *** JOB") for ended in ENDED.finditer(said)):
            self.stop_asked = "Slurm ended the job"  # by a signal that proctrack/cgroup keeps from this process
            return "stopped", None
        if killed := TORCHRUN.search(said):
            failure = logs.Failure(None, None, f"torchrun on {killed['node']} {killed['how']}")
            return self._failed(failure, passing=True)
        state, failure = super()._outcome()
        if failure is None:
            return state, None
        found = diagnosis.diagnose("\n".join([said, failure.traceback, failure.reason]))
        if found and failure.rank is None:  # torchrun's own end says little
            failure = replace(failure, reason=f"{failure.reason}: {found.name}")
        return self._failed(failure, passing=found is not None and found.name in PASSING)

    def _failed(self, failure: logs.Failure, passing: bool) -> tuple[str, logs.Failure]:
        if passing:
            self._start_again(" ".join(filter(None, [self._who(failure), failure.reason])))
        return "failed", failure

    def _start_again(self, why: str) -> None:
        if self.options.starts_left > 0:
            self.starts_again = why

    def _who(self, failure: logs.Failure) -> str:
        return "" if failure.rank is None else f"rank {failure.rank} on {self._node_of(failure)}"

    def _node_of(self, failure: logs.Failure | None) -> str | None:
        if failure is None or failure.rank is None:
            return None
        return self.nodes[failure.rank // self.rank_logs.processes_per_node]

    def _conclude(self, state: str, failure: logs.Failure | None) -> None:
        """Where Slurm ended the job (SIGTERM), slurmstepd has said why."""
        if self.stop_asked and self.torchrun.code != 0 and (ended := ENDED.search(self.launch_log())):
            self.stop_asked = None if ended["why"] else "cancelled (scancel)"
            if ended["why"] == "TIME LIMIT":
                state, failure = "failed", logs.Failure(None, None, "the time limit came before the ranks had saved")
            elif ended["why"]:
                self.starts_again = f"Slurm took its nodes away: {ended['why'].lower()}"
        super()._conclude(state, failure)
        if self.starts_again:
            control.write_status(self.directory, pid=None, queued_again=self.starts_again)
            step = checkpoints.latest(self.checkpoints)
            after = "from step 1" if step is None else f"after step {step}"
            self._log(f"queued again, to go on {after}: {self.starts_again}")


def main() -> int:
    arguments = parser()
    arguments.add_argument("--starts-left", type=int, default=0, help="how often the job may be queued again")
    arguments.add_argument("command", nargs="+", help="srun, with what it starts on each node")
    options = arguments.parse_args()
    options.detached = True
    directory = options.run_directory
    names = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True).stdout.split()
    with control.held(directory, QUEUED_SECONDS):
        if control.read_status(directory).get("pid"):  # an earlier start, which its node took along
            control.bury_held(directory)
        (directory / control.STOP).unlink(missing_ok=True)
        checkpoints.repair(directory / "checkpoints")
        each = options.processes // len(names)
        status.begin(
            directory, processes=options.processes, processes_per_node=each, detached=True, nodes=names
        ).close()
        run = Job(options)

        def ask(number, frame):
            run.stop_asked = run.stop_asked or f"asked to by {signal.Signals(number).name}"

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)
        run.start()
        run.supervise()
    return AGAIN if run.starts_again else 0 if control.state(directory) in ("finished", "stopped") else 1


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
