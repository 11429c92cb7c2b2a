"""What a run left behind is read as it is: merged over resumed launches, in words where there is nothing."""

import json
import math
import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import checkpoint_files
import pandas as pd
import pytest
from other_users import as_nobody, only_root, open_folder
from records import RECIPE, TOKENS_PER_STEP, curves, make_run, write_events

from helpers import machine, plots, runs
from helpers.machine import PROJECT
from helpers.processes import control
from helpers.processes.checkpoints import size_bytes
from helpers.recipes import accounting
from helpers.runs import records
from helpers.runs.results import after_warm_up


def write_tag_twice(folder, tag: str, step: int, first: float, second: float, suffix: str = ".twice") -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for value in (first, second):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))
    writer.close()


def test_losses_and_scalars(tmp_path):
    run = make_run(tmp_path / "a")
    assert run.losses.index.tolist() == list(range(1, 21))
    assert run.losses[20] == pytest.approx(8.8) and run.losses.name == "loss"
    assert "lm loss vs samples" not in run.scalars
    assert math.isnan(run.scalars["iteration-time"][1])


def test_summary_by_hand(tmp_path):
    row = make_run(tmp_path / "a").summary().iloc[0]
    speed = TOKENS_PER_STEP / 0.5 / 2  # two GPUs
    assert row["steps"] == 20 and row["tokens"] == 20 * TOKENS_PER_STEP
    assert row["tokens/s/GPU"] == pytest.approx(speed)
    assert row["TFLOP/s/GPU"] == pytest.approx(speed * accounting.flops_per_token(RECIPE.model) / 1e12)
    assert row["MFU"] == pytest.approx(row["TFLOP/s/GPU"] / 989)
    assert row["peak memory GB"] == pytest.approx(1.00000002)
    assert (row["first loss"], row["final loss"]) == (pytest.approx(10.7), pytest.approx(8.8))
    assert row["wall time s"] == 60


@pytest.mark.parametrize("value", [1.5, [1, 2], None])
@pytest.mark.parametrize("name", ["recipe.json", "environment.json"])
def test_json_of_another_shape_is_told_in_words(tmp_path, name, value):
    """What was asked of such a run ended in "'float' object has no attribute 'get'"."""
    run = make_run(tmp_path / "a")
    known = json.loads((run.path / name).read_text())
    (run.path / name).write_text(json.dumps(dict.fromkeys(known, value)))
    for ask in (repr, lambda run: runs.compare([run]), plots.loss):
        with pytest.raises(ValueError, match=rf"{name} is damaged: it h"):
            ask(run)


def test_megatrons_own_tflops_count_where_it_wrote_them(tmp_path):
    run = make_run(tmp_path / "a", scalars=curves() | {"throughput": dict.fromkeys(range(1, 21), 123.0)})
    assert run.summary()["TFLOP/s/GPU"].item() == 123.0


def test_no_mfu_on_a_cpu_nor_on_an_unknown_gpu(tmp_path):
    unknown = machine.Machine(gpus=(machine.GPU("Somebody's GPU", 10**10, (9, 0)),))
    for name, where in (("cpu", machine.CPU), ("unknown", unknown)):
        assert math.isnan(make_run(tmp_path / name, machine=where).summary()["MFU"].item())


def test_a_resumed_run_is_one_curve_and_the_later_launch_counts(tmp_path):
    run = make_run(tmp_path / "a", scalars={"lm loss": {1: 5.0, 2: 4.0, 3: 99.0}})
    time.sleep(1.1)  # the names of event files carry seconds
    write_events(run.path / "tensorboard", {"lm loss": {3: 3.0, 4: 2.0}}, ".two")
    assert run.losses.tolist() == [5.0, 4.0, 3.0, 2.0]


def test_the_test_part_does_not_pass_for_the_validation_part(tmp_path):
    """Megatron writes its loss last, under the same tag and step."""
    run = make_run(tmp_path / "a")
    write_tag_twice(run.path / "tensorboard", "lm loss validation", 20, 6.5, 6.6)
    assert run.validation_losses.to_dict() == {20: 6.5}
    assert run.summary()["validation loss"].item() == 6.5
    time.sleep(1.1)
    write_tag_twice(run.path / "tensorboard", "lm loss validation", 20, 6.3, 6.4, ".later")
    assert run.validation_losses.to_dict() == {20: pytest.approx(6.3)}, "the later launch counts"


