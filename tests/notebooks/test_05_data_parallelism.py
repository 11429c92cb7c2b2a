import re

import nbformat
import pytest
from notebook_pages import runs_whole

from helpers import runs
from helpers.machine import PROJECT, megatron_source

PAGE = PROJECT / "notebooks" / "05_data_parallelism.ipynb"


@pytest.mark.train
def test_notebook_05_runs_whole(tmp_path):
    runs_whole(__file__, tmp_path, trains="gpt3_345m_small_batch_1_rank")


def prose() -> str:
    return "\n".join(cell.source for cell in nbformat.read(PAGE, 4).cells if cell.cell_type == "markdown")


def test_the_quoted_line_is_megatrons():
    (line,) = re.findall(r"```python\n(.*?)\n```", prose(), flags=re.DOTALL)
    lines = megatron_source("core/distributed/param_and_grad_buffer.py").read_text().splitlines()
    assert lines[704 - 1].strip() == line


def test_the_lines_of_stock_megatron_are_those_of_the_recorded_runs():
    """Each flag in them stands in the command of its record, and each flag of data parallelism there in them."""
    (block,) = re.findall(r"```bash\n(.*?)```", prose(), flags=re.DOTALL)
    words = dict(re.findall(r'^(\w+)="(.*)"', block, flags=re.MULTILINE))
    launches = re.findall(r"^torchrun .* (\$\w+)(.*?)  #", block, flags=re.MULTILINE)
    names = ("gpt2_xl_30_ddp2_stock", "gpt2_xl_32_distopt2_stock", "gpt2_xl_32_fsdp2_stock")
    for (start, rest), name in zip(launches, names, strict=True):
        said = set(re.findall(r"--[\w-]+", words[start[1:]].replace("$stock", words["stock"]) + rest))
        ran = runs.recorded("h200", f"sharded/{name}").command
        assert said <= set(re.findall(r"--[\w-]+", ran)), name
        theirs = set(re.findall(r"--(?:use|overlap|ckpt|data-parallel|calculate|init-model)-[\w-]+", ran))
        assert theirs <= said, name
