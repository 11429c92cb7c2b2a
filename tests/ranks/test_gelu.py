"""GELU from a sigmoid is the GELU that Megatron computes from tanh, and its gradient."""

import pytest
import torch

from helpers.machine.hardware import visible_gpus
from helpers.ranks.repairs import gelu

needs_gpu = pytest.mark.skipif(not visible_gpus(), reason="Megatron compiles its fused functions for GPUs")


def test_it_is_gelu_and_its_gradient():
    torch.manual_seed(0)
    y = torch.cat([torch.randn(64, 32) * 3, torch.tensor([[-40.0], [0.0], [40.0]]).expand(3, 32)]).double()
    bias, g = torch.randn(32).double(), torch.randn(67, 32).double()
    x = (y + bias).requires_grad_()
    wanted = torch.nn.functional.gelu(x, approximate="tanh")
    wanted.backward(g)
    digits = 1e-7  # Megatron writes sqrt(2/pi) with eight
    assert torch.allclose(gelu.bias_gelu(bias, y), wanted, rtol=digits, atol=digits)
    assert torch.allclose(gelu.bias_gelu_back(g, bias, y), x.grad, rtol=digits, atol=digits)


def test_megatrons_layers_use_it(monkeypatch):
    from megatron.core.fusions import fused_bias_gelu

    for name in ("bias_gelu", "bias_gelu_back"):
        monkeypatch.setattr(fused_bias_gelu, name, getattr(fused_bias_gelu, name))
    monkeypatch.setattr("megatron.core.jit.jit_fuser", lambda function: function)
    gelu.apply()
    y, bias = torch.randn(8, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    result = fused_bias_gelu.bias_gelu_impl(y, bias)
    result.sum().backward()
    assert torch.equal(result, gelu.bias_gelu(bias, y))
    assert torch.equal(y.grad, gelu.bias_gelu_back(torch.ones_like(y), bias, y))


@needs_gpu
def test_on_a_gpu_it_differs_from_megatrons_by_bf16_rounding(monkeypatch):
    from megatron.core.fusions import fused_bias_gelu

    torch.manual_seed(0)
    y = torch.randn(1024, 4096, device="cuda", dtype=torch.bfloat16) * 3
    bias, g = torch.randn(4096, device="cuda", dtype=torch.bfloat16), torch.randn_like(y)

    def both():
        return fused_bias_gelu.bias_gelu(bias, y).float(), fused_bias_gelu.bias_gelu_back(g, bias, y).float()

    theirs = both()
    for name in ("bias_gelu", "bias_gelu_back"):
        monkeypatch.setattr(fused_bias_gelu, name, getattr(fused_bias_gelu, name))
    gelu.apply()
    for one, other in zip(theirs, both(), strict=True):
        assert ((one - other).norm() / one.norm()).item() < 1e-3
        assert torch.allclose(one, other, rtol=2**-7, atol=1e-5)
