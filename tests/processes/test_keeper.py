"""A node's keeper: what is told to its ranks reaches them, however early it comes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from patience import wait_for

from helpers.machine import PROJECT
from helpers.processes import keeper

RANK = """
import pathlib, signal, sys, time

here = pathlib.Path(sys.argv[1])
(here / "started").touch()
while not (here / "first-step").exists():
    time.sleep(0.05)
signal.signal(signal.SIGUSR1, lambda *_: (here / "saved").touch() or sys.exit(0))  # as Megatron does at its first step
(here / "hears").touch()
time.sleep(60)
"""


@pytest.fixture
def node(tmp_path):
    """A keeper of one rank, both running."""
    (tmp_path / "rank.py").write_text(RANK)
    (tmp_path / "command.sh").write_text(f'RANK=0 "{sys.executable}" {tmp_path}/rank.py {tmp_path}\n')
    slurm = {"SLURM_NODEID": "0", "SLURMD_NODENAME": "n1", "PET_LOG_DIR": str(tmp_path / "logs")}
    words = [sys.executable, "-m", "helpers.processes.keeper", str(tmp_path)]
    process = subprocess.Popen(words, cwd=PROJECT, env=os.environ | slurm)
    wait_for((tmp_path / "started").exists, "the rank")
    yield process
    process.terminate()
    process.wait()


def test_ranks_that_cannot_hear_yet_are_told_to_save_again(node, tmp_path):
    node.send_signal(keeper.SAVE)
    time.sleep(0.5)
    assert node.poll() is None  # it is for the ranks
    (tmp_path / "first-step").touch()
    assert node.wait() == 0 and (tmp_path / "saved").exists()


def test_ranks_that_only_their_keeper_can_tell_hear_at_once(node, tmp_path):
    """Slurm with proctrack/cgroup signals the keepers alone."""
    (tmp_path / "first-step").touch()
    wait_for((tmp_path / "hears").exists, "the rank's handler")
    told = time.monotonic()
    node.send_signal(keeper.SAVE)
    assert node.wait() == 0 and (tmp_path / "saved").exists()
    assert time.monotonic() - told < keeper.AGAIN_SECONDS


def test_a_keeper_that_is_told_to_end_leaves_nothing(node, tmp_path):
    assert abs(float((tmp_path / "logs" / "node0" / keeper.CLOCK).read_text()) - time.time()) < 60
    node.send_signal(keeper.STACKS)
    node.send_signal(signal.SIGTERM)
    assert node.wait() == 1 and (tmp_path / "logs" / "node0" / keeper.ENDED).exists()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"{tmp_path}/rank.py" not in listed
