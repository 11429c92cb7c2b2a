"""The loss of a checkpoint on given samples, at whatever layout it is loaded with.

    torchrun --nproc-per-node 2 helpers/ranks/held_out_loss.py samples.safetensors 4 <flags of the model, --load …>

`samples.safetensors`: tokens, labels, position_ids and loss_mask, each [samples, tokens]; 4 of them go through the
model at once. One rank prints `LOSS {json}`: of each sample its sum (nats, over the labels that count) and its tokens
(how many those are).
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks import lifetime
from helpers.ranks.repairs import table

if __name__ == "__main__":
    lifetime.end_with_torchrun()
    table.apply()  # before Megatron is imported

from megatron.core import mpu
from safetensors.torch import load_file

from helpers.ranks import checkpoint_model

MARK = "LOSS "


@torch.no_grad()
def measure(model: torch.nn.Module, samples: dict[str, torch.Tensor], at_once: int) -> dict | None:
    """Sum and count of each sample; None but on the last pipeline stage."""
    sums, tokens = [], []
    for start in range(0, len(samples["tokens"]), at_once):
        part = {name: tensor[start : start + at_once].cuda() for name, tensor in samples.items()}
        losses = checkpoint_model.forward(model, part["tokens"], part["position_ids"], labels=part["labels"])
        if losses is not None:
            mask = part["loss_mask"].float()
            sums += (losses.float() * mask).double().sum(1).tolist()
            tokens += mask.sum(1).int().tolist()
    return {"sums": sums, "tokens": tokens} if mpu.is_pipeline_last_stage() else None


@record
def main() -> None:
    samples, at_once = load_file(sys.argv.pop(1)), int(sys.argv.pop(1))
    found = measure(checkpoint_model.build(), samples, at_once)
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    if dist.get_rank() == 0:
        print(MARK + json.dumps(next(told for told in everyone if told)), flush=True)
    lifetime.leave()


if __name__ == "__main__":
    main()
