"""The notebooks as files, and how one of them is executed whole, for real, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

from helpers.machine import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def runs_whole(test_file: str, runs: Path, trains: str | None = None) -> Path:
    """The notebook that a test file is named after, through `megatron-tour` as a learner would run it.

    `trains` names a recipe of which a run must have been left. Returns the executed notebook.
    """
    name = Path(test_file).stem.removeprefix("test_")
    environment = os.environ | {"MEGATRON_CPU": "1", "MEGATRON_TOUR_RUNS": str(runs)}
    tour = Path(sys.executable).with_name("megatron-tour")
    done = subprocess.run([tour, name], env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (executed,) = runs.glob(f"tour/*/{name}.ipynb")
    assert all(cell.execution_count for cell in code_cells(executed))
    (page,) = runs.glob("tour/*/*.html")
    assert "**Take away" not in page.read_text() and "Take away" in page.read_text()
    if trains:
        results = [json.loads(path.read_text()) for path in runs.glob(f"tour/*/**/{trains}/*/result.json")]
        assert results, f"no run of {trains} was left"
    return executed
