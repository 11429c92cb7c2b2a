"""A flat cast keeps its bytes and loses its transposed copy; a matrix still gets one."""

import pytest

from helpers.machine.hardware import visible_gpus
from helpers.ranks.repairs import cast as repair

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
    repair.apply()
    after = [cast(shape) for shape in shapes]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new._data)
    assert after[0]._transpose is None and after[1]._transpose is None
    assert torch.equal(after[2]._transpose, after[2]._data.T)
