"""torchrun for the ranks of one machine: what `torchrun --standalone` does, heard on 127.0.0.1 alone.

    python -m helpers.ranks.torchrun --nproc-per-node 2 program.py ...

torch's own rendezvous listens on every network of the machine, and unpickles what it is told there. Here the store gets
a socket that is bound already (`master_listen_fd`), and everything else is torch's: its options, its agent, its log.

Without `--nproc-per-node` it is torch's torchrun for one of several hosts, which has its options from PET_NNODES,
PET_NPROC_PER_NODE, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT (a static rendezvous: rank 0 is on the host that
was named). Its store listens on every network of host 0, as those of all hosts must reach it.
"""

import socket
import sys
from datetime import timedelta

from helpers.ranks import network, start

if __name__ == "__main__":
    network.leave_if_lost(sys.argv)
    start.before_torch()

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.run import main

LOOPBACK = "127.0.0.1"
TIMEOUT_SECONDS = 600  # torch's default for a rendezvous of known size


class LoopbackRendezvous(StaticTCPRendezvous):
    """One agent, which knows its rank and the world's size, and whose store the ranks use as well."""

    def __init__(self, parameters: RendezvousParameters):
        listening = socket.create_server((LOOPBACK, 0))
        port = listening.getsockname()[1]
        super().__init__(LOOPBACK, port, rank=0, world_size=1, run_id=parameters.run_id, timeout=TIMEOUT_SECONDS)
        self._store = TCPStore(
            LOOPBACK,
            port,
            world_size=1,
            is_master=True,
            timeout=timedelta(seconds=TIMEOUT_SECONDS),
            master_listen_fd=listening.detach(),
        )

    def get_backend(self) -> str:
        return "loopback"


if __name__ == "__main__":
    if network.ONE_HOST in sys.argv:
        rendezvous_handler_registry.register("loopback", LoopbackRendezvous)
        main(["--nnodes", "1", "--rdzv-backend", "loopback", "--rdzv-endpoint", LOOPBACK, *sys.argv[1:]])
    else:
        main(sys.argv[1:])
