"""Megatron's own attention, taught what it leaves to Transformer Engine (megatron-core 0.19).

`dot_product_attention.py` refuses context parallelism, packed samples and the two head widths of multi-latent
attention. Here it computes them under one mask: the rows of it that belong to this rank's queries.
"""

import copy
import functools

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.utils import get_sliding_window_causal_mask


def sequence_order(context_parallel_size: int, length: int) -> torch.Tensor:
    """Where each position of a sequence lies once the parts of all context-parallel ranks are put end to end.

    Megatron cuts a sequence into 2 × `context_parallel_size` pieces; rank r holds piece r and piece r from the end,
    so that under a causal mask all ranks have the same work (`get_batch_on_this_cp_rank`). Shape: [length].
    """
    pieces = torch.arange(length).chunk(2 * context_parallel_size)
    last = 2 * context_parallel_size - 1
    return torch.cat([pieces[2 * piece if 2 * piece <= last else 2 * (last - piece) + 1] for piece in range(last + 1)])


def masked(length: int, window: tuple[int, int] | None, starts: torch.Tensor | None) -> torch.Tensor:
    """True where a query may not look: later tokens, those outside `window`, those of another document.

    `starts` holds where each packed document begins, and the end of the last. Shape: [length, length], queries first.
    """
    if window is not None:
        hidden = get_sliding_window_causal_mask(length, length, window)
    else:
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    if starts is not None:
        document = torch.searchsorted(starts, torch.arange(length, dtype=starts.dtype), right=True)
        hidden |= document[:, None] != document
    return hidden


def adapt() -> None:
    """Replace the constructor and `forward` of `DotProductAttention`."""
    build, attend = DotProductAttention.__init__, DotProductAttention.forward

    @functools.wraps(build)
    def build_without_asking(self, config, *args, k_channels=None, v_channels=None, **options):
        """What the constructor refuses is kept from it: context parallelism, the widths of latent heads.

        A learnable softmax offset is drawn whole on every rank and then cut, as --use-cpu-initialization does with
        matrices. Drawn for the rank's own heads, it would shift the random numbers of all weights after it.
        """
        plain = copy.copy(config)
        plain.context_parallel_size = 1
        plain.perform_initialization = False
        build(self, plain, *args, **options)
        self.config = config
        if config.softmax_type == "learnable" and config.perform_initialization:
            whole = config.init_method(torch.empty(config.num_attention_heads, dtype=config.params_dtype))
            self.softmax_offset.data.copy_(whole.chunk(self.tp_group.size())[self.tp_group.rank()])

    @functools.wraps(attend)
    def attend_under_one_mask(self, query, key, value, attention_mask, *args, packed_seq_params=None, **options):
        """Each rank keeps its queries and gathers all keys and values; backward, their gradients are summed and cut.

        `attention_mask`, where there is one, holds the rows of this rank's queries and all columns. Packed samples come
        and go without the dimension of the batch.
        """
        self.hidden_size_per_partition = self.num_attention_heads_per_partition * value.size(-1)
        size = self.config.context_parallel_size
        if size == 1 and packed_seq_params is None:
            return attend(self, query, key, value, attention_mask, *args, **options)
        if packed_seq_params is not None:
            query, key, value = (part[:, None] if part.dim() == 3 else part for part in (query, key, value))
        mine = torch.arange(query.size(0))
        if size > 1:
            group = parallel_state.get_context_parallel_group()
            order = sequence_order(size, size * key.size(0))
            key, value = (gather_from_sequence_parallel_region(part, group=group)[order] for part in (key, value))
            mine = order.argsort().chunk(size)[group.rank()]
        softmax = self.scale_mask_softmax
        window, starts = softmax.window_size, packed_seq_params and packed_seq_params.cu_seqlens_q
        if window is not None or starts is not None:  # a window takes the place of a given mask, as on one rank
            attention_mask = masked(key.size(0), window, starts)[mine]
        elif attention_mask is None and softmax.attn_mask_type == AttnMaskType.causal:
            attention_mask = masked(key.size(0), None, None)[mine]
        softmax.window_size = None  # else it would make a mask of its own, without knowing which rows these are
        try:
            output = attend(self, query, key, value, attention_mask, *args, **options)
        finally:
            softmax.window_size = window
        return output if packed_seq_params is None else output.squeeze(1)

    DotProductAttention.__init__, DotProductAttention.forward = build_without_asking, attend_under_one_mask
