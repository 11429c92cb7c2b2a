"""Transformer Engine's cross entropy, which Megatron 0.19 refuses for faults that Transformer Engine has since mended.

Megatron's `validate_args` rejects `--cross-entropy-fusion-impl te` "due to stability issues": the kernel used to round
the gradient to bf16 before it was scaled. TransformerEngine pull requests 3193 and 3273 mended that; Megatron-LM pull
request 7339 lifts the refusal. The kernel of Transformer Engine 2.20 reads the logits once forward, keeps two numbers a
row, and writes the gradient over the logits in backward.
"""

import inspect

FLAG = "--cross-entropy-fusion-impl"


def admit(arguments: list[str]) -> None:
    """Where `arguments`, the program's own, ask for "te": tell Megatron "native", and put the kernel in its place.

    An older Transformer Engine, as containers have it, still has the old kernel: there "native" it is.
    """
    if FLAG not in arguments or arguments[arguments.index(FLAG) + 1 :][:1] != ["te"]:
        return
    from megatron.core.models.common.language_module import language_module
    from transformer_engine.pytorch.cross_entropy import parallel_cross_entropy

    arguments[arguments.index(FLAG) + 1] = "native"
    if "overwrite_input" not in inspect.signature(parallel_cross_entropy).parameters:
        print(f"{FLAG} te needs Transformer Engine 2.20 or newer: the loss is computed by native kernels.")
        return
    language_module.fused_vocab_parallel_cross_entropy = _cross_entropy


def _cross_entropy(logits, labels, tensor_parallel_group):
    """The loss of every token, fp32 [tokens, batch], from logits [tokens, batch, rows of this rank].

    Nothing else reads the logits, so their gradient may take their place.
    """
    from transformer_engine.pytorch.cross_entropy import parallel_cross_entropy

    return parallel_cross_entropy(logits, labels, dist_process_group=tensor_parallel_group, overwrite_input=True)
