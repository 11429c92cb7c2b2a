"""A Slurm of your own on this machine: two nodes that are two slurmd on 127.0.0.1, real in everything but the iron.

Needs Debian's or Ubuntu's packages: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
"""

import atexit
import contextlib
import getpass
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil

from helpers.machine import PROJECT
from helpers.processes import control, logs, slurm
from helpers.show import bounds
from helpers.show.arguments import checked

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge", "sbatch": "slurm-client"}
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
SBIN = "/usr/sbin"  # where daemons lie, outside of most users' PATH
START_SECONDS = 60  # until all nodes are idle: one where nothing else runs
STOP_SECONDS = 30
NODES = range(1, 65)  # each is a slurmd here, with a port
SILENT_SECONDS = range(1, 65534)  # slurm.conf(5), SlurmdTimeout
CONF = """\
ClusterName=own
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
# Jobs of another such Slurm on this machine have other numbers, and so other ports.
FirstJobId={first_job}
SlurmUser={user}
SlurmdUser={user}
# Nobody else's job: authenticated with a key that lies in this folder, heard on 127.0.0.1 alone.
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
# A node that is silent for so long is down; a clusters' usual 300 s are long for a lesson.
SlurmdTimeout={silent}
SlurmctldTimeout=30
# Between SIGTERM and SIGKILL of a job that is cancelled.
KillWait=20
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
NodeName={nodes} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} State=UNKNOWN
PartitionName=tour Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What is missing for a Slurm of one's own, in words; None where nothing is."""
    missing = [package for program, package in PACKAGES.items() if not _program(program)]
    if missing:
        return f"{', '.join(missing)} not installed here. As root: {INSTALL}"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


class OwnSlurm:
    """`with OwnSlurm() as slurm:` or `start()` and `stop()`: as long as it is up, sbatch and its kin speak to it.

    Its daemons run in the foreground under a guardian of ours, without systemd. The guardian ends them, and every job
    with all its processes, when it is told to or when this kernel is gone.

    Args:
        nodes: how many; they are called n1, n2, …
        cpus: of each node, as Slurm is told: more than there are do no harm.
        silent_seconds: after which a node that does not answer counts as down.
    """

    @checked
    def __init__(
        self,
        nodes: Annotated[int, NODES] = 2,
        cpus: Annotated[int, bounds.PROCESSES] = 2,
        silent_seconds: Annotated[int, SILENT_SECONDS] = 10,
    ):
        if why := why_not():
            raise RuntimeError(f"No Slurm can be started: {why}")
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus, self.silent_seconds = cpus, silent_seconds
        self.folder: Path | None = None
        self._guardian: subprocess.Popen | None = None
        self._before: str | None = None

    def __enter__(self) -> "OwnSlurm":
        return self.start()

    def __exit__(self, *error) -> None:
        self.stop()

    def __repr__(self) -> str:
        return self.ask("sinfo", "--Node", "--long").rstrip() if self._guardian else "a Slurm that is not started"

    def start(self) -> "OwnSlurm":
        """Start it and wait until all nodes are idle: about a second.

        Raises:
            RuntimeError: it does not start; the message has the end of its logs.
        """
        if self._guardian:
            return self
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        self._write_conf()
        self._before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        with open(self.folder / "guardian.log", "wb") as log:
            self._guardian = subprocess.Popen(
                [sys.executable, "-m", "helpers.cluster.guardian", str(self.folder), *self.names],
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        try:
            self._wait_until_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every job and every daemon; returns once no process of it is left."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        atexit.unregister(self.stop)
        guardian.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guardian.wait(STOP_SECONDS)
        if guardian.poll() is None:  # it is stopped by a signal, say
            control.kill(psutil.Process(guardian.pid).children(recursive=True))
            guardian.kill()
            guardian.wait()
        if self._before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = self._before
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands prints: `slurm.ask("sinfo")`, `slurm.ask("scontrol", "show", "job", "3")`."""
        done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """Every living process of the daemons and of the jobs; with `node`, of that one only."""
        found = psutil.Process(self._guardian.pid).children(recursive=True) if self._guardian else []
        return found if node is None else [process for process in found if _node(process) == node]

    def kill_node(self, node: str, run=None, step: int = 1) -> None:
        """What a loss of power does to a node: slurmd, what it runs, all at once (SIGKILL).

        With `run`, as soon as that has taken so many steps.

        Raises:
            RuntimeError: the run ended before.
        """
        while run is not None and logs.last_step(run.path / "log.txt") < step:
            if run.state != "running":
                raise RuntimeError(f"{run.path} ended by itself, before step {step}: {node} lives on.")
            time.sleep(0.1)
        control.kill(self.processes(node))

    def start_node(self, node: str) -> None:
        """Switch a node on again."""
        self._guardian.stdin.write(f"{node}\n".encode())
        self._guardian.stdin.flush()

    def hurry(self, run) -> None:
        """Let a run's job that was queued again begin now; Slurm keeps one waiting for two minutes (BeginTime).

        What slurmctld still has to tell the nodes of the first start is waited for: the job keeps its number, and a
        late order to end it would end the second start. So are nodes that were switched on again: without them a
        second start once got one node of two.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._idle() and re.search(r"Agent queue size: +0\b", self.ask("sdiag")):
                break
            time.sleep(0.5)
        self.ask("scontrol", "update", f"JobId={slurm.number_of(run.path)}", "StartTime=now")

    def _idle(self) -> bool:
        """Whether all nodes are up, and none has a job."""
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return sorted(states) == [f"{name} idle" for name in sorted(self.names)]

    def _write_conf(self) -> None:
        with contextlib.ExitStack() as stack:  # all are free at one moment; nobody keeps them until they are taken
            ports = []
            for _ in range(len(self.names) + 1):
                listening = stack.enter_context(socket.socket())
                listening.bind(("127.0.0.1", 0))
                ports.append(str(listening.getsockname()[1]))
        conf = CONF.format(
            host=socket.gethostname(),
            user=getpass.getuser(),
            folder=self.folder,
            port=ports[0],
            first_job=random.randrange(1, 1_000_000),
            nodes=",".join(self.names),
            ports=",".join(ports[1:]),
            cpus=self.cpus,
            silent=self.silent_seconds,
        )
        (self.folder / "slurm.conf").write_text(conf)

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._guardian.poll() is None:
            if self._idle():
                return
            time.sleep(0.05)
        logs = [f"{path.name}:\n{path.read_text(errors='replace')[-800:]}" for path in self.folder.glob("*.log")]
        raise RuntimeError("Slurm's nodes did not become idle.\n\n" + "\n\n".join(logs))


def _node(process: psutil.Process) -> str | None:
    """Which node a process belongs to: slurmd is named by its arguments, a job's process by its environment."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        if "slurmd" in process.name():
            return words[words.index("-N") + 1] if "-N" in words else None
        if process.name().startswith("slurmstepd"):
            return next(filter(None, map(_node, process.children())), None)
        return process.environ().get("SLURMD_NODENAME")
    return None
