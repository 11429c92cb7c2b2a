"""Every forward and backward pass of every micro-batch that this rank computes, with the times at which it really ran.

Megatron's pipeline schedules call `forward_step` and `backward_step` (core/pipeline_parallel/schedules.py:397 and :532)
as globals of their module. `record` puts itself around both and around `train_step`, whose end adds a line to
`<folder>/rank-<n>.jsonl`:

    {"stage": 0, "step": 3, "start": s, "end": s, "passes": [["forward", chunk, micro_batch, start, end], …]}

in seconds since 1970, which all ranks of a host share. On a GPU a pass begins and ends with a CUDA event in the stream
that its kernels run in, behind the receive that it waits for; the clock is read once a step, after a synchronization,
and a second one at its end reads the events. Evaluation is left out. It works on whatever calls Megatron's schedules:
pretraining, and the replay in `pipeline_replay`.
"""

import functools
import json
import time
from pathlib import Path

import torch

VARIABLE = "MEGATRON_TOUR_PASSES"  # the folder to write to; not set: nothing is recorded


def record(folder: Path | str) -> "Recorder":
    """Record the passes of every training step from now on."""
    from megatron.core.pipeline_parallel import schedules
    from megatron.training import training

    recorder = Recorder(Path(folder))
    recorder.listen(schedules)
    training.train_step = recorder.whole(training.train_step)
    return recorder


class Recorder:
    """The passes of the step that is going on, and where those before it were written."""

    def __init__(self, folder: Path):
        self.folder, self.step, self.going = folder, 0, False
        self.passes: list[tuple] = []  # direction, chunk, micro-batch, start and end as `clock` gave them
        self.alive: dict[int, tuple[int, int]] = {}  # id of an output that waits for its backward: chunk, micro-batch
        self.on_gpu = torch.cuda.get_device_name() != "cpu"

    def listen(self, schedules) -> None:
        """Put itself around the two functions that every schedule of Megatron calls."""
        schedules.forward_step = self.forward(schedules.forward_step)
        schedules.backward_step = self.backward(schedules.backward_step)

    def forward(self, step):
        @functools.wraps(step)
        def recorded(*arguments, **options):
            start = self.clock()
            result = step(*arguments, **options)
            chunk, micro_batch = options.get("vp_stage") or 0, options["current_microbatch"]
            self.alive[_key(result[0])] = chunk, micro_batch
            self.passes.append(("forward", chunk, micro_batch, start, self.clock()))
            return result

        return recorded

    def backward(self, step):
        @functools.wraps(step)
        def recorded(input_tensor, output_tensor, *others):
            work = self.alive.pop(_key(output_tensor))  # before: the step puts the scaled loss into its place
            start = self.clock()
            result = step(input_tensor, output_tensor, *others)
            self.passes.append(("backward", *work, start, self.clock()))
            return result

        return recorded

    def whole(self, train_step):
        """A training step that leaves a line."""

        @functools.wraps(train_step)
        def recorded(*arguments, **options):
            self.step = options["iteration"]  # of a run that was picked up, those before it count
            self.begin()
            result = train_step(*arguments, **options)
            self.end()
            return result

        return recorded

    def begin(self) -> None:
        self.passes.clear()
        self.alive.clear()
        if self.on_gpu:
            torch.cuda.synchronize()
            self.zero = self.clock()
        self.start = time.time()

    def end(self) -> None:
        from megatron.core import parallel_state

        if self.on_gpu:
            torch.cuda.synchronize()
        self.step += 1
        line = {
            "stage": parallel_state.get_pipeline_model_parallel_rank(),
            "step": self.step,
            "start": self.start,
            "end": time.time(),
            "passes": [(*what, self.seconds(start), self.seconds(end)) for *what, start, end in self.passes],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"rank-{torch.distributed.get_rank()}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def clock(self):
        """A moment: on a CPU seconds since 1970; on a GPU an event, which has no time before its step has ended."""
        if not self.on_gpu:
            return time.time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, moment) -> float:
        return moment if not self.on_gpu else self.start + self.zero.elapsed_time(moment) / 1e3


def _key(output) -> int:
    return id(output[0] if isinstance(output, list) else output)
