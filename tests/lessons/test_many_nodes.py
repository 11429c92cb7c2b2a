"""What the page of many nodes counts and answers, without a launch: sums, tables, a figure, refusals."""

import pytest
from two_nodes import needs_hosts

from helpers import cluster, machine, plots, recipes
from helpers.lessons import at_scale, node_dies, saving, wires
from helpers.processes import logs
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


@pytest.mark.parametrize(("minutes", "gpus", "within"), [(20, 1024, 0.1), (67, 1024, 0.1), (240, 16_384, 0.02)])
def test_the_formula_is_what_a_job_loses_that_is_run_through(minutes, gpus, within):
    """The last one saves more rarely than it fails: there no first order holds."""
    failing = saving.mean_time_between_failures(gpus)
    run_through = saving.simulate(minutes * 60, 45, failing, days=3000)
    assert run_through == pytest.approx(saving.lost_share(minutes * 60, 45, failing), rel=within)


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
    row = table.loc[("16,384", "3.1 h", "60 s")]
    assert row["save every"] == "19 min" and row["lost, saving every 4 h"] == "54.0%"
    assert saving.table((32,), (5,)).index[0] == ("32", "66 days", "5 s")


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
    assert [name.split(" ")[0] for name in table.columns] == ["70B", "405B"]
    for _, column in table.items():
        inside, between = (
            float(column[name].split()[0].replace(",", "")) for name in (at_scale.INSIDE, at_scale.BETWEEN)
        )
        assert inside > 20 * between > 0


def test_layouts_are_predicted_side_by_side_and_what_does_not_fit_is_told():
    four = machine.described("8 × H100 80GB", nodes=4, between_nodes_gbps=400)
    two, eight, bad = ({"tensor_parallel": size} for size in (2, 8, 16))
    layouts = [{}, two, eight, eight | {"pipeline_parallel": 2}, bad]
    table = at_scale.predicted([recipes.llama3_8b(), recipes.llama3_70b()], four, layouts)
    small, large = table.loc["llama3_8b"], table.loc["llama3_70b"]
    assert list(small.index) == list(large.index) == ["DP32", "TP2×DP16", "TP8×DP4", "TP8×PP2×DP2", "TP16×DP2"]
    assert [text.startswith("does not fit") for text in small["step"]] == [True, False, False, False, False]
    assert [text.startswith("does not fit") for text in large["step"]] == [True, True, True, False, False]
    for fits in (small.iloc[1:], large.iloc[3:]):  # the first that fits is the fastest, TP across nodes the slowest
        seconds = [float(text.split()[0]) for text in fits["step"]]
        assert min(seconds) == seconds[0] and max(seconds) == seconds[-1]
    sent = table["GB to other nodes, a GPU and step"]
    assert float(sent["llama3_70b", "TP16×DP2"]) > 20 * float(sent["llama3_70b", "TP8×PP2×DP2"])


def test_without_nvlink_a_pipeline_loses_least():
    """And bytes ÷ the rate of an all-reduce is a first guess of what TCP adds."""
    table = at_scale.without_nvlink()
    alone, *splits = table.index
    assert splits == ["PP2", "DP2", "TP2"] and table.index.name == "recorded on 2 × NVIDIA H200"
    added, guess = (table.filter(like=name).iloc[:, 0].str.replace(",", "").astype(float) for name in ("adds", "÷"))
    assert added["PP2"] < added["DP2"] / 10 and added["DP2"] < added["TP2"]
    assert added[alone] == pytest.approx(guess[alone], rel=0.02)
    for split in ("DP2", "TP2"):
        assert added[split] == pytest.approx(guess[split], rel=0.3)


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
    assert list(table.columns) == list(wires.LAYOUTS) and "ms a step, 100 Mbit/s" in table.index
    assert "TP 2: free" in repr(plots.narrow_wire(found))


def test_the_dashes_over_a_narrow_wire_are_the_free_step_and_half_of_the_bytes():
    """10 MB at 100 Mbit/s: each host sends 5 MB, in 0.4 s."""
    one = {"sent_bytes": 10e6, "expected_bytes": 10e6, "step_ms": {"free": 500, "100 Mbit/s": 910}}
    axes = plots.narrow_wire({"measured_on": "a machine", "layouts": {"DP 2": one}}).figure.axes[0]
    (dash,) = [line.get_segments()[0][0][1] for line in axes.collections]
    assert dash == pytest.approx(900)


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


@needs_hosts
def test_hosts_that_call_themselves_127_0_1_1_meet_when_they_are_told_their_network():
    lost = wires.meet(recipes.Nodes(2, 1, address="node0"))
    assert lost.kind == "wrong"
    assert ", the name of this host, stands for 127.0.1.1" in lost.text  # either host may be the first to say so
    met = wires.meet(recipes.Nodes(2, 1, address="node0", interface="eth0"))
    assert met.kind == "right" and "rank 1 of 2: the sum is 3" in met.text


def test_a_host_is_quoted_by_its_sum_whatever_torchrun_says_after_it():
    gone = "--- Logging error ---\nMessage: 'Error waiting on exit barrier. Elapsed: %s seconds'\nArguments: (0.029,)\n"
    assert wires.last_word(f"W1127 a warning\nrank 1 of 2: the sum is 3\n{gone}") == "rank 1 of 2: the sum is 3"
    assert wires.last_word("a warning\nnode0 is lost.\n") == "node0 is lost."
    assert wires.last_word("") == "It ended without a word."


# ---- Slurm ----
def test_the_job_that_would_be_submitted_can_be_read_without_slurm():
    text = node_dies.job_sh(RECIPE.with_(processes=2), cluster.slurm(nodes=2, time="10")).data
    assert text.startswith("#!/usr/bin/env bash\n#SBATCH") and "srun" in text


LINE = "[rank 1]  [2026-11-26 16:45:{:02}.500000] iteration {:8}/       6 | elapsed time per iteration (ms): 800.0 |"
LINE += " global batch size:    16 | lm loss: 8.0E+00 |"


def test_the_steps_of_each_start_are_read_from_the_log():
    save = "[rank 0]   [2026-11-26 16:45:02.900000] successfully saved checkpoint from iteration       2 to checkpoints"
    first = [
        "=== launch 1 of run ===",
        LINE.format(1, 1),
        LINE.format(2, 2),
        save,
        LINE.format(3, 3),
        LINE.format(4, 4),
    ]
    second = ["=== launch 2 of run ===", LINE.format(40, 3), LINE.format(41, 4), LINE.format(42, 5)]
    log = "\n".join(first + ["=== launch 9 that took no step ==="] + second)
    starts = node_dies.by_start(log, began=logs.written_at(LINE.format(0, 0)))
    assert starts[0] == {"steps": [[1, 1.0], [2, 2.0], [3, 3.0], [4, 4.0]], "saved": [[2, 2.4]]}
    assert starts[1]["steps"][0] == [3, 40.0] and len(starts) == 2
    came_back = node_dies.came_back(*starts)
    assert came_back == (
        40.0,
        "start 2 has loaded the checkpoint of step 2 and done step 3: steps 3 and 4 are done twice",
    )
    picture = plots.two_starts({"starts": starts, "node": "n2", "dead": 4.2})
    assert "start 2: steps 3 to 5" in picture.alt and "Done twice: 3, 4." in picture.alt
    assert picture.png.startswith(b"\x89PNG")


def test_without_a_recorded_story_its_table_and_figure_say_so():
    nothing = {"told": [], "measured_on": "nothing"}
    assert "recorded" in str(node_dies.table(nothing)) and "recorded" in str(plots.two_starts(nothing))
