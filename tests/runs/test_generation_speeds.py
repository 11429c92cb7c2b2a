"""Recorded generation speeds as a table, and the sentence where there are none."""

import json

import nbformat

from helpers.machine import PROJECT
from helpers.runs import generation_speeds, records


def test_a_row_a_program_and_a_column_a_number_of_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    assert "No generation speed is recorded yet" in repr(generation_speeds.table("h100"))
    rows = [
        {"model": "small", "program": program, "texts": texts, "tokens_per_second": speed * texts, "at_most": 4000.4}
        for program, speed in (("plain loop", 100.2), ("static engine", 120.6))
        for texts in (1, 8)
    ]
    file = tmp_path / "h100" / generation_speeds.FILE
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"rows": rows}))
    table = generation_speeds.table("h100")
    assert list(table.columns) == ["program", "one text", "its bound", "share of it", "8 at once"]
    assert table.loc["small"].values.tolist() == [
        ["plain loop", 100.0, 4000.0, "2.5%", 802.0],
        ["static engine", 121.0, 4000.0, "3.0%", 965.0],
    ]


def test_what_page_10_says_of_one_step_is_recorded():
    page = nbformat.read(PROJECT / "notebooks" / "10_after_training.ipynb", 4)
    (words,) = (cell.source for cell in page.cells if generation_speeds.STEP in cell.source)
    models = json.loads((records.RECORDED / "h200" / generation_speeds.STEP).read_text())["models"]
    small, large = models["gpt3_345m"], models["llama3_8b"]
    assert f"{small['launched']} kernels and copies" in words and f"takes it {small['busy_ms']:.1f} ms" in words
    assert f"the step takes {1e3 / small['tokens_per_second']:.0f}." in words
    assert f"busy for {large['busy_ms']:.0f} ms of {1e3 / large['tokens_per_second']:.0f}." in words
    assert all(model["again"] > 1.5 * model["tokens_per_second"] for model in models.values())
