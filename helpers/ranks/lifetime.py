"""A rank's end: with its torchrun, however that went, and in good order when training is done."""

import ctypes
import gc
import os
import signal


def end_with_torchrun() -> None:
    """Have Linux kill this rank as soon as the torchrun that started it is gone, however it went (prctl(2))."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave() -> None:
    """Let recorded steps go (`--cuda-graph-impl`), then the groups: NCCL waits forever for the other way round."""
    import torch
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper

    FullCudaGraphWrapper.cuda_graph = dict.fromkeys(FullCudaGraphWrapper.cuda_graph)
    FullCudaGraphWrapper.result = dict.fromkeys(FullCudaGraphWrapper.result)
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
