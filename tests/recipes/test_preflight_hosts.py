"""What several hosts ask of a recipe, told before anything starts."""

import socket

import pytest

from helpers import recipes
from helpers.machine import described
from helpers.ranks import network
from helpers.recipes import costs, preflight

CPU_RECIPE = recipes.gpt3_345m().scaled_to("cpu")
LLAMA = recipes.llama3_8b().with_(tensor_parallel=8, processes=8, sequence_parallel=True)
FOUR_AND_FOUR = described("4 × H100 80GB", nodes=2, between_nodes_gbps=400)


def found(recipe, nodes, machine=None):
    return preflight.check(recipe, None, machine, nodes=nodes)


def test_ranks_that_the_hosts_do_not_start_are_refused():
    (problem,) = found(CPU_RECIPE.with_(processes=4, micro_batch_size=2), recipes.Nodes(2, 1))
    assert problem.severity == "error" and "2 × 1 = 2 ranks" in problem.why
    assert problem.change == "recipe.with_(processes=2), or processes_per_node=2."
    assert not found(CPU_RECIPE.with_(processes=2), recipes.Nodes(2, 1))


def test_the_gpus_of_all_hosts_count():
    recipe = recipes.gpt3_345m().with_(processes=16, global_batch_size=512)
    node = described("8 × H100 80GB")
    assert not [one for one in found(recipe, recipes.Nodes(2, 8), node) if one.severity == "error"]
    (alone,) = [one for one in preflight.check(recipe, None, node) if "16 processes" in one.asked]
    assert alone.severity == "error"


def test_tensor_parallelism_that_leaves_a_host_is_told_with_bytes_and_the_planners_step():
    (problem,) = found(LLAMA, recipes.Nodes(2, 4), FOUR_AND_FOUR)
    assert problem.severity == "warning" and problem.asked == "TP × CP = 8 × 1 on 2 nodes × 4 ranks"
    step = costs.step(LLAMA, FOUR_AND_FOUR)
    assert f"{step.milliseconds:,.0f} ms, and" in problem.why and "GB a rank" in problem.why
    assert not found(LLAMA.with_(tensor_parallel=4, distributed_optimizer=True), recipes.Nodes(2, 4), FOUR_AND_FOUR)


def test_places_that_only_this_machine_has_are_told(tmp_path, monkeypatch):
    nodes = recipes.Nodes(2, 1, interface="lo")
    places = {"The runs": tmp_path, "the corpus": "/shared"}
    monkeypatch.setattr(preflight.hosts, "_file_system", lambda place: "ext4" if place == tmp_path else "nfs4")
    assert [one.asked for one in preflight.reachable(nodes, places)] == [f"The runs on {nodes.name}"]


def test_the_kind_of_a_file_system_is_that_of_the_mount_above_even_where_nothing_is_yet():
    kind = preflight.hosts._file_system
    assert kind("/proc/self") == "proc" and kind("/proc/no/such/folder") == "proc"


def test_an_interface_that_is_not_here_is_told():
    (problem,) = preflight.reachable(recipes.Nodes(2, 1, interface="ib9"), {})
    assert problem.asked == "interface='ib9'" and "lo" in problem.why


def test_the_name_that_loops_back_is_told_and_hosts_of_one_machine_are_let_through(monkeypatch):
    monkeypatch.setattr(network.socket, "gethostname", lambda: "localhost")
    assert "stands for 127.0.0.1" in network.why_loopback() or "stands for ::1" in network.why_loopback()
    (problem,) = preflight.reachable(recipes.Nodes(2, 1), {})
    assert problem.asked == "interface=None" and problem.change.startswith("Nodes(interface=")
    two = {"PET_NNODES": "2", "PET_NODE_RANK": "1"}
    assert network.why_lost(two | {"PET_MASTER_ADDR": "127.0.0.1"}) is None
    assert "82 s" in network.why_lost(two | {"PET_MASTER_ADDR": "192.0.2.1"})


def test_a_port_that_another_program_has_is_told_on_host_0_alone():
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        known = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
        assert network.why_lost(known | {"PET_NODE_RANK": "1"}) is None
        lost = network.why_lost(known | {"PET_NODE_RANK": "0"})
    assert lost.startswith(f"Port {port} of") and "Address already in use" in lost
    assert network.why_lost(known | {"PET_NODE_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("save_interval", "steps", "asked"),
    [
        (None, 1000, "a time limit of 10:00 min without checkpoints"),
        (5000, 10_000, "a time limit of 10:00 min with save_interval=5000"),
        (100, 10_000, "a time limit of 10:00 min"),
        (100, 200, None),
        (None, 200, None),
    ],
)
def test_a_time_limit_is_held_against_the_predicted_step(save_interval, steps, asked):
    recipe = LLAMA.with_(save_interval=save_interval, train_iters=steps)
    problems = list(preflight.time_limit(recipe, FOUR_AND_FOUR, 600))
    assert [one.asked for one in problems] == ([asked] if asked else [])
    assert all(one.severity == "warning" for one in problems)


def test_without_a_known_speed_only_a_run_without_checkpoints_is_told(monkeypatch):
    unknown = described("4 × H100 80GB", nodes=2, between_nodes_gbps=400)
    monkeypatch.setattr(costs, "step", lambda *asked: (_ for _ in ()).throw(ValueError("No CPU was measured yet")))
    assert [one.change for one in preflight.time_limit(LLAMA, unknown, 600)] == ["save_interval=100, say."]
    assert not list(preflight.time_limit(LLAMA.with_(save_interval=10), unknown, 600))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"processes": 2}, {"data": 2 * 1_334_016 * 4}),
        ({"tensor_parallel": 2}, {"tensor": 2 * (4 * 4 + 2) * 8 * 128 * 128 * 4}),
        ({"pipeline_parallel": 2}, {"pipeline": 2 * 8 * 128 * 128 * 4 + 2 * 4096 * 128 * 4}),
    ],
)
def test_what_a_step_sends_is_counted_by_hand(change, expected):
    assert costs.sent_bytes(CPU_RECIPE.with_(**change)) == expected
