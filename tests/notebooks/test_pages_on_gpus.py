"""Pages as GPUs executed them: today's text, the outputs of their day, nothing of the machine's own folders."""

import re
from datetime import date

import nbformat
import pytest
from pages_on_gpus import FOLDER, merged

from helpers.machine import PROJECT

COPIES = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_a_copy_is_of_a_page_of_today(path):
    copy, page = nbformat.read(path, 4), nbformat.read(PROJECT / "notebooks" / path.name, 4)
    assert re.search(r"\*Executed on \d* ?×? ?NVIDIA .+, 20\d\d-\d\d-\d\d\.\*", copy.cells[0].source)
    assert {cell.id for cell in copy.cells} <= {cell.id for cell in page.cells}
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert sum(cell.execution_count is not None for cell in code) >= 0.6 * len(code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not re.search(r"/(tmp|root|home|work)/", str(outputs))


def test_outputs_of_cells_that_changed_are_left_out():
    def page(*sources):
        cells = [nbformat.v4.new_markdown_cell("# Title\n\n[next](06_x.ipynb) [web](https://x)", id="title")]
        for number, source in enumerate(sources):
            cells.append(nbformat.v4.new_code_cell(source, id=f"c{number}", execution_count=number + 1))
            cells[-1].outputs = [nbformat.v4.new_output("stream", text=source)]
        return nbformat.v4.new_notebook(cells=cells, metadata={"megatron_tour": {"2-core CPU": 3.0, "2 × GPU": 1.0}})

    found = merged(page("same", "new"), page("same", "old"), date(2026, 11, 26))
    first, kept, dropped = found.cells
    assert "Executed on 2 × GPU, 2026-11-26" in first.source and "without output: 1" in first.source
    assert "(../06_x.ipynb)" in first.source and "(https://x)" in first.source
    assert kept.outputs and not dropped.outputs and dropped.execution_count is None
