"""Megatron's line of a step, field by field, with what is odd about the first two of a launch."""

import re

import pytest
from records import curves, make_run, recorded

from helpers import recipes, runs
from helpers.machine import megatron_source
from helpers.processes import logs
from helpers.runs import events, log_lines

TIME, LOSS = log_lines.TIME, log_lines.LOSS


def line(step: int, loss: float, milliseconds: float = 100.0, rank: str = "") -> str:
    return (
        f"{rank} [2026-11-26 03:24:36.12{step:04d}] iteration {step:8d}/{20:8d} | consumed samples: {8 * step:12d} | "
        f"elapsed time per iteration (ms): {milliseconds:.1f} | throughput per GPU (TFLOP/s/GPU): 3.1 | "
        f"learning rate: 2.000000E-04 | global batch size:     8 | lm loss: {loss:.6E} | loss scale: 1.0 | "
        "grad norm: 2.325 | num zeros: 7 | some loss: 1.5E+00 | number of skipped iterations:   0 | "
        "number of nan iterations:   0 |"
    )


@pytest.fixture
def run(tmp_path):
    """Two launches of a run whose loss falls by 0.1 a step; the second line of each holds the mean of two."""
    made = make_run(tmp_path / "run", scalars=curves(steps=10))
    losses = made.losses
    first = [line(1, losses[1], 400), line(2, (losses[1] + losses[2]) / 2, 250)]
    first += [line(step, losses[step]) for step in range(3, 8)]
    second = [line(6, losses[6], 300), line(7, (losses[6] + losses[7]) / 2)]
    second += [line(step, losses[step], rank="[rank 3]") for step in range(8, 11)]
    text = "\n".join(["=== launch 1 of x ===", "training ...", *first, "=== launch 2 of x ===", *second])
    (made.path / "log.txt").write_text(
        text + "\n validation loss at iteration 10 on validation set | lm loss value: 6 |\n"
    )
    return made


def test_each_field_has_its_value_its_unit_and_its_place(run):
    table = runs.log_line(run)
    assert table.index.tolist()[:4] == ["time", "iteration", "consumed samples", TIME]
    assert table.loc["iteration", "value"] == "10 / 20" and table.loc["time", "value"].startswith("2026-11-26 03:24")
    assert table.loc[TIME].tolist()[:2] == ["100.0", "ms"]
    assert table.loc["some loss", "value"] == "1.5E+00", "what a model adds is there as well"
    assert "remark" not in table, "nothing is odd about a later line"
    source = megatron_source("training/training.py").read_text().splitlines()
    for name, place in table["written at"].items():
        written = source[int(place.rpartition(":")[2]) - 1]
        assert name.split(" (")[0] in written or name in ("time", LOSS, "some loss"), place
    assert "{}: {:.6E}" in source[int(table.loc[LOSS, "written at"].rpartition(":")[2]) - 1]


def test_the_first_line_of_a_launch_is_slow_and_the_second_a_mean(run):
    assert "later steps take 100 ms" in runs.log_line(run, 1).loc[TIME, "remark"]
    second = runs.log_line(run, 2)["remark"]
    assert f"this step alone had {run.losses[2]:.6f}" in second[LOSS] and "mean of the first two" in second[TIME]
    assert second[log_lines.SPEED] == "from that mean"
    assert "remark" not in runs.log_line(run, 3)
    assert "later steps take 100 ms" in runs.log_line(run, 6).loc[TIME, "remark"], "the later launch counts"
    assert "mean of the first two" in runs.log_line(run, 7).loc[LOSS, "remark"]


def test_no_remark_that_is_not_true_of_the_line(run):
    log = run.path / "log.txt"
    log.write_text(log.read_text().replace("(ms): 400.0", "(ms): 101.0").replace(f"{10.65:.6E}", "1.060000E+01"))
    assert "remark" not in runs.log_line(run, 1) and "remark" not in runs.log_line(run, 2)


def test_what_has_no_such_line_is_told(run, tmp_path):
    with pytest.raises(ValueError, match="no line of step 11: there are steps 1 to 10"):
        runs.log_line(run, 11)
    with pytest.raises(ValueError, match="no line of a step.$"):
        runs.log_line(make_run(tmp_path / "empty"))
    with pytest.raises(ValueError, match="keeps its curves and no log"):
        runs.log_line(recorded(tmp_path, recipes.gpt3_345m(), 0.5))


def test_lines_of_the_log_as_they_stand(run):
    assert run.log("lm loss:", last=2).count("\n") == 1 and " iteration       10/" in run.log("lm loss:", last=1)
    assert repr(run.log("training")) == "training ...", "a cell shows no quotes"
    assert run.log("nothing of the kind") == "" and "<pre" in run.log()._repr_html_()
    assert run.log_tail(1).startswith(" validation loss")


@pytest.mark.train
def test_the_line_of_a_real_run(tiny_run):
    table = runs.log_line(tiny_run, 30)
    assert set(table.index) <= log_lines.FIELDS.keys() and not table["written at"].str.endswith("?").any()
    assert float(table.loc["learning rate", "value"]) == pytest.approx(tiny_run.series("learning-rate")[30], rel=1e-5)
    remark = runs.log_line(tiny_run, 2).loc[LOSS, "remark"]
    assert float(re.search(r"had ([\d.]+)", remark)[1]) == pytest.approx(tiny_run.losses[2], abs=1e-6)
    assert runs.log_line(tiny_run, 1).index.tolist() == table.index.tolist()


@pytest.mark.parametrize(
    ("whole", "spoilt"),
    [
        ("(ms): ", "(ms): abc"),
        ("(ms): ", "(ms): 1.2."),
        ("lm loss: ", "lm loss: banana"),
        ("batch size: ", "batch size: x"),
        (" | ", " || : : | "),
        ("iteration ", "iteration " + "9" * 5000),
    ],
)
def test_a_line_into_which_something_else_was_written_is_shown_as_it_is(whole, spoilt, run):
    """Two programs that write into one log, say: no field is a number for sure."""
    log = run.path / "log.txt"
    log.write_text(log.read_text().replace(whole, spoilt))
    for text in log.read_text().splitlines():
        step = logs.parse_step(text)
        assert step is None or step.loss is None or step.loss > 0
    for step in (1, 2, 10):
        if spoilt.startswith("iteration"):
            with pytest.raises(ValueError, match="no line of a step"):
                runs.log_line(run, step)
        else:
            assert runs.log_line(run, step).loc["iteration", "value"] == f"{step} / 20"
    assert events.peaks_in_log("[Rank 0] (after 2 iterations) memory (MB) | max allocated: 1.2.3") == []
