"""A replay of deep pipelines: Megatron's real schedules and transfers, the work of every stage a timed wait.

    torchrun --nproc-per-node 4 helpers/ranks/pipeline_replay.py <folder> '[{"micro_batches": 8, "chunks": 1, …}]'

A stage that sleeps needs no core, so two cores replay a pipeline of eight. Nothing is trained: a stage waits for
`forward_ms` or `backward_ms` (one number for each stage, divided by its chunks) and hands a small tensor on. What
decides the order and sends the tensors is Megatron's: `forward_backward_pipelining_with(out)_interleaving` and
`P2PCommunicator`, over gloo. `<folder>/<number of the job>/` gets the passes of each.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

from helpers.ranks import lifetime

if __name__ == "__main__":
    lifetime.end_with_torchrun()
    from helpers.ranks.cpu import device

    device.switch_on()  # whatever GPUs there are, nothing here needs one

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.enums import ModelType
from megatron.core.pipeline_parallel import get_forward_backward_func, schedules
from megatron.core.transformer import TransformerConfig
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks.passes import Recorder

WIDTH = 8  # of the tensor that is handed on
TWICE = 2  # the first job: its first time opens the connections


class Wait(torch.autograd.Function):
    """Waits forward and backward, and hands on what it is given."""

    @staticmethod
    def forward(ctx, given, ahead: float, back: float):
        ctx.back = back
        time.sleep(ahead)
        return given.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.back)
        return gradient, None, None


class Chunk(torch.nn.Module):
    """A piece of the model as the schedules see one."""

    def __init__(self, config: TransformerConfig, vp_stage: int | None, ahead: float, back: float):
        super().__init__()
        self.config, self.vp_stage, self.ahead, self.back = config, vp_stage, ahead, back
        self.model_type = ModelType.encoder_or_decoder
        self.own = torch.nn.Parameter(torch.ones(1, 1, WIDTH))
        self.given = None

    def set_input_tensor(self, tensors) -> None:
        self.given = tensors[0]

    def forward(self):
        return Wait.apply(self.own if self.given is None else self.given, self.ahead, self.back)


def forward_step(data, chunk: Chunk):
    return chunk(), lambda output: (output.sum(), {})


def replay(job: dict, rounds: int, folder: Path, recorder: Recorder) -> None:
    stages, stage, chunks = dist.get_world_size(), dist.get_rank(), job["chunks"]
    interleaved = chunks if chunks > 1 else None
    parallel_state.set_virtual_pipeline_model_parallel_world_size(interleaved)
    config = TransformerConfig(
        num_layers=stages * chunks,
        hidden_size=WIDTH,
        num_attention_heads=1,
        pipeline_model_parallel_size=stages,
        virtual_pipeline_model_parallel_size=interleaved,
        pipeline_dtype=torch.float32,
        microbatch_group_size_per_vp_stage=stages,
    )
    seconds = [job[name][stage] / chunks / 1e3 for name in ("forward_ms", "backward_ms")]
    model = [Chunk(config, number if interleaved else None, *seconds) for number in range(chunks)]
    run = partial(
        get_forward_backward_func(),
        forward_step_func=forward_step,
        data_iterator=[None] * chunks if interleaved else None,
        model=model if interleaved else model[0],
        num_microbatches=job["micro_batches"],
        seq_length=1,
        micro_batch_size=1,
    )
    recorder.folder, recorder.step = folder, 0
    for _ in range(rounds):
        dist.barrier()
        recorder.begin()
        run()
        recorder.end()


@record
def main(folder: str, jobs: str) -> None:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(pipeline_model_parallel_size=dist.get_world_size())
    recorder = Recorder(Path(folder))
    recorder.listen(schedules)
    for number, job in enumerate(json.loads(jobs)):
        replay(job, 1 if number else TWICE, Path(folder) / str(number), recorder)
    dist.barrier()
    lifetime.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
