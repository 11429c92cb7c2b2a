"""A name that Megatron 0.19 looks for in Transformer Engine, and that newer ones keep elsewhere.

`core/extensions/transformer_engine.py` imports `transformer_engine.pytorch.attention._SplitAlongDim`. Where it is not
found, Megatron splits queries, keys and values with `torch.split`, whose backward copies all three gradients into one
tensor. Transformer Engine's own split has them there already. Same numbers; on an H200 the copies took 10 of the 204 ms
of a GPT3-345M step.
"""

import contextlib


def restore() -> None:
    """Give the function its old name; nothing where Transformer Engine is absent or still has it."""
    with contextlib.suppress(ImportError):
        from transformer_engine.pytorch import attention
        from transformer_engine.pytorch.utils import SplitAlongDim

        if not hasattr(attention, "_SplitAlongDim"):
            attention._SplitAlongDim = SplitAlongDim
