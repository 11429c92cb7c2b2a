"""Let a checkpoint go on with texts, token by token, at whatever layout it is loaded with.

    torchrun --nproc-per-node 2 helpers/ranks/generate.py asked.json <flags of the model, --load …>

`asked.json`: prompts (token ids of each), tokens (how many to add), temperature (null takes the likeliest), top_k and
top_p (null: no limit), seed, vocabulary (ids that stand for a token), end (the id that ends a text, or null). Keys and
values of what was read stay in Megatron's StaticInferenceContext, so each step reads one token. That has one position
for the whole batch: prompts go through from the shortest on, and longer ones are fed their own tokens meanwhile. One
rank prints a line a token, `TOKEN {json}`: prompt (its number), id, probability and likeliest ([id, probability] of the
five likeliest, before temperature); and in the end `DONE {json}`: seconds and tokens of the steps after the first.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks import lifetime
from helpers.ranks.repairs import table

if __name__ == "__main__":
    lifetime.end_with_torchrun()
    table.apply()  # before Megatron is imported

from megatron.core import mpu
from megatron.core.inference.contexts import StaticInferenceContext

from helpers.ranks import checkpoint_model
from helpers.ranks.sampling import sample

MARK, END = "TOKEN ", "DONE "
LIKELIEST = 5


def speaker() -> int:
    """The one rank that draws tokens and prints them: of the last stage, the first that holds the whole logits."""
    first = mpu.is_pipeline_last_stage() and mpu.get_tensor_model_parallel_rank() == 0
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, first)
    return everyone.index(True)


def causal(new: int, before: int) -> torch.Tensor:
    """True where one of `new` tokens may not look: at what comes after it, of all that were read."""
    seen = torch.ones(1, 1, new, before + new, dtype=torch.bool, device="cuda").tril(before)
    return seen.logical_not()


@torch.no_grad()
def generate(model: torch.nn.Module, asked: dict) -> None:
    prompts, count, end = asked["prompts"], asked["tokens"], asked["end"]
    source, batch = speaker(), len(prompts)
    speaks = dist.get_rank() == source
    generator = torch.Generator("cpu").manual_seed(asked["seed"])
    longest = max(map(len, prompts)) + count
    context = StaticInferenceContext(batch, longest)
    read = min(map(len, prompts))
    texts = torch.tensor([prompt[:read] for prompt in prompts], device="cuda")
    fed, place, missing = texts, 0, [count] * batch
    began, timed = time.perf_counter(), 0
    while any(missing):
        positions = torch.arange(place, place + fed.shape[1], device="cuda").expand(fed.shape)
        logits = checkpoint_model.forward(model, fed, positions, causal(fed.shape[1], place), context)
        place += fed.shape[1]
        context.sequence_len_offset = place
        following = torch.empty(batch, dtype=torch.long, device="cuda")
        if speaks:
            last = logits[:, -1, : asked["vocabulary"]].float().cpu()
            drawn = sample(last, asked["temperature"], asked["top_k"], asked["top_p"], generator)
            own = [prompt[place] if place < len(prompt) else int(id) for prompt, id in zip(prompts, drawn, strict=True)]
            following = torch.tensor(own, device="cuda")
        dist.broadcast(following, source)
        if speaks:
            say(
                last.softmax(-1),
                following.tolist(),
                [place >= len(p) and m for p, m in zip(prompts, missing, strict=True)],
            )
        for number, id in enumerate(following.tolist()):
            if place >= len(prompts[number]) and missing[number]:
                missing[number] = 0 if id == end else missing[number] - 1
        fed = following[:, None]
        if place == read:  # the prompts are through: what follows is one token a step
            began, timed = time.perf_counter(), 0
            context.enable_decode_mode()
        else:
            timed += 1
    if speaks:
        print(END + json.dumps({"seconds": time.perf_counter() - began, "tokens": timed * batch}), flush=True)


def say(shares: torch.Tensor, ids: list[int], new: list) -> None:
    """Print the tokens of those texts that got a new one."""
    for number, (row, id, is_new) in enumerate(zip(shares, ids, new, strict=True)):
        if not is_new:
            continue
        best = row.topk(min(LIKELIEST, len(row)))
        likeliest = [[int(i), round(float(p), 6)] for p, i in zip(*best, strict=True)]
        told = {"prompt": number, "id": id, "probability": round(float(row[id]), 6), "likeliest": likeliest}
        print(MARK + json.dumps(told), flush=True)


@record
def main() -> None:
    asked = json.loads(Path(sys.argv.pop(1)).read_text())
    generate(checkpoint_model.build(), asked)
    dist.barrier()
    lifetime.leave()


if __name__ == "__main__":
    main()
