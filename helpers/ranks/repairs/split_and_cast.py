"""Two places where Megatron 0.19 and Transformer Engine 2.20 together do work for nothing. Same numbers, less time.

**The split.** Megatron's `core/extensions/transformer_engine.py` imports `transformer_engine.pytorch.attention`'s
`_SplitAlongDim`, which moved. Where it is not found, queries, keys and values are split with `torch.split`, whose
backward copies all three gradients into one tensor. Transformer Engine's own split has them there already. On an H200
the copies took 10 of the 204 ms of a GPT3-345M step.

**The cast.** With `--fp8-param-gather` each rank casts its share of the fp32 weights to FP8, flat, as [N] or [1, N]
(`pytorch/tensor/utils.py`). The quantizer writes a transposed copy as well, which nobody reads, with a kernel made for
matrices: 245 of the 1,383 ms of a Llama3-8B step of four samples on two H200s.
"""

import contextlib


def apply() -> None:
    """Mend both; nothing where Transformer Engine is absent or needs no mending."""
    with contextlib.suppress(ImportError):
        _restore_split()
        _cast_flat_tensors_once()


def _restore_split() -> None:
    from megatron.core.transformer import attention
    from transformer_engine.pytorch.utils import SplitAlongDim

    if attention.SplitAlongDim is None:
        attention.SplitAlongDim = SplitAlongDim.apply


def _cast_flat_tensors_once() -> None:
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer

    cast = Float8Quantizer.update_quantized

    def update_quantized(self, src, dst, *, noop_flag=None):
        wanted, is_flat = self.columnwise_usage, max(dst.shape, default=1) == dst.numel()
        self.columnwise_usage = wanted and not is_flat
        try:
            return cast(self, src, dst, noop_flag=noop_flag)
        finally:
            self.columnwise_usage = wanted

    Float8Quantizer.update_quantized = update_quantized
