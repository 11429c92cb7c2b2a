"""Weights that `--use-cpu-initialization` made in main memory move to the GPU before they are trained.

Megatron 0.19 builds models in `training/models/dist_utils.py`, which leaves such a model on the CPU: Megatron-Bridge
converts checkpoints there (its pull request 757). Training ends at the first broadcast: "No backend type associated
with device type cpu". `get_model` in `training/training.py`, which that replaces, moves the model for all but FSDP2.
"""

import functools

import torch


def apply() -> None:
    """Move each piece of a model before it is wrapped for training."""
    from megatron.training.models import dist_utils

    wrap = dist_utils.prepare_existing_model_chunks_for_distributed_training

    @functools.wraps(wrap)
    def moved_and_wrapped(model_list, *args, use_torch_fsdp2=False, **kwargs):
        config = args[0] if args else kwargs.get("transformer_config")
        if not use_torch_fsdp2 and not getattr(config, "init_model_with_meta_device", False):
            for chunk in model_list:
                chunk.cuda(torch.cuda.current_device())
        return wrap(model_list, *args, use_torch_fsdp2=use_torch_fsdp2, **kwargs)

    dist_utils.prepare_existing_model_chunks_for_distributed_training = moved_and_wrapped
