"""What becomes of a run on Slurm when something fails, each failure for real once. Run by hand, as root:

    python tests/benchmarks/slurm_failures.py [cgroup] ["a rank is killed" …]

Two nodes on this machine train a tiny GPT, DP2, with a checkpoint every 10 steps; after step 25 the failure is made.
What is kept: what the learner is told, after how many seconds no process of the ranks is left, what else is left, and
whether the run goes on by itself. `notebooks/recorded/cpu/slurm_failures.json` is the result: its "failures" with
proctrack/linuxproc, "with_cgroups" those that were made again with proctrack/cgroup, as most clusters have it.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import other_clock
import psutil

from helpers import cluster, corpus, launch, recipes
from helpers.cluster import guardian
from helpers.machine import CPU, PROJECT
from helpers.processes import control, logs, slurm
from helpers.processes.programs import TrainingFailed
from helpers.recipes import preflight

RECORD = PROJECT / "notebooks/recorded/cpu/slurm_failures.json"
STEP = 25  # after which the failure is made
STEPS = 2000  # more than are taken
SECONDS = 240  # for anything to happen
JOB = cluster.slurm(nodes=2, time="10")
TEXTS = [f"{number} times {number} is {number * number}. " * 30 for number in range(400)]


def recipe(name: str) -> recipes.Recipe:
    """GPT at 2 layers × 64, sequence 64, in 512 token ids, one rank on each of two nodes."""
    small = {"num_layers": 2, "hidden_size": 64, "sequence_length": 64, "vocab_size": 512, "tokenizer": "bpe-512"}
    often = {"train_iters": STEPS, "eval_interval": STEPS, "eval_iters": 1, "save_interval": 10}
    return recipes.gpt3_345m().scaled_to("cpu").with_(name=name.replace(" ", "-"), processes=2, **small, **often)


class WithCgroups(cluster.OwnSlurm):
    """Slurm knows a job's processes by a cgroup (v1, freezer), and signals only those that it has started itself."""

    def _write_conf(self) -> None:
        super()._write_conf()
        conf = self.folder / "slurm.conf"
        conf.write_text(conf.read_text().replace("proctrack/linuxproc", "proctrack/cgroup"))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")

    def stop(self) -> None:
        super().stop()
        for name in self.names:
            for group in sorted(Path(f"/sys/fs/cgroup/freezer/slurm_{name}").glob("**/"), reverse=True):
                group.rmdir()  # it holds no process any more, or this fails


