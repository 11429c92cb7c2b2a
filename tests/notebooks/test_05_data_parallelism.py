import re

import nbformat
import pytest
from notebook_pages import runs_whole

from helpers.machine import PROJECT, megatron_source

PAGE = PROJECT / "notebooks" / "05_data_parallelism.ipynb"


@pytest.mark.train
def test_notebook_05_runs_whole(tmp_path):
    runs_whole(__file__, tmp_path, trains="gpt3_345m_small_batch_1_rank")


def test_the_quoted_line_is_megatrons():
    text = "\n".join(cell.source for cell in nbformat.read(PAGE, 4).cells if cell.cell_type == "markdown")
    (line,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    lines = megatron_source("core/distributed/param_and_grad_buffer.py").read_text().splitlines()
    assert lines[704 - 1].strip() == line
