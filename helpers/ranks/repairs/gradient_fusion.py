"""apex's kernel `fused_weight_gradient_mlp_cuda` for machines without apex: a GEMM that adds to the weight's gradient.

Megatron's output layer imports it (`core/tensor_parallel/layers.py`) for gradient accumulation fusion. Transformer
Engine has the same GEMM; its own layers use it already. Where apex is installed its kernel is left alone.
"""

import importlib.util
import sys

KERNEL = "fused_weight_gradient_mlp_cuda"


def apply() -> None:
    """Be the module of that name, before Megatron looks for it; nothing where there is one."""
    if KERNEL not in sys.modules and importlib.util.find_spec(KERNEL) is None:
        sys.modules[KERNEL] = sys.modules[__name__]


def wgrad_gemm_accum_fp32(inputs, output_gradient, main_grad) -> None:
    """`main_grad` [out, in] += `output_gradient` [tokens, out]ᵀ · `inputs` [tokens, in]; accumulates in its dtype."""
    from transformer_engine.pytorch.cpp_extensions import general_gemm

    general_gemm(
        inputs, output_gradient, out_dtype=main_grad.dtype, layout="NT", out=main_grad, accumulate=True, grad=True
    )


wgrad_gemm_accum_fp16 = wgrad_gemm_accum_fp32


def measure() -> dict[str, tuple[float, float]]:
    """The output layer's weight gradient of GPT3-345M, 8,192 tokens: multiplied, then added; or in one GEMM."""
    import torch

    from helpers.ranks.repairs.timing import microseconds

    inputs = torch.randn(8192, 1024, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn(8192, 50304, device="cuda", dtype=torch.bfloat16)
    total = torch.zeros(50304, 1024, device="cuda")
    theirs = microseconds(lambda: total.add_(gradient.t() @ inputs))
    return {
        "weight gradient, 8,192 × 50,304": (
            theirs,
            microseconds(lambda: wgrad_gemm_accum_fp32(inputs, gradient, total)),
        )
    }
