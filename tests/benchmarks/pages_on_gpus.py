"""Pages as GPUs executed them, in `notebooks/on_gpus/`: the code and outputs of that day, today's text. By hand:

    python tests/benchmarks/pages_on_gpus.py executed/05_*.ipynb …  as `megatron-tour --in-place` left it

The code is that day's, too; the first cell says how many cells are written differently today.
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
    """What was executed, under the text of the page; its first cell names the day."""
    today = {cell.id: cell for cell in page.cells}
    copy = nbformat.from_dict(executed)
    copy.cells = [cell for cell in copy.cells if cell.cell_type == "code" or cell.id in today]
    changed = 0
    for cell in copy.cells:
        if cell.cell_type == "code":
            changed += cell.id not in today or cell.source != today[cell.id].source
        else:
            cell.source = re.sub(r"\]\((?!https?:|#)", "](../", today[cell.id].source)
    where = f"*Executed on {on_gpus(executed)}, {day}.*"
    if changed:
        where += f" *{changed} of its cells are written differently today.*"
    copy.cells[0].source += f"\n\n{where}"
    return copy


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
