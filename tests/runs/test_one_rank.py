"""A rank that ran alone, as it is shown and kept."""

import dataclasses
import sys

from machines import ONE_H100

from helpers import recipes, runs
from helpers.machine import CPU, Machine
from helpers.runs import one_rank, records

RECIPE = recipes.gpt3_345m().with_(pipeline_parallel=8, global_batch_size=256)
FIGURES = (
    '"milliseconds": [560.0, 564.0, 570.0], "busy_milliseconds": 420.5, "instead_milliseconds": 1.5, "kernels": 12345, '
    '"peak_bytes": 52400000000, "reserved_bytes": 54000000000, "outside_bytes": 900000000, '
    '"state_bytes": {"weights": 1, "gradients": 2, "optimizer": 3}'
)


def measured(machine: Machine = ONE_H100) -> runs.OneRank:
    described = dataclasses.asdict(machine) | {"name": machine.name, "label": machine.label}
    return one_rank.from_output(
        f"Megatron says this and that\n{one_rank.MARK}{{{FIGURES}}}\nand more\n",
        described=dataclasses.asdict(RECIPE),
        environment={"machine": described},
        command=f"{sys.executable} helpers/ranks/one_rank.py",
        stage=7,
        rank=7,
    )


def test_it_says_what_was_measured_and_that_nothing_was_exchanged():
    text = " ".join(repr(measured()).split())
    for words in ("rank 7 of 8, stage 7", "52.4 GB", "564 ms", "420.5 ms", "12,345 kernels", "900 MB"):
        assert words in text
    assert "waits 25% of the wall time" in text and "alone (--fake-process-group)" in text
    assert text.count("loss") == 1 and "there is no loss to show" in text
    assert "564 ms" in measured()._repr_html_()


def test_a_cpu_says_that_no_gpu_was_there():
    found = dataclasses.replace(measured(CPU), busy_milliseconds=None, kernels=None, outside_bytes=None)
    assert "one core's wall time is all there is" in repr(found) and "what the process grew by" in repr(found)
    assert "NVML" not in repr(found) and "waits" not in repr(found)


def test_a_record_is_read_as_it_was_and_names_no_path(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    path = one_rank.record(measured(), "gpt_8_3b_stage_7", tmp_path)
    assert path == tmp_path / "h100-80gb-hbm3" / "one_of_many" / "gpt_8_3b_stage_7.json"
    assert sys.executable not in path.read_text()
    again = one_rank.recorded("h100-80gb-hbm3", "gpt_8_3b_stage_7")
    assert again.recipe == RECIPE and again.wall_milliseconds == 564.0
    expected = dataclasses.replace(measured(), is_recorded=True, command="python helpers/ranks/one_rank.py")
    assert again.peak_bytes == expected.peak_bytes and again.command == expected.command
    assert again.machine == "NVIDIA H100 80GB HBM3" and "Recorded on" in again.headline()
    assert one_rank.recorded("h100-80gb-hbm3") == [again]
    assert "is recorded yet" in repr(one_rank.recorded("h100-80gb-hbm3", "another"))


def test_every_record_can_be_read():
    for path in records.RECORDED.glob(f"*/{one_rank.FOLDER}/*.json"):
        found = one_rank.recorded(path.parents[1].name, path.stem)
        assert found.is_recorded and found.wall_milliseconds > 0 and found.recipe.name == path.stem
