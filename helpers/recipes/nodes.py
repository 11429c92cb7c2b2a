"""The hosts of a run, beside its recipe: how many, how many ranks on each, and where they find each other."""

import re
from dataclasses import dataclass, replace
from typing import Annotated

from helpers.machine import Machine
from helpers.show import bounds
from helpers.show.arguments import require_fields
from helpers.show.names import told
from helpers.show.numbers import as_typed

EXAMPLES = {"address": '"node1" or "10.0.0.1"', "interface": '"eth0" or "ib0"'}
NODE_RANK, ADDRESS = "PET_NODE_RANK", "PET_MASTER_ADDR"
FIRST_HOST = {NODE_RANK: "0", ADDRESS: "'<host 0>'"}  # what stands in a line that is shown
PORT = 29500  # torchrun's own --master-port
WORD = re.compile(r"[\w.:-]+")  # of a host's name, an IP address, an interface


@told
@dataclass(frozen=True)
class Nodes:
    """`count` hosts with `processes_per_node` ranks each; the recipe's layout says how these share the work.

    It decides no weights, so it is not part of a recipe and not of its fingerprint: a run goes on from its checkpoint
    on other hosts. All hosts run the same `command.sh`, which has what is alike in variables that torchrun reads as its
    own options (`PET_NNODES` for `--nnodes`: torch/distributed/argparse_util.py), and the rest from the environment of
    whoever starts it: a person, Slurm or Kubeflow, which sets the same ones.

    Attributes:
        address: name or IP address of the host with `PET_NODE_RANK=0`, where all meet; None leaves it to who starts.
        port: on which torchrun's store listens there.
        interface: the network through which ranks talk, as `ip link` calls it ("eth0", "ib0"); None lets gloo and NCCL
            choose, of which gloo takes the one that the host's own name stands for.
    """

    IN_WORDS = "hosts, such as recipes.Nodes(count=2, processes_per_node=8)"

    count: Annotated[int, bounds.RANKS]
    processes_per_node: Annotated[int, bounds.PROCESSES]
    address: str | None = None
    port: Annotated[int, bounds.PORT] = PORT
    interface: str | None = None

    def __post_init__(self):
        require_fields(self)
        for name, example in EXAMPLES.items():
            value = getattr(self, name)
            if value is not None and not WORD.fullmatch(value):
                raise ValueError(f"Nodes({name}={as_typed(value)}): one word, such as {example}.")

    @property
    def world_size(self) -> int:
        """Ranks on all hosts."""
        return self.count * self.processes_per_node

    @property
    def name(self) -> str:
        """ "2 nodes × 8 ranks"."""
        return f"{self.count} node{'s' * (self.count > 1)} × {self.processes_per_node} rank" + "s" * (
            self.processes_per_node > 1
        )

    @property
    def sockets(self) -> str | None:
        """The network that gloo and NCCL are told to take: loopback, where one host is all there is."""
        return self.interface or (None if self.count > 1 else "lo")

    def variables(self) -> dict[str, tuple[str, str]]:
        """What torchrun needs on every host alike: name → (value, why)."""
        found = {
            "PET_NNODES": (str(self.count), "--nnodes: hosts"),
            "PET_NPROC_PER_NODE": (str(self.processes_per_node), "--nproc-per-node: ranks on each"),
        }
        if self.address is not None:
            found[ADDRESS] = (self.address, "--master-addr: the first host, where all meet")
        found["PET_MASTER_PORT"] = (str(self.port), "--master-port: and on which port")
        return found

    def given(self) -> dict[str, str]:
        """What whoever starts `command.sh` must have set: name → what it is."""
        found = {NODE_RANK: f"which host this is, from 0 to {self.count - 1}"}
        if self.address is None:
            found[ADDRESS] = "name or address of host 0"
        return found

    def machine(self, host: Machine) -> Machine:
        """All hosts as one machine to plan for, each like `host`; one that is described with its nodes stays so."""
        if host.nodes > 1 or not host.gpus:
            return host
        return replace(host, gpus=host.gpus * self.count, nodes=self.count)
