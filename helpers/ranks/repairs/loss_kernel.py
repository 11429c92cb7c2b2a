"""Transformer Engine's cross entropy in the place of Megatron's native one.

Megatron's `validate_args` rejects `--cross-entropy-fusion-impl te` "due to stability issues": the kernel used to round
the gradient to bf16 before it was scaled. TransformerEngine pull requests 3193 and 3273 mended that; Megatron-LM pull
request 7339 lifts the refusal. The kernel of Transformer Engine 2.20 reads the logits once forward, keeps two numbers a
row, and writes the gradient over the logits in backward. The command says `native`, and this takes its place.
"""


def apply() -> None:
    """Replace the function that Megatron's models call for `--cross-entropy-fusion-impl native`."""
    from megatron.core.models.common.language_module import language_module

    language_module.fused_vocab_parallel_cross_entropy = cross_entropy


def mended() -> bool:
    """Whether Megatron takes `te` again."""
    from helpers.ranks.repairs.repair import source

    return "disabled due to stability issues" not in source("megatron.training.arguments:validate_args")


def cross_entropy(logits, labels, tensor_parallel_group):
    """The loss of every token, fp32 [tokens, batch], from logits [tokens, batch, rows of this rank].

    Nothing else reads the logits, so their gradient may take their place.
    """
    from transformer_engine.pytorch.cross_entropy import parallel_cross_entropy

    return parallel_cross_entropy(logits, labels, dist_process_group=tensor_parallel_group, overwrite_input=True)


def measure() -> dict[str, tuple[float, float]]:
    """8,192 tokens, 50,304 rows, forward and backward, beside PyTorch's own in fp32 under torch.compile."""
    import torch

    from helpers.ranks.repairs.timing import microseconds

    logits = torch.randn(1024, 8, 50304, device="cuda", dtype=torch.bfloat16)
    labels = torch.randint(50304, (1024, 8), device="cuda")

    @torch.compile
    def native(logits):
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())

    def step(loss):
        given = logits.detach().requires_grad_()
        loss(given).backward()

    ours = microseconds(lambda: step(lambda given: cross_entropy(given * 1, labels, None).mean()))
    return {
        "loss and its gradient, 8,192 × 50,304": (microseconds(lambda: step(lambda given: native(given * 1))), ours)
    }
