"""Two learners, two kernels, one machine, at the same time: they collide in nothing."""

import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
from patience import wait_for
from tiny_ranks import listening

from helpers import runs
from helpers.machine import PROJECT
from helpers.processes import control

# What one learner's notebook does: prepare the corpus, train. Both share the cache, the runs folder and the recipe.
LEARNER = """
import pickle, sys
from helpers import corpus, launch
from helpers.machine import CPU
recipe = pickle.load(open(sys.argv[1], "rb"))
data = corpus.prepare(sys.argv[2], tokenizer="bpe-512")
run = launch.train(recipe, data, machine=CPU)
print("RUN", run.path)
"""


def learner(number, recipe_file, texts, shared):
    environment = os.environ | {
        "MEGATRON_TOUR_RUNS": str(shared / "runs"),
        "MEGATRON_TOUR_CACHE": str(shared / "cache"),
        "CUDA_VISIBLE_DEVICES": str(number),
    }
    return subprocess.Popen(
        [sys.executable, "-c", LEARNER, str(recipe_file), str(texts)],
        cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def started_runs(shared, count: int):
    """The run directories whose log shows a first step, once there are `count` of them."""

    def with_a_step():
        found = [log.parent for log in shared.glob("runs/*/*/log.txt") if "lm loss" in log.read_text()]
        return found if len(found) == count else None

    return wait_for(with_a_step, f"a first step of {count} runs")


@pytest.mark.train
def test_two_learners_collide_in_nothing(tiny_recipe, small_jsonl, tmp_path):
    recipe_file = tmp_path / "recipe"
    recipe_file.write_bytes(pickle.dumps(tiny_recipe.with_(train_iters=5000, exit_interval=200, tensor_parallel=2)))
    first, second = (learner(number, recipe_file, small_jsonl, tmp_path) for number in (0, 1))
    try:
        directories = started_runs(tmp_path, 2)
        assert all(control.state(directory) == "running" for directory in directories), "both train at this moment"
        by_device = {}
        for directory in directories:
            ranks = [p for p in control.members(directory) if "RANK" in p.environ()]
            assert {p.environ()["RANK"] for p in ranks} == {"0", "1"}  # and the processes that read ahead for them
            devices = {p.environ()["CUDA_VISIBLE_DEVICES"] for p in ranks}
            ports = {p.environ()["MASTER_PORT"] for p in ranks}
            heard_on = {where.laddr.ip for p in control.members(directory) for where in listening(p)}
            assert heard_on == {"127.0.0.1"}, "nobody on the network reaches a run"
            assert len(devices) == 1, "each learner's ranks see that learner's GPUs"
            by_device[devices.pop()] = (directory, ports)
        assert set(by_device) == {"0", "1"}
        assert not by_device["0"][1] & by_device["1"][1], "each run has a port of its own"

        first.send_signal(signal.SIGINT)  # the first learner interrupts; the second must not notice
        out, _ = first.communicate()
        assert "KeyboardInterrupt" in out
        assert control.state(by_device["0"][0]) == "stopped"
        out, _ = second.communicate()
        assert second.returncode == 0, out
    finally:
        for process in (first, second):
            process.kill()

    run = runs.load(by_device["1"][0])
    assert f"RUN {run.path}" in out
    assert list(run.losses.index) == list(range(1, 201))
    stopped = runs.load(by_device["0"][0]).losses
    assert stopped.to_dict() == run.losses.loc[stopped.index].to_dict(), "same recipe, same corpus: same losses"
    prepared = list((tmp_path / "cache").rglob("*_text_document.bin"))
    assert len(prepared) == 1, "one of them prepared the corpus, the other found it"
    identities = [json.loads((d / "recipe.json").read_text())["fingerprint"] for d, _ in by_device.values()]
    assert identities[0] == identities[1]