def test_more_than_ten_thousand_points_are_all_there(tmp_path):
    run = make_run(tmp_path / "a", scalars={"lm loss": dict.fromkeys(range(1, 10_501), 1.0)})
    assert len(run.losses) == 10_500


def test_an_event_file_cut_off_by_a_kill_is_read_as_far_as_it_goes(tmp_path):
    run = make_run(tmp_path / "a", scalars={"lm loss": {step: 1.0 * step for step in range(1, 101)}})
    (events,) = (run.path / "tensorboard").iterdir()
    events.write_bytes(events.read_bytes()[:-7])
    assert run.losses.tolist() == [1.0 * step for step in range(1, 100)]


STEP_LINE = (
    " [2026-11-26 12:00:00] iteration {:8d}/      20 | consumed samples: 8 | elapsed time per iteration (ms): 500.0 | "
    "learning rate: 1E-3 | global batch size:     8 | lm loss: 1.0E+00 |\n"
)


@pytest.mark.parametrize(
    ("files", "which"),
    [(slice(0), "all of its 20 steps"), (slice(1), "8 of its 20 steps"), (slice(2), None)],
    ids=["both gone", "the second gone", "both there"],
)
def test_steps_that_only_the_log_has_are_told(files, which, tmp_path):
    """ "finished, without a single step" stood there, or fewer losses in silence."""
    run = make_run(tmp_path / "a", scalars={"lm loss": dict.fromkeys(range(1, 13), 1.0)})
    write_events(run.path / "tensorboard", {"lm loss": dict.fromkeys(range(13, 21), 1.0)}, ".two")
    (run.path / "log.txt").write_text("".join(STEP_LINE.format(step) for step in range(1, 21)))
    kept = [next((run.path / "tensorboard").glob(f"*{suffix}")) for suffix in (".one", ".two")][files]
    for path in (run.path / "tensorboard").iterdir():
        if path not in kept:
            path.unlink()
    told = f"finished, but {which} stand in log.txt alone: {run.path}/tensorboard, where curves come from, lacks them"
    assert repr(run).splitlines()[0] == f"gpt3_345m, a: {told if which else 'finished'}"
    control.write_status(run.path, state="running")
    with control.held(run.path):
        assert "log.txt" not in run.headline, "it may be written later than the log"


def test_a_log_that_is_gone_is_not_told_as_one_to_come(tmp_path):
    run = make_run(tmp_path / "a")
    control.write_status(run.path, launch=1)
    for ask in (lambda: runs.log_line(run), run.log, run.log_tail):
        with pytest.raises((ValueError, FileNotFoundError), match="log.txt is gone: the run wrote one"):
            ask()
    (run.path / "log.txt").mkdir()
    for ask in (lambda: runs.log_line(run), run.log):
        with pytest.raises((ValueError, FileNotFoundError), match="log.txt is a folder"):
            ask()
    with pytest.raises(ValueError, match="log.txt is damaged: it is a folder. The run cannot be shown"):
        runs.load(run.path)
    (run.path / "log.txt").rmdir()
    (run.path / "log.txt").write_text("a line\n")
    with pytest.raises(ValueError, match="has no line of a step.$"):
        runs.log_line(run)


def test_a_run_that_nobody_loaded_shows_itself(tmp_path):
    assert repr(runs.Run("nope")).startswith("run, nope: never started, without a single step")


