"""apex's kernel of this name for machines without apex: one matrix product that adds to the weight's gradient.

Megatron's output layer imports it (`core/tensor_parallel/layers.py`) for gradient accumulation fusion. Transformer
Engine has the same product; its own layers use it already. `torchrun` puts this folder on the path of its scripts.
"""

from transformer_engine.pytorch.cpp_extensions import general_gemm


def wgrad_gemm_accum_fp32(inputs, output_gradient, main_grad) -> None:
    """`main_grad` [out, in] += `output_gradient` [tokens, out]ᵀ · `inputs` [tokens, in]; accumulates in its dtype."""
    general_gemm(
        inputs, output_gradient, out_dtype=main_grad.dtype, layout="NT", out=main_grad, accumulate=True, grad=True
    )


wgrad_gemm_accum_fp16 = wgrad_gemm_accum_fp32
