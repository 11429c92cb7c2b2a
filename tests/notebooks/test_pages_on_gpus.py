"""Pages as GPUs executed them: today's text, code and outputs of their day, nothing of the machine's own folders."""

import re
from datetime import date

import nbformat
import pytest
from pages_on_gpus import FOLDER, merged

from helpers.machine import PROJECT

COPIES = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_a_copy_is_of_one_whole_run_on_gpus(path):
    copy = nbformat.read(path, 4)
    assert re.search(r"\*Executed on (\d+ × )?NVIDIA .+, 20\d\d-\d\d-\d\d\.\*", copy.cells[0].source)
    assert {cell.id for cell in copy.cells} & {
        cell.id for cell in nbformat.read(PROJECT / "notebooks" / path.name, 4).cells
    }
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not re.search(r"/(tmp|root|home|work)/", str(outputs))


def test_a_copy_has_the_text_of_today_and_the_code_of_its_day():
    def page(title, *sources):
        cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\n[next](06_x.ipynb) [web](https://x)", id="title")]
        for number, source in enumerate(sources):
            cells.append(nbformat.v4.new_code_cell(source, id=f"c{number}", execution_count=number + 1))
            cells[-1].outputs = [nbformat.v4.new_output("stream", text=source)]
        return nbformat.v4.new_notebook(cells=cells, metadata={"megatron_tour": {"2-core CPU": 3.0, "2 × GPU": 1.0}})

    first, same, other = merged(page("New", "same", "new"), page("Old", "same", "old"), date(2026, 11, 26)).cells
    assert "# New" in first.source and "(../06_x.ipynb)" in first.source and "(https://x)" in first.source
    assert "Executed on 2 × GPU, 2026-11-26" in first.source and "*1 of its cells" in first.source
    assert same.source == "same" and other.source == "old" and other.outputs[0].text == "old"
