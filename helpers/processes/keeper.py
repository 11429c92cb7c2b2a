"""One node's part of a run: owns `command.sh` (torchrun) there, and leaves nothing behind, however it ends.

    srun --ntasks-per-node=1 python -m helpers.processes.keeper RUN_DIRECTORY

Started by srun, once on each node of a job; `helpers/processes/batch.py` on the first node tells the keepers what to do
by signals. Slurm sends those to every process of a node (with proctrack/cgroup to the keeper alone): torchrun and the
ranks are set to ignore them, and Megatron hears the one that says "save" from its first step on. The keeper passes it
on, again and again, since ranks may not be so far.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from helpers.processes import control, hang
from helpers.processes.logs import signal_name
from helpers.processes.owned import Owned, ranks_of

SAVE, STACKS, END = signal.SIGUSR1, signal.SIGALRM, signal.SIGUSR2  # srun passes the latter two on
END_SECONDS = 5.0  # what torchrun gets to end the ranks that a lost one leaves; it is no time for them to save
POLL_SECONDS = 0.1
AGAIN_SECONDS = 5.0  # between two times that ranks are told to save
ENDED = "ended"  # in the folder of a node's logs: how torchrun ended there
CLOCK = "clock"  # beside it: what time it was there when the keeper started, in seconds since 1970


def main(directory: Path, node: int) -> int:
    heard: set[int] = set()
    save_at = float("inf")
    for number in (SAVE, STACKS, END):
        signal.signal(number, signal.SIG_IGN)  # what is started now ignores them, but for ranks that say otherwise
    logs = Path(os.environ["PET_LOG_DIR"]) / f"node{node}"
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # the disk is full
        (logs / CLOCK).write_text(f"{time.time()}\n")
    variables = {control.MARK: str(directory), "PET_NODE_RANK": str(node), "PET_LOG_DIR": str(logs)}
    torchrun = Owned(["bash", str(directory / "command.sh")], os.environ | variables)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, SAVE, STACKS, END):
        signal.signal(number, lambda number, frame: heard.add(number))
    while torchrun.code is None and heard <= {SAVE, STACKS}:
        if STACKS in heard:
            heard.discard(STACKS)
            hang.dump(ranks_of(torchrun))
        if SAVE in heard:
            heard.discard(SAVE)
            save_at = time.monotonic()  # with proctrack/cgroup Slurm has told nobody but this process
        if time.monotonic() >= save_at:
            save_at = time.monotonic() + AGAIN_SECONDS
            for rank in ranks_of(torchrun).values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    rank.send_signal(SAVE)
        torchrun.bury_orphans()
        time.sleep(POLL_SECONDS)
    by_itself = torchrun.code
    torchrun.end(END_SECONDS)
    if by_itself is not None and by_itself < 0:
        print(
            f"=== torchrun on {os.environ['SLURMD_NODENAME']} was killed by {signal_name(-by_itself)} ===",
            flush=True,
        )
    with contextlib.suppress(OSError):
        (logs / ENDED).write_text(str(torchrun.code))  # what srun tells can be lost on a busy machine
    return 0 if torchrun.code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(os.environ["SLURM_NODEID"])))
