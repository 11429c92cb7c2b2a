"""What each rank holds and sends in one step of a data-parallel run, heard in real training.

    torchrun --nproc-per-node 2 helpers/ranks/data_parallel.py <the flags of pretrain_gpt.py> [--and <those of another>]

Trains as `pretrain_gpt.py` does, one run after the other on the same ranks, and listens to the last step of each.
Rank 0 prints one line a run, `DATA_PARALLEL {json}`:

- `losses`, one a step,
- `held`, one entry a rank: bytes of weights, gradients and optimizer state between two steps, and of weights that FSDP
  has gathered for the next one,
- `phases`, of rank 0: forward, backward and the optimizer, each with its start and end in milliseconds,
- `collectives`, in the order in which rank 0 called them: collective, bytes (of the whole tensor, which no rank need
  hold), milliseconds and phase. The few bytes of the loss and of the gradient norm are left out.
"""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterable

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before torch and Megatron are imported

import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel import schedules
from megatron.core.utils import unwrap_model
from megatron.training import get_args, training
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.ranks import pretrain_gpt, shards

MARK = "DATA_PARALLEL "
SMALL_BYTES = 1024  # the loss, the gradient norm and other single numbers
WHOLE_IS_FIRST = {"_allgather_base_"}  # the gathered tensor; of a reduce-scatter the whole comes second
COALESCED = {
    "allreduce_coalesced_": "all-reduce",
    "reduce_scatter_tensor_coalesced_": "reduce-scatter",
    "allgather_into_tensor_coalesced_": "all-gather",
}


class Listener(TorchDispatchMode):
    """Notes collectives and phases while it is entered; times in milliseconds since then."""

    is_on = False

    def __enter__(self):
        self.heard, self.phases, self.phase, self.start = [], [], "forward", time.perf_counter()
        self.is_on = True
        return super().__enter__()

    def __exit__(self, *error):
        self.is_on = False
        return super().__exit__(*error)

    def milliseconds(self) -> float:
        return 1e3 * (time.perf_counter() - self.start)

    @contextlib.contextmanager
    def during(self, phase: str):
        self.phase, start = phase, self.milliseconds()
        yield
        if torch.cuda.get_device_name() != "cpu":
            torch.cuda.synchronize()
        self.phases.append({"phase": phase, "start": start, "end": self.milliseconds()})
        self.phase = "optimizer"

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operation = function.name().removeprefix("c10d::").split(".")[0]
        if function.namespace == "c10d" and operation in shards.COLLECTIVES | COALESCED:
            whole = args[0] if operation in WHOLE_IS_FIRST or operation not in shards.TAKES_OUTPUT_FIRST else args[1]
            if operation == "reduce_scatter_tensor_coalesced_":
                whole = args[1]
            tensors = whole if isinstance(whole, list | tuple) else [whole]
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            group = next(dist.ProcessGroup.unbox(value) for value in args if isinstance(value, torch.ScriptObject))
            if size > SMALL_BYTES and group.size() > 1:
                name = (shards.COLLECTIVES | COALESCED)[operation]
                self.heard.append(
                    {"collective": name, "bytes": size, "milliseconds": self.milliseconds(), "phase": self.phase}
                )
        return function(*args, **(kwargs or {}))


def of_storages(tensors: Iterable) -> int:
    """Bytes of memory under some tensors, each storage counted once."""
    local = (getattr(tensor, "_local_tensor", tensor) for tensor in tensors if isinstance(tensor, torch.Tensor))
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in local)}
    return sum(storages.values())


def held(model, optimizer) -> dict[str, int]:
    """Bytes on this rank between two steps: weights, gradients, the optimizer's state with its own weights, and what
    FSDP has gathered for the next step."""
    weights, gradients, states, gathered = [], [], [], []
    for chunk in model:
        if fully := getattr(chunk, "param_and_grad_buffer", None):
            gathered += [bucket.data for bucket in fully.weight_alloc.buckets.values()]
            for group in fully.parameter_groups:
                weights += [buffer.data for buffer in (group.model_weight_buffer,) if buffer]
                gradients += [buffer.data for buffer in (group.main_grad_buffer,) if buffer]
                states += [buffer.data for buffer in (group.main_weight_buffer,) if buffer]
        else:
            weights += list(unwrap_model(chunk).parameters())
            gradients += [buffer.grad_data for buffer in chunk.buffers + chunk.expert_parallel_buffers]
    for one in getattr(optimizer, "chained_optimizers", [optimizer]):
        states += [value for state in one.optimizer.state.values() for value in state.values()]
        states += [parameter for group in one.optimizer.param_groups for parameter in group["params"]]
    ours = of_storages(weights)
    return {
        "weights": ours,
        "gradients": of_storages(gradients),
        "optimizer": of_storages([*weights, *states]) - ours,
        "gathered": of_storages(gathered),
    }


def listen(found: dict, listener: Listener) -> None:
    """Let Megatron's training loop note the losses, and what is heard in its last step."""
    step = training.train_step

    @functools.wraps(step)
    def heard_step(forward_step, data, model, optimizer, *rest, **named):
        args = get_args()
        is_last = args.curr_iteration + 1 == args.train_iters
        with listener if is_last else contextlib.nullcontext():
            if is_last:
                stepped = optimizer.step
                optimizer.step = functools.wraps(stepped)(lambda: _within(listener, "optimizer", stepped))
            done = step(forward_step, data, model, optimizer, *rest, **named)
        found["losses"].append(float(done[0]["lm loss"]) if done[0] else None)
        if is_last:
            optimizer.step = stepped
            found.update(own=held(model, optimizer), phases=listener.phases, collectives=listener.heard)
        return done

    training.train_step = heard_step


def _within(listener: Listener, phase: str, function, *args, **named):
    with listener.during(phase) if listener.is_on else contextlib.nullcontext():
        return function(*args, **named)


@record
def main() -> None:
    runs = shards.flag_lists(sys.argv[1:])
    original = training.train_step
    listener = Listener()
    for name in ("forward_step", "backward_step"):
        function = getattr(schedules, name)
        setattr(schedules, name, functools.partial(_within, listener, name.removesuffix("_step"), function))
    for flags in runs:
        sys.argv[1:] = flags
        found = {"losses": []}
        listen(found, listener)
        with contextlib.redirect_stdout(sys.stderr):
            pretrain_gpt.train()
        training.train_step = original
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, found.pop("own"))
        if dist.get_rank() == 0:
            print(MARK + json.dumps(found | {"held": everyone}), flush=True)
        training.destroy_global_state()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
