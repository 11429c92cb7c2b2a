"""The notebooks themselves: as committed, and executed whole, for real, on the CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.machine import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
TRAINS = {"02": "gpt3_345m", "03": "gpt3_345m_tp2", "04": "llama3_small"}
A_MACHINES_PATH = re.compile(r"(?<![\w.])/(?:root|home|work|tmp|Users)/\w")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_the_first_five_are_there():
    assert [path.stem for path in NOTEBOOKS][:5] == [
        "00_environment_check",
        "01_dataset_prep",
        "02_gpt3_345m_one_gpu",
        "03_tensor_parallelism",
        "04_llama3_8b_fp8",
    ]


def test_the_readme_has_the_minutes_that_the_tour_measured():
    row = r"\(notebooks/(\w+\.ipynb)\).* \| ([\d.]+) min \| (?:one: |two: )?([\d.]+) min \|"
    found = re.findall(row, (PROJECT / "README.md").read_text())
    assert [name for name, _, _ in found] == [path.name for path in NOTEBOOKS]
    for name, on_cpu, on_gpu in found:
        measured = nbformat.read(PROJECT / "notebooks" / name, 4).metadata["megatron_tour"]
        said = {machine: f"{minutes:.1f}" for machine, minutes in measured.items()}
        assert on_cpu == said.pop("2-core CPU") and on_gpu in said.values(), name


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


@pytest.mark.train
@pytest.mark.timeout(900)
def test_a_notebook_runs_whole_on_the_cpu(notebook, tmp_path):
    environment = {**os.environ, "MEGATRON_CPU": "1", "MEGATRON_TOUR_RUNS": str(tmp_path)}
    tour = Path(sys.executable).parent / "megatron-tour"
    done = subprocess.run(
        [tour, notebook.stem], env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (executed,) = tmp_path.glob(f"tour/*/{notebook.name}")
    assert all(cell.execution_count for cell in code_cells(executed))
    (page,) = tmp_path.glob("tour/*/*.html")
    assert "**Take away" not in page.read_text() and "Take away" in page.read_text()
    name = TRAINS.get(notebook.name[:2])
    if name:
        results = [json.loads(path.read_text()) for path in tmp_path.glob(f"tour/*/**/{name}/*/result.json")]
        assert results, f"no run of {name} was left"
