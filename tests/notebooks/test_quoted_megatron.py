"""What notebooks 00, 03, 05 and 11 quote of Megatron stands so in the installed one."""

import re
import subprocess

import nbformat
import pytest

from helpers.machine import PROJECT, megatron_source
from helpers.machine.megatron_flags import FLAG, known

PAGE = PROJECT / "notebooks" / "00_environment_check.ipynb"
FILES = {"args.": "training/arguments.py", "local_rank": "training/config/common_config.py"}


def quoted() -> list[str]:
    text = "\n".join(cell.source for cell in nbformat.read(PAGE, 4).cells if cell.cell_type == "markdown")
    (block,) = re.findall(r"```python\n(args\.rank.*?)```", text, flags=re.DOTALL)
    return block.splitlines()


@pytest.mark.parametrize("line", quoted())
def test_a_quoted_line_is_megatrons(line):
    (file,) = [file for start, file in FILES.items() if line.startswith(start)]
    assert line in [known.strip() for known in megatron_source(file).read_text().splitlines()]


def test_megatron_hands_them_to_pytorch():
    text = megatron_source("training/initialize.py").read_text()
    for words in ("torch.cuda.set_device(args.local_rank)", "torch.distributed.init_process_group(", "args.world_size"):
        assert words in text


def test_the_order_of_collectives_and_gemms_is_megatrons():
    """Notebook 03 quotes each statement without its arguments, in the order in which the backward pass has them."""
    page = PROJECT / "notebooks" / "03_tensor_parallelism.ipynb"
    text = "\n".join(cell.source for cell in nbformat.read(page, 4).cells if cell.cell_type == "markdown")
    (block,) = re.findall(r"```python\n# (core/\S+\.py\n.*?)```", text, flags=re.DOTALL)
    file, *lines = block.splitlines()
    source = megatron_source(file).read_text()
    backward = source[source.index("class LinearWithGradAccumulationAndAsyncCommunication") :]
    known = [line.strip() for line in backward.splitlines()]
    place = -1
    for line in lines:
        place = known.index(line.removesuffix("…)"), place + 1)
    assert len(lines) == 5


LINES = {  # page → file, line, words of it
    "05_data_parallelism": [
        ("core/distributed/distributed_data_parallel.py", 468, "def _make_backward_post_hook"),
        ("training/arguments.py", 1107, "if not args.use_distributed_optimizer:"),
        ("training/arguments.py", 1143, "CUDA_DEVICE_MAX_CONNECTIONS"),
        ("training/arguments.py", 1146, 'args.ckpt_format == "fsdp_dtensor"'),
        ("training/arguments.py", 1194, "accumulate and all-reduce gradients in fp32 for bfloat16 data type."),
        ("core/distributed/fsdp/mcore_fsdp_adapter.py", 134, "MixedPrecisionPolicy("),
        ("core/distributed/fsdp/src/megatron_fsdp/param_and_grad_buffer.py", 3373, "optimizer_grad.to(param.dtype)"),
        ("core/distributed/fsdp/src/megatron_fsdp/megatron_fsdp.py", 439, "suggested_communication_unit_size = max("),
        ("core/optimizer/optimizer_config.py", 404, "use_precision_aware_optimizer_no_fp8_or_ds_fp8"),
        ("core/optimizer/distrib_optimizer.py", 1690, "def sharded_param_state_fully_reshardable"),
    ],
    "11_many_nodes": [
        ("training/arguments.py", 143, "os.getenv('RANK'"),
        ("training/arguments.py", 144, "WORLD_SIZE"),
        ("training/config/common_config.py", 85, '"LOCAL_RANK"'),
        ("training/config/training_config.py", 82, "exit_signal: signal.Signals = signal.SIGTERM"),
        ("training/initialize.py", 352, "torch.distributed.init_process_group("),
        ("core/parallel_state.py", 617, '"tp-cp-ep-dp-pp"'),
        ("training/arguments.py", 1740, "args.async_save"),
        ("core/datasets/gpt_dataset.py", 501, "if not path_to_cache"),
        ("core/datasets/gpt_dataset.py", 485, "fast_cache_load"),
        ("core/datasets/blended_megatron_dataset_config.py", 101, "fast_cache_load"),
    ],
}


@pytest.mark.parametrize(("page", "file", "line", "words"), [(page, *row) for page in LINES for row in LINES[page]])
def test_a_line_of_megatron_that_a_page_names_is_that_line(page, file, line, words):
    assert words in megatron_source(file).read_text().splitlines()[line - 1]
    cells = nbformat.read(PROJECT / "notebooks" / f"{page}.ipynb", 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert file.rpartition("/")[2] in text and re.search(rf"\b{line}\b", text)


def test_the_batch_script_of_notebook_11_is_one():
    """Its shell is parsed, each of Megatron's flags known; what it does was rehearsed (benchmarks/slurm_by_hand.py)."""
    text = (PROJECT / "notebooks" / "11_many_nodes.ipynb").read_text()
    page = "\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")
    (script,) = re.findall(r"```bash\n(#!/usr/bin/env bash\n#SBATCH.*?)```", page, flags=re.DOTALL)
    parsed = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert parsed.returncode == 0 and not parsed.stderr
    flags = set(FLAG.findall(script[script.index("torchrun Megatron-LM") :])) | {"--tensor-model-parallel-size"}
    assert {"--exit-signal-handler", "--exit-signal", "--save", "--load"} < flags <= known()