def test_a_record_that_cannot_be_written_leaves_no_folder(tmp_path):
    run = make_run(tmp_path / "a")
    (run.path / "status.json").write_text("[]")
    with pytest.raises(ValueError, match="status.json is damaged"):
        runs.record(run, "x", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_peak_memory_is_the_fullest_rank_of_log_and_tensorboard(tmp_path):
    run = make_run(tmp_path / "a")
    line = "[Rank {}] (after 2 iterations) memory (MB) | allocated: 1.00 | max allocated: {} | reserved: 2.00"
    (run.path / "log.txt").write_text(f"[rank 0] {line.format(0, 4096.25)}\n[rank 1] {line.format(1, 17.0)}\n")
    assert run.peak_memory_bytes == 4096.25 * 2**20


def test_directories_without_a_step_speak_in_words(tmp_path):
    empty = tmp_path / "20260101-000000"
    empty.mkdir()
    run = runs.load(empty)
    assert run.state == "never started" and len(run.losses) == 0 and run.log_tail() == ""
    assert run.summary()["steps"].item() == 0 and math.isnan(run.summary()["tokens/s/rank"].item())
    assert "never started, without a single step" in repr(run)
    failed = make_run(tmp_path / "f", scalars={}, state="failed")
    control.write_status(failed.path, failing_rank=1, reason="was killed by SIGKILL")
    assert "failed (rank 1 was killed by SIGKILL), without a single step" in failed._repr_html_()
    assert failed.checkpoints().empty and failed.summary()["tokens"].item() == 0


def test_a_run_whose_supervisor_is_gone_has_failed(tmp_path):
    run = make_run(tmp_path / "a", state="running")
    assert run.state == "failed" and "its supervisor was killed" in run.headline


def test_checkpoints_of_a_going_run_are_not_deleted(tmp_path):
    run = make_run(tmp_path / "a", state="running")
    checkpoint_files.write(run.path / "checkpoints", 10)
    with control.held(run.path), pytest.raises(RuntimeError, match="still running"):
        run.delete_checkpoints()
    assert run.checkpoints().index.tolist() == [10]
    assert run.delete_checkpoints().endswith(" kB freed.")
    assert run.checkpoints().empty and len(run.losses) == 20
    assert run.delete_checkpoints() == "0 kB freed."


def test_checkpoints_behind_a_link_are_left_where_they_are(tmp_path):
    run = make_run(tmp_path / "a")
    (tmp_path / "elsewhere" / "iter_0000010").mkdir(parents=True)
    (run.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeError, match="is a link to .*elsewhere: delete by hand"):
        run.delete_checkpoints()
    assert (tmp_path / "elsewhere" / "iter_0000010").is_dir()


def test_checkpoints_that_may_not_be_deleted_are_not_told_as_freed():
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which only its owner may enter
        run = make_run(Path(folder) / "a")
        checkpoint = checkpoint_files.write(run.path / "checkpoints", 10)
        for path in (Path(folder), run.path, checkpoint.parent, checkpoint):
            path.chmod(0o755 if os.geteuid() == 0 else 0o555)
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)  # nobody
            with pytest.raises(PermissionError, match=r"^0 kB freed: .* may not be deleted .* belongs to \w+"):
                run.delete_checkpoints()
        finally:
            os.seteuid(os.getuid())
            for path in (Path(folder), run.path, checkpoint.parent, checkpoint):
                path.chmod(0o755)
        assert run.checkpoints().index.tolist() == [10]


@only_root
@pytest.mark.parametrize("closed", ["", "status.json", "recipe.json", "checkpoints"])
def test_what_another_user_keeps_closed_is_not_told_as_damaged_or_missing(closed):
    with open_folder() as folder:
        run = make_run(folder / "tiny" / "20260101-000000")
        (run.path / "checkpoints").mkdir()
        assert as_nobody(lambda: runs.load(run.path).state) == "finished"
        (run.path / closed).chmod(0o700 if (run.path / closed).is_dir() else 0o600)
        refusal = (
            f"PermissionError: {run.path / closed} belongs to user root, who lets nobody else read it. They can open"
        )
        assert as_nobody(lambda: runs.load(run.path)).startswith(refusal)
        assert as_nobody(lambda: runs.latest("tiny", folder)).startswith(refusal)
        (folder / "tiny").chmod(0o700)
        assert as_nobody(lambda: runs.latest("tiny", folder)).startswith(
            f"PermissionError: {folder / 'tiny'} belongs to"
        )


