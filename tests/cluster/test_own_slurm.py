"""A Slurm of one's own: up in a second or so, real, and gone without a trace, however its kernel ends."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from patience import survivors, wait_for
from two_nodes import needs_slurm

from helpers import cluster, launch
from helpers.cluster import guardian, own_slurm
from helpers.machine import CPU, PROJECT
from helpers.processes import slurm

pytestmark = needs_slurm

KERNEL = """
import sys, time
from helpers import cluster
own = cluster.OwnSlurm().start()
own.ask("sbatch", "--output=/dev/null", "--wrap", "srun sleep 3600", "--nodes=2")
while len(own.processes()) < 8: time.sleep(0.05)
print(*[process.pid for process in own.processes()], own.folder, flush=True)
time.sleep(3600)
"""


def test_it_runs_jobs_on_two_nodes_and_leaves_nothing(tiny_recipe, tmp_path, monkeypatch):
    before = os.environ.get("SLURM_CONF")
    with cluster.OwnSlurm() as own:
        said = own.ask("srun", "--nodes=2", "--ntasks-per-node=1", "bash", "-c", "echo $SLURM_NODEID $SLURMD_NODENAME")
        assert sorted(said.splitlines()) == ["0 n1", "1 n2"]
        assert not slurm.has_other_machines()
        (tmp_path / "job.sh").write_text("#!/bin/sh\nsleep 3600\n")
        number = slurm.submit(tmp_path)
        assert slurm.number_of(tmp_path) == number and slurm.look(tmp_path).is_going
        slurm.cancel(tmp_path)
        (tmp_path / "job.json").write_text('{"job": 999}')
        assert slurm.look(tmp_path).state == "GONE"
        with pytest.raises(slurm.SlurmRefused, match="sbatch: .*invalid partition"):
            (tmp_path / "job.sh").write_text("#!/bin/sh\n#SBATCH --partition=nowhere\n")
            slurm.submit(tmp_path)
        assert slurm.why_not() is None
        with monkeypatch.context() as login, munged_of_its_own(tmp_path, own.folder) as conf:
            login.setenv("SLURM_CONF", str(conf))
            assert "sinfo: slurm_load_partitions: Zero Bytes were transmitted or received" in slurm.why_not()
            assert "munge" in slurm.why_not() and "clock" in slurm.why_not()
        with pytest.raises(slurm.SlurmRefused, match="invalid partition"):
            on = cluster.slurm(nodes=2, time="10", partition="nowhere")
            launch.train(tiny_recipe.with_(processes=2), None, machine=CPU, on=on, runs_dir=tmp_path / "runs")
        assert list((tmp_path / "runs").glob("*/*")) == [], "it would be the latest run"
        daemons, folder = own.processes(), own.folder
        assert own.processes("n2") and all("munge" not in process.name() for process in own.processes("n2"))
    assert not survivors(daemons) and not folder.exists() and os.environ.get("SLURM_CONF") == before
    (tmp_path / "job.json").write_text(f'{{"job": 3, "slurm_conf": "{folder}/slurm.conf"}}')
    monkeypatch.setattr(slurm, "LOOK_ANSWER_SECONDS", 1)
    assert slurm.look(tmp_path).state == slurm.SILENT and slurm.look(tmp_path).is_going  # nobody knows


@contextlib.contextmanager
def munged_of_its_own(folder: Path, slurm_folder: Path):
    """As on a login node whose munged has another key, or another clock: slurmctld then says the same, nothing."""
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    names = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    words = [*guardian.MUNGED.split(), *(f"--{name}={folder / file}" for name, file in names.items())]
    path = f"{os.environ['PATH']}:{own_slurm.SBIN}"
    with subprocess.Popen(words, env=os.environ | {"PATH": path}, stderr=subprocess.DEVNULL) as munged:
        try:
            wait_for((folder / "sock").exists, "munged")
            conf = (slurm_folder / "slurm.conf").read_text()
            (folder / "slurm.conf").write_text(conf.replace(f"{slurm_folder}/munge.sock", f"{folder}/sock"))
            yield folder / "slurm.conf"
        finally:
            munged.terminate()


def test_it_ends_with_its_kernel_even_if_that_is_killed():
    kernel = subprocess.Popen([sys.executable, "-c", KERNEL], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    *pids, folder = kernel.stdout.readline().split()
    processes = [psutil.Process(int(pid)) for pid in pids]
    kernel.send_signal(signal.SIGKILL)
    kernel.communicate()
    assert len(processes) >= 8 and not survivors(processes)
    wait_for(lambda: not os.path.exists(folder), "the end of its folder")


def test_what_is_missing_is_said_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cluster.own_slurm, "SBIN", "/nowhere")
    assert "slurm-client" in cluster.why_no_slurm() and "apt-get install" in cluster.why_no_slurm()


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (
            {"nodes": "2"},
            r"^cluster.OwnSlurm\(nodes='2'\): it takes .* from 1 to 64; '2' is a text: write 2",
        ),
        ({"nodes": 0}, "it takes a whole number from 1 to 64"),
        ({"cpus": 0}, "it takes a whole number from 1 to 256"),
        ({"silent_seconds": 0.5}, "it takes a whole number from 1"),
        ({"node": 2}, "Did you mean nodes?"),
    ],
)
def test_a_slurm_of_no_nodes_is_refused_in_words(odd, words):
    with pytest.raises(TypeError, match=words):
        cluster.OwnSlurm(**odd)
