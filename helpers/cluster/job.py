"""A run as a job of Slurm: what is asked of it, and `job.sh`, which asks."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from helpers.machine import PROJECT, Machine
from helpers.processes import control, slurm, status
from helpers.recipes import Nodes, Recipe
from helpers.recipes.flag import Flag
from helpers.runs import records
from helpers.show import bounds
from helpers.show.arguments import checked
from helpers.show.numbers import as_typed

TIME = re.compile(r"\d+|\d+:[0-5]\d(:[0-5]\d)?|\d+-([01]?\d|2[0-3])(:[0-5]\d){0,2}", re.ASCII)  # sbatch(1), --time
WORD = re.compile(r"[^\s\"'\\#]+")  # of a partition, an account, a constraint: "h100&ib"
FIRST_PORT, PORTS = 20_000, 10_000
ON_TIME = [
    Flag("--exit-signal-handler", None, "told by a signal, Megatron saves after the step and ends"),
    Flag("--exit-signal", f"SIG{control.SAVE}", "Slurm sends this one before the time limit; so does run.stop()"),
]


@dataclass(frozen=True)
class Slurm:
    """How many nodes a run gets from Slurm, for how long, and in whose name. The ranks share the nodes evenly.

    Attributes:
        time: limit of one start, as sbatch takes it: "30" minutes, "4:00:00", "2-12:00:00".
        cpus_per_node: CPUs of each node; None takes whole nodes.
        interface: the network between the nodes, as `ip link` calls it ("eth0", "ib0"); None lets gloo and NCCL choose.
        container_image: an image in which the ranks run, by Pyxis; its `python` starts them.
        container_mounts: what of the nodes' file systems it sees: "/shared:/shared".
        extra: further options of sbatch, a line each: ("--reservation=course", "--mem=0").
        starts: how often the job may start, the first time included, before a passing failure counts.
        save_seconds: how long before the time limit the ranks are told to save.
    """

    IN_WORDS = 'a job of Slurm, such as cluster.slurm(nodes=2, time="1:00:00")'

    nodes: Annotated[int, bounds.RANKS]
    time: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    cpus_per_node: Annotated[int, bounds.RANKS] | None = None
    interface: str | None = None
    container_image: str | None = None
    container_mounts: str | None = None
    extra: Sequence[str] = ()
    starts: Annotated[int, range(1, 101)] = 3
    save_seconds: Annotated[int, range(1, 65536)] = 120

    def __post_init__(self):
        for name, value in vars(self).items():
            asked = f"cluster.slurm({name}={as_typed(value)})"
            if name == "extra":
                if odd := [word for word in value if not word.startswith("--") or not word.isprintable()]:
                    raise ValueError(f"{asked}: {as_typed(odd[0])} is no option of sbatch. Each begins with --.")
            elif isinstance(value, str) and name != "time" and not WORD.fullmatch(value):
                raise ValueError(f"{asked}: one word, without blanks and quotes.")
        if not TIME.fullmatch(self.time):
            form = '"30" minutes, "4:00:00" or "2-12:00:00", minutes and seconds up to 59, hours of a day up to 23'
            raise ValueError(f"cluster.slurm(time={as_typed(self.time)}): {form}.")
        if not self.time_seconds:
            raise ValueError(f"cluster.slurm(time={as_typed(self.time)}): to Slurm 0 is no limit at all. Name one.")

    @property
    def time_seconds(self) -> int:
        """The limit of one start in seconds: minutes, minutes:seconds, hours:minutes:seconds, days-hours…"""
        days, dash, clock = self.time.rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if dash:
            hours, minutes, seconds = (parts + [0, 0])[:3]
        elif len(parts) < 3:
            hours, minutes, seconds = 0, *(parts + [0])[:2]
        else:
            hours, minutes, seconds = parts
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    def nodes_of(self, recipe: Recipe) -> Nodes:
        """The nodes of a run of this recipe, which share its ranks.

        Raises:
            ValueError: its ranks cannot be shared evenly.
        """
        ranks = recipe.layout.world_size
        if ranks % self.nodes:
            few = f"{ranks} ranks cannot be shared evenly by {self.nodes} nodes."
            raise ValueError(f"{recipe.name} on cluster.slurm(nodes={self.nodes}): {few} Change nodes or the layout.")
        return Nodes(self.nodes, ranks // self.nodes, interface=self.interface)

    def flags(self, recipe: Recipe) -> dict[str, list[Flag]]:
        """What Megatron is told beside the recipe: to save when it hears that the time limit is near."""
        return {} if recipe.checkpoints.save_interval is None else {"job": ON_TIME}

    def write(self, directory: Path, recipe: Recipe, machine: Machine, **supervision) -> Path:
        """Write `job.sh` of a run directory that holds `command.sh`. `supervision`: further options of the supervisor.

        It can be read, changed and queued by hand: `sbatch job.sh`.
        """
        path = directory / "job.sh"
        lines = [*self._header(directory, recipe, machine), "", *self._body(directory, recipe, supervision)]
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)
        return path

    def submit(self, directory: Path, recipe: Recipe) -> int:
        """Queue the job of a run directory; its number.

        Raises:
            SlurmRefused: sbatch said no.
        """
        number = slurm.submit(directory)
        hosts = self.nodes_of(recipe)
        status.queued(directory, processes=hosts.world_size, processes_per_node=hosts.processes_per_node)
        return number

    def _header(self, directory: Path, recipe: Recipe, machine: Machine) -> list[str]:
        hosts = self.nodes_of(recipe)
        options = {"job-name": recipe.name, "partition": self.partition, "account": self.account, "qos": self.qos}
        options |= {"constraint": self.constraint, "nodes": self.nodes, "ntasks-per-node": 1, "time": self.time}
        options["cpus-per-task"] = self.cpus_per_node
        options["gpus-per-node"] = hosts.processes_per_node if machine.device == "cuda" else None
        lines = [f"--{name}={value}" for name, value in options.items() if value is not None]
        lines += ["--exclusive"] * (self.cpus_per_node is None) + list(self.extra)
        log = str(directory / "log.txt").replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        lines += [f'--output="{log}"', "--open-mode=append"]
        told = ["#SBATCH " + line for line in lines]
        told += ["# A node that fails takes the job back into the queue, to go on from its last checkpoint."]
        told += ["#SBATCH --requeue"]
        if self.flags(recipe):
            told += ["# So many seconds before the time limit the ranks hear a signal, upon which Megatron saves."]
            told += [f"#SBATCH --signal={control.SAVE}@{self.save_seconds}"]
        return ["#!/usr/bin/env bash", *told]

    def _body(self, directory: Path, recipe: Recipe, supervision: dict) -> list[str]:
        python = shlex.quote(sys.executable)
        inside = "python" if self.container_image else python
        flags = {"container-image": self.container_image, "container-mounts": self.container_mounts}
        container = [f"--{name}={shlex.quote(value)}" for name, value in flags.items() if value is not None]
        project = shlex.quote(str(PROJECT))
        supervisor = ["--processes", str(recipe.layout.world_size), "--trains"]
        for name, value in supervision.items():
            supervisor += [f"--{name.replace('_', '-')}", str(value)]
        srun = ["srun", "--kill-on-bad-exit=0", "--cpu-bind=none", *container, inside, "-m", "helpers.processes.keeper"]
        return [
            f"# {recipe.name} on {self.nodes_of(recipe).name}: srun starts one keeper a node, the keeper torchrun",
            "# (command.sh), torchrun the ranks. The supervisor, on the first node, writes log.txt and status.json.",
            f"cd {project}",
            f"export PYTHONPATH={project}${{PYTHONPATH:+:$PYTHONPATH}}",
            f"run={shlex.quote(str(directory))}",
            "# All meet on the first node, at another port in each start.",
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export PET_MASTER_ADDR=$(scontrol show node \"$first\" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')",
            f"export PET_MASTER_PORT=$(({FIRST_PORT} + (SLURM_JOB_ID * 10 + ${{SLURM_RESTART_COUNT:-0}}) % {PORTS}))",
            "trap : TERM  # where the job is cancelled, the supervisor hears it, too, and has the last word",
            f'{python} -m helpers.processes.batch --run-directory "$run" {shlex.join(supervisor)} \\',
            f"    --starts-left $(({self.starts - 1} - ${{SLURM_RESTART_COUNT:-0}})) -- \\",
            f'    {" ".join(srun)} "$run"',
            "ended=$?",
            "# 75: the time limit, or a failure that another start may not meet again. The job waits for one.",
            'if [ $ended = 75 ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi',
            f'{python} -c {shlex.quote(records.WRITE_RESULT)} "$run"',
            "exit $ended",
        ]


Slurm.__init__ = checked(Slurm.__init__)