def test_load_and_latest(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run directory"):
        runs.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no run directory"):
        runs.load("x" * 300)
    with pytest.raises(TypeError, match=r"runs.load\(None\): it takes a path"):
        runs.load(None)
    with pytest.raises(FileNotFoundError, match="launch.train"):
        runs.latest("gpt3_345m", tmp_path)
    for name in ("20260102-000000", "20260103-000000", "20260101-000000"):
        make_run(tmp_path / "gpt3_345m" / name)
    (tmp_path / "gpt3_345m" / "20260104-000000").mkdir()  # a launch that wrote nothing
    assert runs.latest("gpt3_345m", tmp_path).path.name == "20260103-000000"


def test_labels_say_what_differs(tmp_path):
    def named(*changes):
        made = [make_run(tmp_path / f"{time.time_ns()}", RECIPE.with_(**change)) for change in changes]
        return runs.labels(made)

    assert named({"micro_batch_size": 1}, {"micro_batch_size": 8}) == ["micro_batch_size 1", "micro_batch_size 8"]
    assert named({}, {"tensor_parallel": 1, "processes": 2}) == ["TP2", "DP2"]
    assert named({}, {"dtype": "fp16", "micro_batch_size": 4}) == [
        "micro_batch_size 8, bf16",
        "micro_batch_size 4, fp16",
    ]
    assert named({}, {"name": "other", "lr": 1.0}) == ["gpt3_345m", "other"]
    scaled = named({}, {"num_layers": 4, "hidden_size": 128, "vocab_size": 4096, "num_attention_heads": 4})
    assert scaled == ["gpt3_345m, 24 × 1024", "gpt3_345m, 4 × 128"]
    same = named({}, {})
    assert len(set(same)) == 2 and all(label.startswith("gpt3_345m, ") for label in same)


def test_compare_is_one_table(tmp_path):
    one = make_run(tmp_path / "1", RECIPE.with_(micro_batch_size=1))
    other = make_run(tmp_path / "2", RECIPE.with_(micro_batch_size=8), scalars=curves(seconds=0.25))
    table = runs.compare([one, None, other])
    assert table.index.tolist() == ["micro_batch_size 1", "micro_batch_size 8"]
    assert table["tokens/s/GPU"].tolist() == [8192.0, 16384.0] and "machine" not in table
    elsewhere = make_run(tmp_path / "3", machine=machine.CPU)
    assert runs.compare([one, elsewhere])["machine"].tolist() == ["2 × NVIDIA H200", "2-core CPU"]
    assert runs.compare([None]).empty


def test_a_run_is_found_on_whatever_machine_it_was_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    assert runs.recorded_anywhere("gpt") is None
    path = runs.record(make_run(tmp_path / "a"), "gpt", tmp_path / "recorded")
    assert runs.recorded_anywhere("gpt").path == path and runs.recorded_anywhere("g*") is None


def test_a_recorded_run_answers_like_the_live_one(tmp_path, monkeypatch):
    live = make_run(tmp_path / "a")
    (live.path / "predictions.json").write_text('{"loss": 5}')
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    assert runs.recorded("h200", "gpt") is None and runs.recorded("h200") == []
    path = runs.record(live, "gpt", tmp_path / "recorded")
    assert path == tmp_path / "recorded" / "h200" / "gpt.json" and path.stat().st_size < 20_000
    kept = runs.recorded("h200", "gpt")
    assert [run.path for run in runs.recorded("h200")] == [path]
    assert kept.recorded_on == "2 × NVIDIA H200" and live.recorded_on is None
    assert kept.headline == "gpt3_345m: recorded on 2 × NVIDIA H200, 2026-11-23"
    pd.testing.assert_frame_equal(kept.summary(), live.summary())
    pd.testing.assert_series_equal(kept.losses, live.losses, rtol=1e-6)
    assert kept.predictions == {"loss": 5} and kept.layout == RECIPE.layout and kept.model == RECIPE.model
    assert runs.labels([live, kept]) == ["gpt3_345m", "gpt3_345m (recorded on 2 × NVIDIA H200)"]


def test_recorded_runs_of_a_pattern_come_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    live = make_run(tmp_path / "a")
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    for name in ("micro_16", "micro_8", "micro_128", "other"):
        runs.record(live, name, tmp_path / "recorded")
    assert [run.path.stem for run in runs.recorded("h200", "micro_*")] == ["micro_8", "micro_16", "micro_128"]
    assert [run.path.stem for run in runs.recorded("h200", "micro_[1-9]")] == ["micro_8"]
    assert runs.recorded("h200", "nothing*") == []


def test_a_result_names_no_place_of_this_machine(tmp_path):
    run = make_run(tmp_path / "a")
    text = runs.write_result(run.path).read_text()
    assert str(tmp_path) not in text and "cd runs/<run>" in text
    assert set(json.loads(text)) >= {"recipe", "environment", "command", "figures", "series", "status"}
    assert "pid" not in json.loads(text)["status"]


def test_long_series_are_thinned_but_keep_both_ends(tmp_path):
    run = make_run(tmp_path / "a", scalars={"lm loss": {step: 1.0 * step for step in range(1, 5002)}})
    kept = runs.read_result(runs.write_result(run.path)).losses
    assert 500 < len(kept) <= 1001 and (kept.index[0], kept.index[-1]) == (1, 5001)
    assert (kept == kept.index).all()


def test_warm_up():
    assert after_warm_up(pd.Series(range(200))).iloc[0] == 10
    assert after_warm_up(pd.Series(range(50))).iloc[0] == 5
    assert after_warm_up(pd.Series(range(10))).iloc[0] == 3
    assert after_warm_up(pd.Series([7, 8])).tolist() == [8] and after_warm_up(pd.Series([], dtype=float)).empty


@pytest.mark.train
def test_a_trained_run(tiny_run, tmp_path):
    assert tiny_run.state == "finished"
    assert tiny_run.losses.index.tolist() == list(range(1, 31))
    assert tiny_run.losses[1] == pytest.approx(math.log(512), abs=0.1)
    row = tiny_run.summary().iloc[0]
    assert row["final loss"] < row["first loss"] and row["tokens"] == 30 * 8 * 64
    assert row["tokens/s/rank"] > 100 and row["peak memory GB"] > 0 and row["wall time s"] > 1
    printed = re.findall(
        r"validation loss at iteration \d+(?: on validation set)? \| lm loss value: (\S+)", tiny_run.log_text
    )
    assert any(row["validation loss"] == pytest.approx(float(loss), rel=1e-5) for loss in printed)
    assert "--nproc-per-node 1" in tiny_run.command and "iteration       30/" in tiny_run.log_tail(60)
    assert tiny_run.checkpoints().index.tolist() == [20, 30]
    copy = runs.load(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    assert size_bytes(copy.path) > copy.checkpoints()["GB"].sum() * 1e9 > 1e6
    assert copy.delete_checkpoints().endswith("freed.") and size_bytes(copy.path) < 1e6
    kept = runs.read_result(tiny_run.path / "result.json")
    pd.testing.assert_frame_equal(kept.summary(), tiny_run.summary(), rtol=1e-6)


README_ROWS = {  # row of README's table → the pair of records behind it
    "GPT3-345M, batch 32, 1 GPU": "gpt3_345m_graph",
    "without dropout": "gpt3_345m_no_dropout_graph",
    "GPT 1.2B, batch 20, 1 GPU": "gpt_1_2b_20_tp1_graph",
    "TP 2, sequence parallel, 2 GPUs": "gpt_1_2b_20_tp2_sp_graph",
    "Llama3-8B, bf16, 2 GPUs": "llama3_8b_bf16_dp2",
    "Llama3-8B in FP8, 2 GPUs": "llama3_8b_tensorwise_dp2",
}


@pytest.mark.parametrize("card", ["h200", "h100-80gb-hbm3"])
def test_readme_has_stock_beside_ours_as_recorded(card):
    readme, speeds = (PROJECT / "README.md").read_text(), {}
    for row, name in README_ROWS.items():
        pair = [runs.recorded(f"{card}/twins", name + suffix) for suffix in ("_stock", "")]
        if pair == [None, None]:
            continue
        assert [run.recipe.stock for run in pair] == [True, False]
        assert replace(pair[0].recipe, stock=False, name=name) == pair[1].recipe
        speeds[row] = stock, ours = [run.figures()["tokens/s/GPU"] for run in pair]
        assert f"| {row} | {stock:,.0f} | {ours:,.0f} | {ours / stock:.2f} |" in readme
    assert len(speeds) >= 3
    if "Llama3-8B, bf16, 2 GPUs" in speeds:
        pairs = zip(speeds["Llama3-8B in FP8, 2 GPUs"], speeds["Llama3-8B, bf16, 2 GPUs"], strict=True)
        assert "| FP8 over bf16 | {:.2f} | {:.2f} | |".format(*(eight / sixteen for eight, sixteen in pairs)) in readme


@pytest.mark.parametrize(("card", "machine"), [("h200", "2 × H200"), ("h100-80gb-hbm3", "2 × H100 80GB")])
def test_readme_has_the_llama_by_tp_2_as_recorded(card, machine):
    """Where no stock run was recorded there is a dash, and no ratio."""
    readme, speeds = (PROJECT / "README.md").read_text(), {}
    for word, name in {"bf16": "llama3_8b_bf16_tp2_sp_eager", "FP8": "llama3_8b_tensorwise_tp2_sp_eager"}.items():
        pair = [runs.recorded(f"{card}/twins", name + suffix) for suffix in ("_stock", "")]
        stock, ours = speeds[word] = [run and run.figures()["tokens/s/GPU"] for run in pair]
        cells = (f"{stock:,.0f}", f"{ours:,.0f}", f"{ours / stock:.2f} ") if stock else ("–", f"{ours:,.0f}", "")
        assert "| {}, {} | {} | {} | {}|".format(machine, word, *cells) in readme
    pairs = zip(speeds["FP8"], speeds["bf16"], strict=True)
    gains = [f"{eight / sixteen:.2f}" if sixteen else "–" for eight, sixteen in pairs]
    assert "| {}, FP8 over bf16 | {} | {} | |".format(machine, *gains) in readme


# ---- rough handling ------------------------------------------------------------------------------------------------
def test_the_last_lines_of_a_log_are_counted_from_zero(tmp_path):
    run = make_run(tmp_path / "a")
    (run.path / "log.txt").write_text("one\ntwo\nthree\n")
    assert (run.log(last=0), run.log(last=1), run.log(last=9)) == ("", "three", "one\ntwo\nthree")
    assert run.log("t", last=2) == "two\nthree" and run.log_tail(0) == ""
    with pytest.raises(ValueError, match="last=-1: it counts lines from the end"):
        run.log(last=-1)
    for odd in ("3", 2.5, None):
        with pytest.raises(TypeError, match=r"run.log\(last=.*it takes a whole number"):
            run.log(last=odd)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: runs.compare(run), "each of it a run"),
        (lambda run: runs.compare({"a": run}), "'a' in it is a str"),
        (lambda run: runs.labels(["x"]), "'x' in it is a str"),
        (lambda run: runs.log_line(run, "last"), "(step='last'): it takes a whole number, or None"),
        (lambda run: runs.timeline.of_run(run), "the profiler was not on"),
        (lambda run: runs.recorded(5), "(machine_label=5): it takes a text"),
        (lambda run: runs.micro_batches.recorded("h200", None), "(name=None): it takes a text"),
        (lambda run: runs.baselines.table(None), "(machine=None): it takes a text"),
        (lambda run: runs.wandb_history.history(None), "(run_directory=None): it takes a path, or a text"),
        (lambda run: runs.read_result(run.path / "recipe.json"), "holds something else: it lacks 'environment'"),
        (lambda run: runs.read_result(run.path / "nowhere.json"), "There is no file"),
        (lambda run: runs.record(run, "../x"), "it names one file"),
        (lambda run: runs.record(run, "x", run.path / "recipe.json"), "recipe.json is a file, and no folder can lie"),
        (lambda run: run.measured("x"), "run.measured('x'): there is no such figure. There are: MFU, TFLOP/s/GPU, "),
        (lambda run: run.measured(""), "run.measured(''): there is no such figure."),
        (lambda run: run.measured(None), "(figure=None): it takes a text"),
        (lambda run: run.measured("last loss"), "Did you mean 'first loss'?"),
        (lambda run: run.series("unknown"), "run.series('unknown'): there is no such scalar. There are: grad-norm, "),
        (lambda run: run.series("lm-loss"), "Did you mean 'lm loss'?"),
        (lambda run: runs.Run(None), "runs.Run(None): it takes a path"),
        (lambda run: runs.latest("x", run.path / ("n" * 300)), "255 bytes"),
        (lambda run: runs.latest("log.txt", run.path), "No run of log.txt lies under"),
        (lambda run: runs.latest("recipe.json", run.path), "recipe.json is a file, where a folder with the runs of"),
        (lambda run: runs.load("~nosuchuser/x"), "the home that ~ stands for is not known"),
        (lambda run: runs.load(""), "an empty path names nothing"),
        (lambda run: runs.trust(""), "an empty path names nothing"),
    ],
)
def test_strange_requests_are_told_in_words(call, words, tmp_path):
    with pytest.raises((TypeError, ValueError, OSError)) as refused:
        call(make_run(tmp_path / "a"))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda kept: "", "it is no JSON"),
        (lambda kept: "\xff", "it is no JSON"),
        (lambda kept: {}, "it lacks 'environment'"),
        (lambda kept: "banana", "it is 'banana'"),
        (lambda kept: [1], "it is [1]"),
        (lambda kept: None, "it is None"),
        (lambda kept: kept | {"environment": 5}, "what is in it is of another kind"),
        (lambda kept: kept | {"environment": {"machine": "x"}}, "what is in it is of another kind"),
        (lambda kept: kept | {"recipe": {"model": {}}}, "what is in it is of another kind"),
        (lambda kept: kept | {"recipe": "banana"}, "its described is 'banana', where a dict belongs"),
        (lambda kept: kept | {"wall_seconds": "long"}, "its wall_seconds is 'long', where a number, or None belongs"),
        (lambda kept: kept | {"series": {"lm loss": {"step": [1], "value": []}}}, "what is in it is of another kind"),
    ],
)
def test_a_record_of_something_else_is_told_in_words(spoil, words, tmp_path):
    path = runs.write_result(make_run(tmp_path / "a", scalars=curves(steps=3)).path)
    spoilt = spoil(json.loads(path.read_text()))
    path.write_bytes(spoilt.encode("latin1") if spoilt in ("", "\xff") else json.dumps(spoilt).encode())
    with pytest.raises(ValueError) as refused:
        runs.read_result(path)
    assert f"{path} holds something else: {words}" in str(refused.value)
    assert str(refused.value).endswith("runs.write_result(run.path) writes one.")


