"""The supervisor of a job on Slurm: what it sees of its nodes."""

import time

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
