"""What is mended changes no number: a flat cast keeps its bytes, and a matrix still gets its transposed copy."""

import subprocess
import sys
import types

import pytest

from helpers.machine.hardware import visible_gpus
from helpers.ranks.repairs import split_and_cast

needs_gpu = pytest.mark.skipif(not visible_gpus(), reason="Transformer Engine casts on GPUs")


@needs_gpu
def test_a_flat_cast_has_the_same_bytes_and_no_transposed_copy(monkeypatch):
    import torch
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer, Float8Tensor, tex

    monkeypatch.setattr(Float8Quantizer, "update_quantized", Float8Quantizer.update_quantized)
    torch.manual_seed(0)

    def cast(shape) -> Float8Tensor:
        scale = torch.full((1,), 100.0, device="cuda")
        quantizer = Float8Quantizer(scale, torch.zeros(1, device="cuda"), tex.DType.kFloat8E4M3)
        target = Float8Quantizer(
            scale, torch.zeros(1, device="cuda"), tex.DType.kFloat8E4M3, columnwise=len(shape) == 2 and shape[0] > 1
        ).make_empty(shape, dtype=torch.float32, device="cuda")
        result = quantizer.update_quantized(source.reshape(shape), target)
        assert quantizer.columnwise_usage
        return result

    source = torch.randn(64 * 128, device="cuda")
    shapes = ((64 * 128,), (1, 64 * 128), (64, 128))
    before = [cast(shape)._data.clone() for shape in shapes]
    split_and_cast.apply()
    after = [cast(shape) for shape in shapes]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new._data)
    assert after[0]._transpose is None and after[1]._transpose is None
    assert torch.equal(after[2]._transpose, after[2]._data.T)


def test_the_split_is_transformer_engines_however_early_megatron_was_imported(monkeypatch):
    from megatron.core.transformer import attention

    names = ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.pytorch.utils")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    split = types.SimpleNamespace(apply=object())
    sys.modules[names[-1]].SplitAlongDim = split
    monkeypatch.setattr(attention, "SplitAlongDim", None)
    split_and_cast.apply()
    assert attention.SplitAlongDim is split.apply


@needs_gpu
def test_the_program_of_a_run_splits_without_copies():
    program = (
        "import helpers.ranks.pretrain_gpt\n"
        "from megatron.core.transformer import attention\n"
        "from transformer_engine.pytorch.utils import SplitAlongDim\n"
        "assert attention.SplitAlongDim == SplitAlongDim.apply"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_happens_where_transformer_engine_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformer_engine", None)
    monkeypatch.setitem(sys.modules, "transformer_engine.pytorch", None)
    split_and_cast.apply()