@pytest.mark.parametrize("content", ["{}", '"banana"', "[]", "", '{"rows": 5, "moves": 5, "passes": 5}'])
@pytest.mark.parametrize(
    ("place", "ask"),
    [
        ("one_of_many/x", lambda: runs.one_rank.recorded("h200", "x")),
        ("micro_batches/x", lambda: runs.micro_batches.recorded("h200", "x")),
        ("schedules/x", lambda: runs.pipeline.recorded("h200", "x")),
        ("timelines/x", lambda: runs.timeline.recorded("h200", "x")),
        ("baselines/against_nvidia", lambda: runs.baselines.table("h200")),
        ("baselines/transformers_x", lambda: runs.baselines.table("h200")),
        ("generation/speeds", lambda: runs.generation_speeds.table("h200")),
        ("twins/x", lambda: runs.recorded("h200/twins", "x")),
    ],
)
def test_every_kind_of_record_is_read_with_the_same_care(place, ask, content, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    path = (tmp_path / "h200" / place).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} holds something else"):
        ask()


def test_records_of_impossible_names_are_not_there():
    for name in ("n" * 300, "a\0b"):
        with pytest.raises(ValueError, match="^Nothing is recorded under the label .{,80}There are: cpu, "):
            runs.recorded(name, "x")
        assert runs.recorded("h200", name) is None
        assert "recorded yet" in str(runs.timeline.recorded("h200", name))


def test_a_record_says_what_only_a_run_that_is_here_has():
    (record, *_) = runs.recorded("h200")
    for name in ("log", "checkpoints", "stop", "log_text"):
        with pytest.raises(AttributeError, match=f"A recorded run has no {name}: it keeps its curves"):
            getattr(record, name)
    assert not hasattr(record, "nothing_of_that_name")