class Trial:
    """One run on Slurm, and the failure that is made in it."""

    def __init__(self, own: cluster.OwnSlurm, name: str, data, job=JOB, runs_dir=None, steps: int = STEPS):
        self.own = own
        asked = recipe(name).with_(train_iters=steps)
        run = launch.train(asked, data, on=job, machine=CPU, detach=True, fresh=True, runs_dir=runs_dir)
        self.run, self.path = run, run.path
        self.harmed = time.monotonic()
        self.at_the_start = False  # no rank takes a step: seconds count from the job's start

    def log(self) -> str:
        return (self.path / "log.txt").read_text(errors="replace") if (self.path / "log.txt").exists() else ""

    def steps(self) -> list[int]:
        """Those of this launch."""
        log = self.log()
        lines = log[log.rfind(logs.LAUNCH_MARK) :].splitlines()
        return [step.step for line in lines if (step := logs.parse_step(line))]

    def step(self) -> int:
        return max(self.steps(), default=0)

    def until(self, condition, what: str):
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come\n{self.own.ask('squeue')}\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def ranks(self) -> dict[int, psutil.Process]:
        """Main processes of the ranks by rank."""
        found = {}
        for process in control.members(self.path):
            with contextlib.suppress(psutil.Error, KeyError):
                rank = int(process.environ()["RANK"])
                if "RANK" not in process.parent().environ():
                    found[rank] = process
        return found

    def torchrun(self, node: str) -> psutil.Process:
        return next(rank.parent() for rank in self.ranks().values() if rank.environ()["SLURMD_NODENAME"] == node)

    def harm(self, do) -> None:
        self.until(lambda: self.step() >= STEP, f"step {STEP}")
        do(self)
        self.harmed = time.monotonic()

    def starts(self) -> None:
        self.until(lambda: control.read_status(self.path).get("pid"), "the start")
        self.harmed, self.at_the_start = time.monotonic(), True

    def row(self) -> dict:
        """Watch what comes of it."""
        marked = lambda: [process for process in control.members(self.path) if process.name() != "srun"]  # noqa: E731
        self.until(lambda: not marked() and (not self.at_the_start or self.settled()), "the end of all processes")
        gone = time.monotonic() - self.harmed
        self.until(lambda: self.settled(), "an end or a place in the queue")
        job = slurm.look(self.path)
        step, launch_number = self.step(), control.read_status(self.path)["launch"]
        row = {"gone_seconds": round(gone, 1), "last_step": step, "told": self.told(), "job": job.state}
        row["left"] = sorted({process.name() for process in control.members(self.path)})
        if job.is_going:
            row["waits"] = str(job)
            row["delay_seconds"] = round(self.delay(), 0)
            self.go_on()
            self.until(lambda: control.read_status(self.path)["launch"] > launch_number, "another launch")
            self.until(lambda: self.step() > 0, "a step of the next launch")
            row["resumed_after_step"] = self.steps()[0] - 1
        return row

    def settled(self) -> bool:
        job = slurm.look(self.path)
        return job.waits or (job.state != "COMPLETING" and not job.is_going)

    def delay(self) -> float:
        """Until Slurm may start the job again, in seconds from the failure's settling."""
        eligible = re.search(r"EligibleTime=(\S+)", self.own.ask("scontrol", "show", "job", str(self.number)))
        return max(0.0, time.mktime(time.strptime(eligible[1], "%Y-%m-%dT%H:%M:%S")) - time.time())

    def go_on(self) -> None:
        for name in self.own.names:
            if not any(_is_node(process, name, self.own) for process in psutil.process_iter()):
                self.own.start_node(name)
        self.own.hurry(self.run)

    @property
    def number(self) -> int:
        return slurm.number_of(self.path)

    def told(self) -> str:
        """The message's first lines where the run failed; the word of the queue where it goes on."""
        if control.state(self.path) == "running":
            return control.standstill(self.path) or ""
        try:
            launch.follow(self.run)
        except TrainingFailed as failed:
            return (
                str(failed)
                .split("The rank's last traceback")[0]
                .split("Everything the ranks said")[0]
                .split("\n\nTraceback")[0]
                .strip()
            )
        status = control.read_status(self.path)
        return f"{status['state']}: {status['reason']}"

    def close(self) -> None:
        slurm.cancel(self.path)
        self.until(lambda: not slurm.look(self.path).is_going, "the job's end")


def _is_node(process: psutil.Process, name: str, own: cluster.OwnSlurm) -> bool:
    with contextlib.suppress(psutil.Error, KeyError):
        mine = process.name() == "slurmd" and process.environ()["SLURM_CONF"] == f"{own.folder}/slurm.conf"
        return mine and name in process.cmdline()
    return False


def killed_rank(own, data):
    trial = Trial(own, "rank killed", data)
    trial.harm(lambda trial: trial.ranks()[1].kill())
    return trial


def killed_torchrun(own, data):
    trial = Trial(own, "torchrun killed", data)
    trial.harm(lambda trial: trial.torchrun("n2").kill())
    return trial


def dead_node(own, data):
    trial = Trial(own, "node dead", data)
    trial.harm(lambda trial: own.kill_node("n2"))
    return trial


def dead_first_node(own, data):
    trial = Trial(own, "first node dead", data)
    trial.harm(lambda trial: own.kill_node("n1"))
    return trial


def cancelled(own, data):
    trial = Trial(own, "scancel", data)
    trial.harm(lambda trial: own.ask("scancel", str(trial.number)))
    return trial


def stopped(own, data):
    trial = Trial(own, "stopped", data)
    trial.until(lambda: trial.step() >= STEP, "steps")
    trial.harmed = time.monotonic()
    trial.run.stop()
    return trial


def time_limit(own, data):
    trial = Trial(own, "time limit", data, cluster.slurm(nodes=2, time="2", save_seconds=30))
    trial.until(lambda: logs.LAUNCH_MARK in trial.log(), "the job's start")
    trial.harmed = time.monotonic()
    trial.until(lambda: "[exiting program after receiving" in trial.log(), "the signal")
    trial.harmed = time.monotonic()
    return trial


