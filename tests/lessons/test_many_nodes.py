"""What the page of many nodes counts and answers, without a launch: sums, tables, a figure, refusals."""

import pytest

from helpers import cluster, plots, recipes
from helpers.lessons import at_scale, node_dies, saving, wires
from helpers.recipes import costs

RECIPE = recipes.gpt3_345m().scaled_to("cpu").with_(global_batch_size=16)
HOUR = 3600.0


# ---- how often to save ----
def test_failures_come_as_often_as_metas():
    assert saving.mean_time_between_failures(16_384) == pytest.approx(54 * 24 * HOUR / 419)
    assert saving.mean_time_between_failures(1) == 16_384 * saving.mean_time_between_failures(16_384)


@pytest.mark.parametrize(("save_seconds", "hours"), [(5, 3), (60, 3), (45, 49.5), (600, 800)])
def test_no_interval_loses_less_than_the_best_one(save_seconds, hours):
    best = saving.best_interval(save_seconds, hours * HOUR)
    least = saving.lost_share(best, save_seconds, hours * HOUR)
    assert all(saving.lost_share(best * factor, save_seconds, hours * HOUR) > least for factor in (0.5, 0.9, 1.1, 2))


@pytest.mark.parametrize("minutes", [20, 67, 200])
def test_the_formula_is_what_a_job_loses_that_is_run_through(minutes):
    failing = saving.mean_time_between_failures(1024)
    run_through = saving.simulate(minutes * 60, 45, failing, days=3000)
    assert run_through == pytest.approx(saving.lost_share(minutes * 60, 45, failing), rel=0.1)


def test_saving_too_often_and_too_rarely_are_told_apart():
    assert saving.exercise(67).kind == saving.exercise(60).kind == "right"
    often, rarely = saving.exercise(5), saving.exercise(600)
    assert often.kind == rarely.kind == "wrong"
    assert "is saving" in often.text and "done again" in rarely.text
    assert (
        saving.exercise(...).kind == "asked" and saving.exercise(-1).kind == saving.exercise("an hour").kind == "wrong"
    )


def test_the_table_has_a_row_for_each_pair():
    table = saving.table((64, 16_384), (5, 60))
    assert len(table) == 4
    assert table.loc[("16,384", "3:05 h", "1:00 min"), "save every"] == "19:16 min"


# ---- jobs of many nodes ----
def test_what_leaves_a_node_is_what_the_order_of_ranks_lets_out():
    inside = RECIPE.with_(tensor_parallel=2, sequence_parallel=True, pipeline_parallel=2)
    assert set(costs.sent_bytes(inside)) == {"tensor", "pipeline"}
    assert set(costs.crossing_bytes(inside, 2)) == {"pipeline"}
    assert costs.crossing_bytes(inside, 4) == {}
    assert costs.crossing_bytes(inside, 1) == costs.sent_bytes(inside)
    four = RECIPE.with_(tensor_parallel=4)
    assert costs.crossing_bytes(four, 2)["tensor"] == costs.sent_bytes(four)["tensor"] / 2  # two of a ring's four links
    chunks = RECIPE.with_(pipeline_parallel=2, virtual_pipeline_chunks=2, tied_embeddings=False)
    assert costs.crossing_bytes(chunks, 1) == costs.sent_bytes(chunks)


def test_jobs_of_many_nodes_send_most_inside_their_nodes():
    table = at_scale.table()
    assert [name.split(" ")[0] for name in table.index] == ["70B", "405B"]
    for _, row in table.iterrows():
        inside, between = (float(row[name].split()[0].replace(",", "")) for name in (at_scale.INSIDE, at_scale.BETWEEN))
        assert inside > 20 * between > 0


# ---- two hosts ----
def test_runs_are_compared_digit_by_digit():
    one = {step: (f"{8 - step}.0E+00", "1.0") for step in range(1, 7)}
    table = wires.side_by_side(one, one)
    assert list(table.index) == ["1", "2", "3", "6"] and "6 of 6 are equal" in table.index.name
    assert "5 of 6 are equal" in wires.side_by_side(one, one | {4: ("4.000001E+00", "1.0")}).index.name


def test_where_no_hosts_can_be_made_the_recorded_measurement_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "why_no_hosts", lambda: "ip is not installed here.")
    found = wires.measure(RECIPE, None, wires.LAYOUTS)
    assert "ip is not installed here.\nShown instead: recorded on" in capsys.readouterr().out
    assert list(found["layouts"]) == list(wires.LAYOUTS)
    for one in found["layouts"].values():
        assert one["sent_bytes"] == pytest.approx(one["expected_bytes"], rel=0.05)
    table = wires.table(found)
    assert list(table.index) == list(wires.LAYOUTS) and "ms a step, 100 Mbit/s" in table.columns
    assert "TP 2: free" in repr(plots.narrow_wire(found))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, "8.4 MB a step cross the wire"),
        ({"processes": 4, "micro_batch_size": 2}, "Every rank holds the whole model"),
        ({"tensor_parallel": 2}, "torchrun starts 2 × 2 = 4 ranks"),
        ({"tensor_paralel": 2}, "Did you mean tensor_parallel"),
        (4, "a dict of changes"),
    ],
)
def test_other_answers_to_the_puzzle_are_told_why(monkeypatch, change, words):
    monkeypatch.setattr(cluster, "why_no_hosts", lambda: "none here")
    answer = wires.puzzle(RECIPE, None, change)
    assert answer.kind == "wrong" and words in answer.text


@pytest.mark.parametrize(
    "change",
    [{"pipeline_parallel": 4}, {"tensor_parallel": 2, "sequence_parallel": True, "pipeline_parallel": 2}],
)
def test_the_puzzle_has_two_answers(monkeypatch, change):
    monkeypatch.setattr(cluster, "why_no_hosts", lambda: "none here")
    assert wires.puzzle(RECIPE, None, change).kind == "right"


@pytest.mark.skipif(cluster.why_no_hosts() is not None, reason=str(cluster.why_no_hosts()))
def test_hosts_that_call_themselves_127_0_1_1_meet_when_they_are_told_their_network():
    lost = wires.meet(recipes.Nodes(2, 1, address="node0"))
    assert lost.kind == "wrong" and "node1, the name of this host, stands for 127.0.1.1" in lost.text
    met = wires.meet(recipes.Nodes(2, 1, address="node0", interface="eth0"))
    assert met.kind == "right" and "rank 1 of 2: the sum is 3" in met.text


# ---- Slurm ----
def test_the_job_that_would_be_submitted_can_be_read_without_slurm():
    text = node_dies.job_sh(RECIPE.with_(processes=2), cluster.slurm(nodes=2, time="10")).data
    assert text.startswith("#!/usr/bin/env bash\n#SBATCH") and "srun" in text
