"""The collectives of a rank that runs alone: what Megatron's fake process group leaves undefined gets numbers.

`--fake-process-group` (Megatron's training/arguments.py:3060, used in training/initialize.py:342) takes torch's
FakeProcessGroup, in which every collective returns at once. An all-reduce leaves the tensor as it is and an all-gather
repeats this rank's part, but what a reduce-scatter, an all-to-all or a receive should have written is whatever the
memory held before, and code branches on that: one NaN in the gradient, and clipping leaves its pass out
(core/optimizer/clip_grads.py:189), a scaled loss its optimizer step; NaN logits send every token to the first experts.
Products of zeros or NaN also take less power, so that a GPU keeps a higher clock. So a reduce-scatter hands over this
rank's own part, and what another rank would have sent is drawn at random.
"""

import functools

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

COLLECTIVE = "c10d::"  # how PyTorch's own collectives begin in a profile
NAME = f"{COLLECTIVE}instead"


def fill(tensor: torch.Tensor) -> None:
    """Numbers in the place of those that another rank would have sent: normal ones, or small bytes that FP8 can read.

    Other integers, which count something, are 0.
    """
    with torch.profiler.record_function(NAME), torch.no_grad():
        if tensor.is_floating_point():
            tensor.normal_()
        elif tensor.dtype == torch.uint8:
            tensor.random_(0, 64)
        else:
            tensor.zero_()


def hand_over(output: torch.Tensor, given: torch.Tensor, group) -> None:
    """Copy this rank's part of `given` to `output`, unless it lies there already, as in Megatron's gradient buffers."""
    part = given.reshape(-1).chunk(dist.get_world_size(group))[dist.get_rank(group)]
    if part.data_ptr() != output.data_ptr():
        with torch.profiler.record_function(NAME), torch.no_grad():
            output.copy_(part.view_as(output))


def give_numbers() -> None:
    """Replace the collectives of `torch.distributed` that would leave their output undefined. Call it before Megatron
    is imported."""
    for name in ("reduce_scatter_tensor", "_reduce_scatter_base"):
        _after(name, lambda output, input, op=None, group=None, **options: hand_over(output, input, group))
    _after("all_to_all_single", lambda output, *args, **options: fill(output))
    _after("all_to_all", lambda outputs, *args, **options: [fill(output) for output in outputs])
    for name in ("irecv", "recv"):
        _after(name, lambda tensor, *args, **options: fill(tensor))


def _after(name: str, write) -> None:
    """Let `write` be called with the arguments of a collective once that has returned."""
    original = getattr(dist, name)

    @functools.wraps(original)
    def collective(*args, **options):
        result = original(*args, **options)
        write(*args, **options)
        return result

    for module in (dist, distributed_c10d):  # the second compares and calls them by its own names
        setattr(module, name, collective)


def begin_with_an_embedding() -> None:
    """Give the last stage of a pipeline an embedding to multiply by.

    Megatron sets its copy to 0 and adds the first stage's to it (`setup_embeddings_and_output_layer` in
    core/models/common/language_module/language_module.py:282), which is not here.
    """
    from megatron.core.models.common.language_module.language_module import LanguageModule

    set_up = LanguageModule.setup_embeddings_and_output_layer

    @functools.wraps(set_up)
    def set_up_and_draw(self):
        set_up(self)
        weight = self.post_process and self.share_embeddings_and_output_weights and not self.pre_process
        if weight:
            self.config.embedding_init_method(self.shared_embedding_or_output_weight().data)

    LanguageModule.setup_embeddings_and_output_layer = set_up_and_draw
