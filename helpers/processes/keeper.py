"""One node's part of a run: owns `command.sh` (torchrun) there, and leaves nothing behind, however it ends.

    srun --ntasks-per-node=1 python -m helpers.processes.keeper RUN_DIRECTORY

Started by srun, once on each node of a job; `helpers/processes/batch.py` on the first node tells the keepers what to do
by signals. Slurm sends those to every process of a node: torchrun and the ranks are set to ignore them.
"""

import os
import signal
import sys
import time
from pathlib import Path

from helpers.processes import control, hang
from helpers.processes.owned import Owned, ranks_of

SAVE, STACKS, END = signal.SIGUSR1, signal.SIGURG, signal.SIGUSR2
END_SECONDS = 5.0  # what torchrun gets to end the ranks that a lost one leaves; it is no time for them to save
POLL_SECONDS = 0.1


def main(directory: Path, node: int) -> int:
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, STACKS):
        signal.signal(number, lambda number, frame: heard.append(number))
    for number in (SAVE, END):
        signal.signal(number, signal.SIG_IGN)  # what is started now ignores them, but for ranks that say otherwise
    torchrun = Owned(["bash", str(directory / "command.sh")], os.environ | _variables(directory, node))
    signal.signal(END, lambda number, frame: heard.append(number))
    while torchrun.code is None and not (heard and heard[0] != STACKS):
        if heard:
            heard.clear()
            hang.dump(ranks_of(torchrun))
        torchrun.bury_orphans()
        time.sleep(POLL_SECONDS)
    by_itself = torchrun.code
    torchrun.end(END_SECONDS)
    if by_itself is not None and by_itself < 0:
        print(
            f"=== torchrun on {os.environ['SLURMD_NODENAME']} was killed by {signal.Signals(-by_itself).name} ===",
            flush=True,
        )
    return 0 if torchrun.code == 0 else 1


def _variables(directory: Path, node: int) -> dict[str, str]:
    """What command.sh wants to be told on this node. torchrun reads PET_* as defaults of its own options."""
    return {
        control.MARK: str(directory),
        "PET_NODE_RANK": str(node),
        "PET_LOG_DIR": f"{os.environ['PET_LOG_DIR']}/node{node}",
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(os.environ["SLURM_NODEID"])))
