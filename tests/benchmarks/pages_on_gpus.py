"""Pages as GPUs executed them, in `notebooks/on_gpus/`: today's text with the outputs of that day. Run by hand:

    python tests/benchmarks/pages_on_gpus.py executed/05_*.ipynb …  as `megatron-tour --in-place` left it

A cell whose code has changed since, and what comes new, has no output.
"""

import argparse
import re
from datetime import date
from pathlib import Path

import nbformat

from helpers.machine import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
FOLDER = NOTEBOOKS / "on_gpus"


def merged(page: nbformat.NotebookNode, executed: nbformat.NotebookNode, day: date) -> nbformat.NotebookNode:
    """The page with the outputs of `executed`, cell by cell, where the code is the same; the first names the day."""
    before = {cell.id: cell for cell in executed.cells}
    changed = 0
    for cell in page.cells:
        if cell.cell_type != "code":
            cell.source = re.sub(r"\]\((?!https?:|#)", "](../", cell.source)
            continue
        then = before.get(cell.id)
        same = then is not None and then.source == cell.source
        cell.outputs, cell.execution_count = (then.outputs, then.execution_count) if same else ([], None)
        changed += not same
    where = f"*Executed on {on_gpus(executed)}, {day}.*"
    if changed:
        where += f" *Cells without output: {changed}; their code has changed since.*"
    page.cells[0].source += f"\n\n{where}"
    return page


def on_gpus(executed: nbformat.NotebookNode) -> str:
    """The machine with GPUs that executed it."""
    return next(machine for machine in executed.metadata["megatron_tour"] if "CPU" not in machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executed", nargs="+", type=Path)
    for path in parser.parse_args().executed:
        page, executed = nbformat.read(NOTEBOOKS / path.name, 4), nbformat.read(path, 4)
        machine = on_gpus(executed)
        page.metadata["megatron_tour"][machine] = executed.metadata["megatron_tour"][machine]  # its minutes, for README
        nbformat.write(page, NOTEBOOKS / path.name)
        FOLDER.mkdir(exist_ok=True)
        day = date.fromtimestamp(path.stat().st_mtime)
        nbformat.write(merged(page, executed, day), FOLDER / path.name)
        print(FOLDER / path.name)


if __name__ == "__main__":
    main()
