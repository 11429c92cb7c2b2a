"""Queries, keys and values split without copying their gradients.

Megatron's `core/extensions/transformer_engine.py` imports `transformer_engine.pytorch.attention`'s `_SplitAlongDim`,
which moved. Where it is not found, attention splits with `torch.split`, whose backward copies all three gradients into
one tensor. Transformer Engine's own split has them there already. On an H200 the copies took 10 of the 204 ms of a
GPT3-345M step.
"""


def apply() -> None:
    """Hand Megatron's attention the split that it looked for."""
    from megatron.core.transformer import attention
    from transformer_engine.pytorch.utils import SplitAlongDim

    if attention.SplitAlongDim is None:
        attention.SplitAlongDim = SplitAlongDim.apply


def measure() -> dict[str, tuple[float, float]]:
    """One layer of GPT3-345M, 32 samples, split and back."""
    import torch
    from transformer_engine.pytorch.utils import SplitAlongDim

    from helpers.ranks.repairs.timing import microseconds

    mixed = torch.randn(1024, 32, 16, 192, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    gradients = torch.randn(1024, 32, 16, 192, device="cuda", dtype=torch.bfloat16).split([64, 64, 64], dim=3)

    def back(split):
        mixed.grad = None
        torch.autograd.backward(split(), gradients)

    theirs = microseconds(lambda: back(lambda: torch.split(mixed, [64, 64, 64], dim=3)))
    return {
        "split and its backward": (
            theirs,
            microseconds(lambda: back(lambda: SplitAlongDim.apply(mixed, 3, [64, 64, 64]))),
        )
    }
