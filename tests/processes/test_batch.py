"""The supervisor of a job on Slurm: what it sees of its nodes."""

import time
import types

import pytest

from helpers.processes import batch, control, keeper
from helpers.processes.supervisor import parser


def test_a_clock_that_differs_is_told_once_and_in_words(tmp_path):
    control.write_status(
        tmp_path, state="running", launch=1, nodes=["n1", "n2", "n3"], log_start=0, started=time.time()
    )
    options = parser().parse_args(["--run-directory", str(tmp_path), "--processes", "3"])
    options.detached = True
    job = batch.Job(options)
    for node, ahead in enumerate((0, 600, -600)):
        folder = tmp_path / "ranks" / "1" / f"node{node}"
        folder.mkdir(parents=True)
        (folder / keeper.CLOCK).write_text(f"{time.time() + ahead}\n")
        job._compare_clocks()
    told = (tmp_path / "log.txt").read_text().splitlines()
    assert told == [
        f"=== the clock of {node} is at least {seconds} s {how} that of n1: times in this log differ by as much. "
        "Fix: NTP on both ==="
        for node, seconds, how in (("n2", 600, "ahead of"), ("n3", 600, "behind"))
    ]
    assert {node: round(seconds) for node, seconds in job.rank_logs.ahead.items()} == {1: 600, 2: -600}


@pytest.mark.parametrize(
    ("ended", "state", "reason", "again"),
    [
        ("", "stopped", "cancelled (scancel)", None),
        ("DUE TO PREEMPTION ", "stopped", None, "Slurm took its nodes away: preemption"),
        ("DUE TO TIME LIMIT ", "failed", "the time limit came before the ranks had saved", None),
    ],
)
def test_an_end_by_slurm_is_told_though_only_the_batch_script_heard_of_it(tmp_path, ended, state, reason, again):
    """proctrack/cgroup signals what slurmstepd itself has started, proctrack/linuxproc all that came of it."""
    control.write_status(tmp_path, state="running", launch=1, nodes=["n1", "n2"], log_start=0, started=time.time())
    options = parser().parse_args(["--run-directory", str(tmp_path), "--processes", "2"])
    options.detached, options.starts_left = True, 2
    (tmp_path / "log.txt").write_text(
        f"slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-26T23:54:45 {ended}***\n"
        f"slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-26T23:54:45 {ended}***\n"
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 3990 got signal: 15\n"
        "srun: error: n2: task 1: Exited with exit code 1\n"
    )
    job = batch.Job(options)
    job.torchrun = types.SimpleNamespace(code=1)
    job._conclude(*job._outcome())
    status = control.read_status(tmp_path)
    assert (status["state"], status["reason"], status.get("queued_again")) == (
        "running" if again else state,
        reason,
        again,
    )
