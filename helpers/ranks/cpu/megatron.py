"""The places where Megatron itself refuses to run on a CPU, each with what stands in for it (megatron-core 0.19).

`device.switch_on` calls `adapt`; with a GPU nothing here is imported.
"""

import copy
import functools
import logging

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer import torch_norm
from megatron.core.transformer.dot_product_attention import DotProductAttention


def adapt() -> None:
    _let_norms_be_sequence_parallel()
    _let_attention_be_context_parallel()
    _leave_out_the_warm_up()
    _silence_the_shared_generator()


def _let_norms_be_sequence_parallel() -> None:
    """`torch_norm.py` refuses sequence parallelism: torch's norms do not carry the mark that the others set.

    The mark, `sequence_parallel` on each parameter, tells Megatron to sum its gradient over the tensor-parallel
    ranks (`finalize_model_grads.py`), since each saw another part of the sequence. So: build the norm, then mark it.
    """
    build = torch_norm.WrappedTorchNorm.__new__

    def build_and_mark(cls, config, *args, **options):
        without = copy.copy(config)
        without.sequence_parallel = False
        norm = build(cls, without, *args, **options)
        for parameter in norm.parameters():
            parameter.sequence_parallel = config.sequence_parallel
        return norm

    torch_norm.WrappedTorchNorm.__new__ = build_and_mark


def sequence_order(context_parallel_size: int, length: int) -> torch.Tensor:
    """Where each position of a sequence lies once the parts of all context-parallel ranks are put end to end.

    Megatron cuts a sequence into 2 × `context_parallel_size` pieces; rank r holds piece r and piece r from the end,
    so that under a causal mask all ranks have the same work (`get_batch_on_this_cp_rank`). Shape: [length].
    """
    pieces = torch.arange(length).chunk(2 * context_parallel_size)
    last = 2 * context_parallel_size - 1
    return torch.cat([pieces[2 * piece if 2 * piece <= last else 2 * (last - piece) + 1] for piece in range(last + 1)])


def _let_attention_be_context_parallel() -> None:
    """`dot_product_attention.py` refuses context parallelism: Megatron leaves it to Transformer Engine.

    Each rank keeps its own queries and gathers all keys and values (backward: their gradients are summed and
    scattered). From there Megatron's own attention goes on, under the causal mask's rows of this rank.
    """
    build, attend = DotProductAttention.__init__, DotProductAttention.forward

    @functools.wraps(build)
    def build_without_asking(self, config, *args, **options):
        without = copy.copy(config)
        without.context_parallel_size = 1
        build(self, without, *args, **options)
        self.config = config  # only the question in the constructor was to be answered with 1

    @functools.wraps(attend)
    def attend_to_all_ranks(self, query, key, value, attention_mask, *args, **options):
        size = self.config.context_parallel_size
        if size > 1:
            group = parallel_state.get_context_parallel_group()
            order = sequence_order(size, size * key.size(0))
            key, value = (gather_from_sequence_parallel_region(part, group=group)[order] for part in (key, value))
            mine = order.argsort().chunk(size)[group.rank()]
            attention_mask = torch.arange(len(order)) > mine[:, None]
        return attend(self, query, key, value, attention_mask, *args, **options)

    DotProductAttention.__init__, DotProductAttention.forward = build_without_asking, attend_to_all_ranks


def _leave_out_the_warm_up() -> None:
    """The warm-up of compiled functions draws random numbers whose count depends on the parallel layout.

    On a GPU they come from another generator than the initial weights; here there is one, and the weights of TP 1
    and TP 2 would differ. Nothing is compiled on a CPU, so nothing needs warming up.
    """
    from megatron.training import initialize

    initialize._warmup_jit_function = lambda *args, **options: None


def _silence_the_shared_generator() -> None:
    """Megatron warns when code for the GPU draws from the CPU's generator. Here that is the one there is."""
    logger = logging.getLogger("megatron.core.tensor_parallel.random")
    logger.addFilter(lambda record: "CPU RNG state changed" not in record.getMessage())
