"""The notebooks as committed; each is executed whole in a test file of its own, which pytest's workers share."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from notebook_pages import NOTEBOOKS, code_cells

from helpers.machine import PROJECT

A_MACHINES_PATH = re.compile(r"(?<![\w.])/(?:root|home|work|tmp|Users)/\w")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def test_every_notebook_is_executed_by_a_test_file_of_its_own():
    assert len({path.stem[:2] for path in NOTEBOOKS}) == len(NOTEBOOKS)
    files = [path for path in Path(__file__).parent.glob("test_[0-9][0-9]_*.py") if "runs_whole(" in path.read_text()]
    assert sorted(path.stem for path in files) == [f"test_{path.stem}" for path in NOTEBOOKS]


def test_the_readme_has_the_minutes_that_the_tour_measured():
    """A machine on which a page was not measured yet has a dash."""
    row = r"\(notebooks/(\w+\.ipynb)\).* \| ([\d.]+ min|–) \| ([\d.]+ min|–) \| (?:.*: )?([\d.]+ min|–) \|"
    found = re.findall(row, (PROJECT / "README.md").read_text())
    assert [name for name, *_ in found] == [path.name for path in NOTEBOOKS]
    for name, on_cpu, without_avx_512, on_gpu in found:
        measured = nbformat.read(PROJECT / "notebooks" / name, 4).metadata["megatron_tour"]
        said = {machine: f"{minutes:.1f} min" for machine, minutes in measured.items()}
        assert on_cpu == said.pop("2-core CPU", "–"), name
        assert without_avx_512 == said.pop("2-core CPU without AVX-512"), name
        assert on_gpu in (said.values() or ["–"]), name


def test_committed_outputs_are_of_one_whole_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "not run in order, top to bottom"
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors


def test_a_committed_notebook_is_light_and_names_no_machines_path(notebook):
    assert notebook.stat().st_size < 3e6
    outputs = [json.dumps(cell.outputs) for cell in code_cells(notebook)]
    found = [match for text in outputs for match in A_MACHINES_PATH.findall(re.sub(r"[A-Za-z0-9+/]{200,}", "", text))]
    assert not found


def test_cells_hold_no_logic(notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 14, cell.source
        assert not re.search(r"^\s*(?:for|while|def|class|if|try)\b", cell.source, re.MULTILINE), cell.source


def test_every_notebook_has_takeaways_and_exercises(notebook):
    text = "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells)
    assert text.count("**Take away:**") >= 2
    assert "## Exercises" in text and "<details>" in text