def drained(own, data):
    """The running job goes on; the next one waits."""
    own.ask("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=fan")
    trial = Trial(own, "node drained", data)
    try:
        trial.until(lambda: "DRAINED" in str(slurm.look(trial.path)), "the reason")
        told = control.standstill(trial.path)
    finally:
        own.ask("scontrol", "update", "NodeName=n2", "State=RESUME")
    trial.until(lambda: trial.step() >= 1, "a step")
    trial.answer = {"told": told, "job": "PENDING", "left": [], "waits": told, "resumed_after_step": 0}
    return trial


def taken_port(own, data):
    number = int(re.search(r"^FirstJobId=(\d+)", (own.folder / "slurm.conf").read_text(), re.MULTILINE)[1])
    with socket.socket() as other:
        other.bind(("", 20_000 + number * 10 % 10_000))
        other.listen()
        trial = Trial(own, "port taken", data)
        trial.starts()
        trial.answer = trial.row()
    return trial


def full_disk(own, data):
    folder = tempfile.mkdtemp()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True)
    trial = Trial(own, "disk full", data, runs_dir=folder)
    trial.until(lambda: trial.step() >= STEP, "steps")
    trial.folder = folder
    with contextlib.suppress(OSError), open(f"{folder}/filler", "wb") as filler:
        while True:
            filler.write(b"0" * 2**16)
            filler.flush()
    trial.harmed = time.monotonic()
    return trial


def wrong_interface(own, data):
    trial = Trial(own, "wrong interface", data, cluster.slurm(nodes=2, time="10", interface="ib9"))
    trial.starts()
    return trial


def no_corpus(own, data):
    own.kill_node("n2")
    hide = f"mount -t tmpfs tmpfs {Path(data.data_path[0]).parent} && exec /usr/sbin/slurmd -D -N n2"
    other = subprocess.Popen(["unshare", "--mount", "sh", "-c", hide])
    try:
        time.sleep(2)
        own.ask("scontrol", "update", "NodeName=n2", "State=RESUME")
        trial = Trial(own, "corpus missing", data)
        trial.starts()
        trial.answer = trial.row()
    finally:
        for process in [*psutil.Process(other.pid).children(recursive=True), other]:
            process.kill()
        other.wait()
        own.start_node("n2")
        time.sleep(2)
    return trial


