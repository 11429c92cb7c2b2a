"""Several hosts as a value beside the recipe, and the command that is the same on each of them."""

import os
import subprocess

import pytest

from helpers import recipes
from helpers.processes.run_directory import write_command

TWO = recipes.Nodes(count=2, processes_per_node=1, address="alpha", interface="eth0")
RECIPE = recipes.gpt3_345m().scaled_to("cpu").with_(processes=2)


def script_of(nodes, folder):
    command = RECIPE.command(None, nodes=nodes)
    return write_command(folder, RECIPE.name, command.program, command.environment, command.groups, nodes.given())


def test_hosts_decide_no_weights():
    assert TWO.world_size == 2 and TWO.name == "2 nodes × 1 rank"
    one_host, two_hosts = RECIPE.command(None), RECIPE.command(None, nodes=TWO)
    assert one_host.groups == two_hosts.groups


def test_torchrun_has_its_options_from_variables_and_starts_once():
    command = RECIPE.command(None, nodes=TWO)
    assert command.program[2:5] == ("helpers.ranks.torchrun", "--max-restarts", "0")
    assert not {"--standalone", "--nproc-per-node", "--nnodes", "--node-rank"} & set(command.argv)
    values = {name: value for name, (value, _) in command.environment.items()}
    wanted = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "alpha", "PET_MASTER_PORT": "29500"}
    assert wanted.items() <= values.items() and "PET_NODE_RANK" not in values
    assert str(command).count("PET_NODE_RANK=0 \\\ntorchrun --max-restarts 0 helpers/ranks/pretrain_gpt.py") == 1


def test_ranks_of_several_hosts_are_not_bound_to_loopback():
    assert RECIPE.command(None).environment["GLOO_SOCKET_IFNAME"][0] == "lo"
    assert RECIPE.command(None, nodes=TWO).environment["GLOO_SOCKET_IFNAME"][0] == "eth0"
    unnamed = recipes.Nodes(count=2, processes_per_node=1)
    assert "GLOO_SOCKET_IFNAME" not in RECIPE.command(None, nodes=unnamed).environment
    alone = recipes.Nodes(count=1, processes_per_node=2)
    assert RECIPE.command(None, nodes=alone).environment["GLOO_SOCKET_IFNAME"][0] == "lo"


def test_a_host_that_was_not_told_which_it_is_says_what_is_missing(tmp_path):
    script = script_of(recipes.Nodes(count=3, processes_per_node=1), tmp_path)
    known = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    for given, missing in (({}, "NODE_RANK: which host this is, from 0 to 2"), ({"PET_NODE_RANK": "1"}, "MASTER_ADDR")):
        done = subprocess.run(["bash", script], env=known | given, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and f"PET_{missing}" in done.stderr


def test_what_slurm_or_kubeflow_set_stays(tmp_path):
    text = script_of(TWO, tmp_path).read_text()
    for line in ('PET_NNODES="${PET_NNODES:-2}"', 'PET_MASTER_ADDR="${PET_MASTER_ADDR:-alpha}"'):
        assert f"export {line}" in text
    assert "standalone" not in text and "loopback" not in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "a whole number from 1 to 100,000"),
        ({"count": True}, "a whole number"),
        ({"processes_per_node": "8"}, "a whole number from 1 to 256"),
        ({"port": 70_000}, "from 1 to 65,535"),
        ({"address": "a b"}, 'one word, such as "node1"'),
        ({"interface": "eth0; reboot"}, 'one word, such as "eth0" or "ib0"'),
        ({"address": 10}, "a text, or None"),
    ],
)
def test_what_are_no_hosts_is_told(wrong, words):
    with pytest.raises((TypeError, ValueError), match=f"Nodes.*{words}"):
        recipes.Nodes(**{"count": 2, "processes_per_node": 1} | wrong)
