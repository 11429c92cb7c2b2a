"""The places where Megatron itself refuses to run on a CPU, each with what stands in for it (megatron-core 0.19).

`device.switch_on` calls `adapt`; with a GPU nothing here is imported. Attention has a module of its own.
"""

import contextlib
import copy
import functools
import logging
import queue
import sys
import types

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.distributed import torch_fully_sharded_data_parallel
from megatron.core.tensor_parallel import random
from megatron.core.transformer import torch_norm
from megatron.training import argument_utils


def adapt() -> None:
    _let_norms_be_as_on_a_gpu()
    _recompute_without_a_compiler()
    _let_torchs_fsdp_shard_on_a_cpu()
    _gather_at_once()
    _log_the_layers_there_are()
    _leave_out_the_warm_up()
    _silence_the_shared_generator()
    _describe_flags_for_help_alone()
    _collect_what_was_saved_in_this_process()


def _let_norms_be_as_on_a_gpu() -> None:
    """`torch_norm.py` refuses sequence parallelism and --apply-layernorm-1p, which torch's norms know nothing of.

    Sequence parallelism is a mark, `sequence_parallel` on each parameter: it tells Megatron to sum the gradient over
    the tensor-parallel ranks (`finalize_model_grads.py`), since each saw another part of the sequence. With
    layernorm-1p a norm multiplies by 1 + weight, and its weight begins at 0.
    """
    build = torch_norm.WrappedTorchNorm.__new__

    def build_and_mark(cls, config, *args, **options):
        plain = copy.copy(config)
        plain.sequence_parallel = plain.layernorm_zero_centered_gamma = False
        norm = build(cls, plain, *args, **options)
        for parameter in norm.parameters():
            parameter.sequence_parallel = config.sequence_parallel
        if config.layernorm_zero_centered_gamma:
            torch.nn.init.zeros_(norm.weight)
            norm.forward = functools.partial(_normed_around_one, norm)
        return norm

    torch_norm.WrappedTorchNorm.__new__ = build_and_mark


def _normed_around_one(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(norm, torch.nn.LayerNorm):
        return torch.nn.functional.layer_norm(x, norm.normalized_shape, 1 + norm.weight, norm.bias, norm.eps)
    return torch.nn.functional.rms_norm(x, norm.normalized_shape, 1 + norm.weight, norm.eps)


def _recompute_without_a_compiler() -> None:
    """--recompute-modules layernorm frees an output and makes its memory anew in the backward pass (`random.py`).

    Without Transformer Engine it asks for that one's FP8 state all the same, and it shares the memory through a C++
    function that it compiles when it first needs it. On a CPU a copy does.
    """
    build = random.CheckpointWithoutOutput.__init__

    @functools.wraps(build)
    def build_without_fp8(self, fp8=None):
        build(self, fp8=None)

    def copy_storage(target: torch.Tensor, source: torch.Tensor) -> None:
        storage = source.untyped_storage()
        target.untyped_storage().resize_(storage.nbytes())
        target.untyped_storage().copy_(storage)

    random.CheckpointWithoutOutput.__init__ = build_without_fp8
    random._get_share_storage = lambda: copy_storage


def _let_torchs_fsdp_shard_on_a_cpu() -> None:
    """--use-torch-fsdp2 builds a mesh of GPUs by name, and PyTorch then looks for weights on them."""
    mesh = torch_fully_sharded_data_parallel.DeviceMesh
    of_cpus = types.SimpleNamespace(from_group=lambda group, device: mesh.from_group(group, "cpu"))
    torch_fully_sharded_data_parallel.DeviceMesh = of_cpus


def _gather_at_once() -> None:
    """Megatron's FSDP starts the all-gather of a layer's weights and goes on; streams of a GPU keep their order.

    gloo works in a thread of its own, which wrote into memory that had been freed ("malloc(): unaligned tcache chunk
    detected"). What is sent together (`_coalescing_manager`) is waited for at once.
    """
    coalesced = torch.distributed._coalescing_manager

    @contextlib.contextmanager
    def waited(group=None, device=None, async_ops=False):
        with coalesced(group, device, async_ops) as manager:
            yield manager
        manager.wait()
        manager.works.clear()

    torch.distributed._coalescing_manager = waited
    if imported := sys.modules.get("megatron.core.distributed.fsdp.src.megatron_fsdp.param_and_grad_buffer"):
        imported._coalescing_manager = waited


def _log_the_layers_there_are() -> None:
    """--save-activations-interval and --save-dgrads-interval look for Transformer Engine's layers, here None."""
    from megatron.training import activation_logging, dgrad_logging

    for module in (activation_logging, dgrad_logging):
        module.LINEAR_TYPES = tuple(kind for kind in module.LINEAR_TYPES if isinstance(kind, type))


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


def _describe_flags_for_help_alone() -> None:
    """Megatron reads the sources of 40 classes at each start, three times, for what `--help` says about their flags."""
    if not {"-h", "--help"} & set(sys.argv):
        argument_utils.ArgumentGroupFactory._get_field_docstrings = lambda self, src_cfg_class: {}


def _collect_what_was_saved_in_this_process() -> None:
    """A save starts a process that holds a queue, and this one first imports the whole program again: four seconds.

    Others write to that queue with --async-save alone.
    """
    if "--async-save" not in sys.argv:
        filesystem_async.get_write_results_queue = functools.cache(lambda mp_mode="spawn": queue.SimpleQueue())