@contextlib.contextmanager
def clock(own: cluster.OwnSlurm, host: str, seconds: int):
    """A host whose munged has a clock that is so many seconds ahead; yields its slurm.conf.

    What Slurm starts there has that clock, too. Files have the other one, as where a file server has its own.
    """
    folder = own.folder / f"clock.{host}"
    folder.mkdir()
    ahead = other_clock.variables(seconds, folder)
    conf = (own.folder / "slurm.conf").read_text().replace(f"{own.folder}/munge.sock", f"{folder}/munge.sock")
    (folder / "slurm.conf").write_text(f"{conf}TaskProlog={folder}/prolog\n")
    exports = "".join(f"echo export {name}={value}\n" for name, value in ahead.items())
    (folder / "prolog").write_text(f"#!/bin/sh\n{exports}echo export SLURM_CONF={folder}/slurm.conf\n")
    (folder / "prolog").chmod(0o755)
    files = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
    munged = [*guardian.MUNGED.split(), f"--key-file={own.folder}/munge.key"]
    munged += [f"--{name}={folder / file}" for name, file in files.items()]
    daemons = [munged, ["/usr/sbin/slurmd", "-D", "-N", host, "-f", str(folder / "slurm.conf")]]
    started = []
    if host in own.names:
        own.kill_node(host)
    else:
        del daemons[1]
    try:
        for words in daemons:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(words, env=os.environ | ahead, **quiet))
            time.sleep(2)
        yield folder / "slurm.conf"
    finally:
        for process in started:
            control.kill([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
            process.wait()
        other_clock.clean()
        if host in own.names:
            own.start_node(host)


def other_node_clock(own, data):
    """A rank is killed there, too: what is saved and resumed has the losses of a run whose clocks agree."""
    alone = Trial(own, "one clock", data, steps=40)
    alone.until(lambda: not slurm.look(alone.path).is_going, "the end")
    with clock(own, "n2", 30):
        own.ask("scontrol", "update", "NodeName=n2", "State=RESUME")
        trial = Trial(own, "clocks apart", data, steps=40)
        trial.harm(lambda trial: trial.ranks()[1].kill())
        trial.answer = trial.row()
        trial.until(lambda: not slurm.look(trial.path).is_going, "the end")
    assert trial.run.losses.to_dict() == alone.run.losses.to_dict() and len(trial.run.losses) == 40
    seen = "".join(re.findall("the clock of .*differ by as much", trial.log())[:1])
    trial.answer["told"] = f"{seen} (in log.txt); {trial.answer['told']}"
    return trial


def far_node_clock(own, data):
    """More than the five minutes for which munge's credentials hold."""
    with clock(own, "n2", 600):
        down = lambda: "n2 down" in own.ask("sinfo", "--noheader", "--Node", "--format=%N %T")  # noqa: E731
        while not down():
            time.sleep(0.5)
        trial = Trial(own, "clocks far apart", data)
        trial.until(lambda: "DOWN" in str(slurm.look(trial.path)), "the reason")
        told = control.standstill(trial.path)
        assert "Check for out of sync clocks" in (own.folder / "slurmctld.log").read_text()
    trial.until(lambda: trial.step() >= 1, "a step")
    trial.answer = {"told": told, "job": "PENDING", "left": [], "waits": told, "resumed_after_step": 0}
    return trial


def far_login_clock(own, data):
    mine = os.environ["SLURM_CONF"]
    with clock(own, "login", 600) as conf:
        os.environ["SLURM_CONF"] = str(conf)
        try:
            Trial(own, "login", data)
        except preflight.PreflightError as refused:
            told = str(refused)
        finally:
            os.environ["SLURM_CONF"] = mine
    trial = Trial(own, "login", data)  # with the clock set right
    trial.until(lambda: trial.step() >= 1, "a step")
    trial.answer = {"told": told, "job": "none", "left": []}
    return trial


TRIALS = {
    "a rank is killed": killed_rank,
    "torchrun is killed on one node": killed_torchrun,
    "a node dies": dead_node,
    "the first node dies": dead_first_node,
    "scancel": cancelled,
    "run.stop()": stopped,
    "the time limit comes": time_limit,
    "a node is drained": drained,
    "the port is taken": taken_port,
    "the shared disk is full": full_disk,
    "no such interface": wrong_interface,
    "one node lacks the corpus": no_corpus,
    "a node's clock is 30 s ahead, and a rank is killed": other_node_clock,
    "a node's clock is 10 minutes ahead": far_node_clock,
    "the login node's clock is 10 minutes ahead": far_login_clock,
}


def main(names: list[str]) -> None:
    known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    known |= {"slurm": subprocess.run(["/usr/sbin/slurmd", "-V"], capture_output=True, text=True).stdout.strip()}
    known |= {"torch": version("torch"), "megatron-core": version("megatron-core")}
    place = tempfile.mkdtemp(prefix="failures-")
    os.environ |= {"MEGATRON_TOUR_RUNS": f"{place}/runs", "MEGATRON_TOUR_CACHE": f"{place}/cache"}
    Path(f"{place}/texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    data = corpus.prepare(f"{place}/texts.jsonl", tokenizer="bpe-512")
    make, kept = (WithCgroups, "with_cgroups") if "cgroup" in names else (cluster.OwnSlurm, "failures")
    for name in [name for name in names if name != "cgroup"] or TRIALS:
        with make() as own:
            trial = TRIALS[name](own, data)
            row = getattr(trial, "answer", None) or trial.row()
            trial.close()
            left = [process.name() for process in control.members(trial.path)]
            assert not left, left
        if folder := getattr(trial, "folder", None):
            subprocess.run(["umount", folder], check=True)
        found = known.get(kept, {}) | {name: row}
        known[kept] = {one: found[one] for one in TRIALS if one in found}
        print(name, json.dumps(row, indent=1), flush=True)
        RECORD.write_text(json.dumps(known, indent=1) + "\n")
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
