"""Which rank holds which part of each matrix, and what the ranks of one layer say to each other, from a real model.

    torchrun --nproc-per-node 2 helpers/ranks/shards.py <the flags of pretrain_gpt.py> [--and <the flags of another>]

Builds the model that the flags ask for, exactly as a training run does, and sends one micro-batch of random
numbers through its first layer, forward and backward; then the next model, on the same ranks. Rank 0 prints one line a
model, `SHARDS {json}`:

- `shards`, one entry per parameter and rank: name, rank, full_shape, local_shape, partition_dim (None: whole on every
  rank) and pieces [{offset, shape}], where in the full matrix the local one lies. SwiGLU's first matrix has two
  pieces, gate and up. From the model's own `sharded_state_dict`, which is what checkpoints are cut by.
- `collectives`, in the order in which rank 0 called them: direction, module, collective, shape, bytes (of the
  tensor that this rank hands in) and ranks. Recorded where PyTorch dispatches them, so none is missed.
"""

import contextlib
import json
import sys
from collections.abc import Iterator

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before torch and Megatron are imported

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.utils import unwrap_model
from megatron.training import get_args
from megatron.training.argument_utils import gpt_config_from_args
from megatron.training.arguments import parse_and_validate_args
from megatron.training.initialize import initialize_megatron
from megatron.training.training import destroy_global_state, get_megatron_ddp_config
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.ranks import pretrain_gpt

MARK, AND = "SHARDS ", "--and"
COLLECTIVES = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_": "reduce-scatter",
    "alltoall_base_": "all-to-all",
    "broadcast_": "broadcast",
}
TAKES_OUTPUT_FIRST = {"_allgather_base_", "allgather_", "_reduce_scatter_base_", "reduce_scatter_", "alltoall_base_"}


def build_model() -> torch.nn.Module:
    """The first model chunk of this rank, as `pretrain_gpt.py` builds it from the same flags."""
    args = parse_and_validate_args(args_defaults={"tokenizer_type": "GPT2BPETokenizer"})
    initialize_megatron(get_embedding_ranks=pretrain_gpt.embedding_ranks)
    config = gpt_config_from_args(args)
    config.finalize()
    builder = config.get_builder_cls()(config)
    groups = ProcessGroupCollection.use_mpu_process_groups()
    return unwrap_model(builder.build_distributed_models(groups, get_megatron_ddp_config(args)))[0]


# ---- who holds what ----------------------------------------------------------------------------------------------
def entries_of(tree) -> Iterator[ShardedTensor | ShardedTensorFactory]:
    """Every tensor of a sharded state dict, whatever it is nested in."""
    if isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from entries_of(branch)
    elif isinstance(tree, ShardedTensor | ShardedTensorFactory):
        yield tree


def held(model: torch.nn.Module) -> list[dict]:
    """What this rank holds of each parameter of `model`; a factory stands for several matrices kept as one."""
    by_address = {entry.data.data_ptr(): entry for entry in entries_of(model.sharded_state_dict())}
    records = []
    for name, parameter in model.named_parameters():
        entry = by_address[parameter.data_ptr()]
        pieces = list(entries_of(entry.build())) if isinstance(entry, ShardedTensorFactory) else [entry]
        own_axes = pieces[0].prepend_axis_num  # those before number layers and experts
        split = getattr(parameter, "tensor_model_parallel", False)
        records.append(
            {
                "name": name,
                "rank": dist.get_rank(),
                "full_shape": list(pieces[0].global_shape[own_axes:]),
                "local_shape": list(parameter.shape),
                "partition_dim": parameter.partition_dim if split else None,
                "pieces": [
                    {"offset": list(piece.global_offset[own_axes:]), "shape": list(piece.local_shape)}
                    for piece in pieces
                ],
            }
        )
    return records


# ---- who says what -----------------------------------------------------------------------------------------------
class Listener(TorchDispatchMode):
    """Notes every collective that passes PyTorch's dispatcher while it is entered."""

    def __init__(self):
        super().__init__()
        self.heard, self.direction, self.module = [], "forward", ""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operation = function.name().removeprefix("c10d::").split(".")[0]
        if function.namespace == "c10d" and operation in COLLECTIVES:
            self._note(operation, args)
        return function(*args, **(kwargs or {}))

    def _note(self, operation, args):
        given = args[1] if operation in TAKES_OUTPUT_FIRST else args[0]
        given = given[0] if isinstance(given, list | tuple) else given
        group = next(dist.ProcessGroup.unbox(value) for value in args if isinstance(value, torch.ScriptObject))
        self.heard.append(
            {
                "direction": self.direction,
                "module": self.module,
                "collective": COLLECTIVES[operation],
                "shape": list(given.shape),
                "bytes": given.numel() * given.element_size(),
                "ranks": dist.get_process_group_ranks(group),
            }
        )

    def follow(self, name: str, module: torch.nn.Module) -> None:
        """Know that what is heard next comes from `module`, forward or backward."""

        def enter(*_):
            self.module = name

        module.register_forward_pre_hook(enter)
        module.register_full_backward_pre_hook(enter)


def collectives(layer: torch.nn.Module, config, micro_batch_size: int, seq_length: int) -> list[dict]:
    """What this rank says during forward and backward of one transformer layer."""
    listener = Listener()
    for name, module in layer.named_modules():
        if name.rpartition(".")[2].startswith("linear_"):
            listener.follow(name, module)
    length = seq_length // config.context_parallel_size
    length //= config.tensor_model_parallel_size if config.sequence_parallel else 1
    shape = (length, micro_batch_size, config.hidden_size)
    hidden = torch.randn(shape, dtype=config.params_dtype, device="cuda", requires_grad=True)
    with listener:
        output, _ = layer(hidden, attention_mask=None)
        listener.direction = "backward"
        output.sum().backward()
    return listener.heard


# ---- one model after the other -----------------------------------------------------------------------------------
def flag_lists(words: list[str]) -> list[list[str]]:
    """The flags of each model: those between one `--and` and the next."""
    ends = [place for place, word in enumerate([*words, AND]) if word == AND]
    return [words[start:end] for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]


def look() -> dict[str, list[dict]]:
    """What is asked of the model that the flags in sys.argv describe."""
    model = build_model()
    args = get_args()
    heard = []
    if len(model.decoder.layers) > 0:
        heard = collectives(model.decoder.layers[0], model.config, args.micro_batch_size, args.seq_length)
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, held(model))
    return {"shards": [record for rank in everyone for record in rank], "collectives": heard}


@record
def main() -> None:
    for flags in flag_lists(sys.argv[1:]):
        sys.argv[1:] = flags
        with contextlib.redirect_stdout(sys.stderr):  # Megatron's own reports, beside the one line that is asked for
            found = look()
        if dist.get_rank() == 0:
            print(MARK + json.dumps(found), flush=True)
        destroy_global_state()  # so that Megatron reads the next flags as if they were its first
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
