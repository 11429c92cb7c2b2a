"""What a learner would otherwise use on one GPU: GPT-2 of Hugging Face transformers at GPT3-345M's sizes. Run by hand:

    python tests/benchmarks/transformers_gpt2.py --out notebooks/recorded/h200/baselines

354,871,296 parameters, bf16 autocast over fp32 weights, PyTorch's scaled dot product attention, `torch.compile`, fused
AdamW, gradient clipping: the same batch, sequence, dropout, schedule and packed tokens as `recipes.gpt3_345m()`. Prints
the median tokens/s after warm-up and writes them, with all step times and losses, as one JSON file. `--smoke` is two
layers on a CPU: a rehearsal of this program, not a measurement.
"""

import argparse
import importlib.metadata
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import corpus, recipes
from helpers.machine import driver_versions, here
from helpers.recipes import accounting

WARM_UP = 10


def batches(recipe, steps: int, device: str):
    """`steps` batches of [global_batch_size, sequence_length + 1] token ids, cut from the corpus as it lies."""
    data = corpus.prepare("sotu", tokenizer=recipe.tokenizer)
    tokens = torch.as_tensor(data.open_index().token_ids().astype("int64"))
    length, size = recipe.model.sequence_length + 1, recipe.batch.global_batch_size
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    for step in range(steps):
        yield rows[[(step * size + i) % len(rows) for i in range(size)]].to(device)


def model_of(recipe) -> GPT2LMHeadModel:
    m = recipe.model
    config = GPT2Config(
        vocab_size=m.vocab_size, n_positions=m.sequence_length, n_embd=m.hidden_size, n_layer=m.num_layers,
        n_head=m.num_attention_heads, resid_pdrop=m.dropout, embd_pdrop=m.dropout, attn_pdrop=m.dropout,
        activation_function="gelu_new", attn_implementation="sdpa",
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def train(recipe, steps: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds and loss of each step."""
    s = recipe.schedule
    model = model_of(recipe).to(device)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(accounting.parameter_counts(recipe.model).values()), f"another model: {count:,} parameters"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=s.lr, betas=(0.9, s.adam_beta2), weight_decay=s.weight_decay, fused=device == "cuda"
    )
    compiled = torch.compile(model)
    seconds, losses = [], []
    for rows in batches(recipe, steps, device):
        start = time.perf_counter()
        total = 0.0
        for micro in rows.split(recipe.batch.micro_batch_size):
            with torch.autocast(device, dtype=torch.bfloat16):
                logits = compiled(micro[:, :-1]).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), micro[:, 1:].flatten())
            share = len(micro) / len(rows)
            (loss * share).backward()
            total += loss.item() * share
        torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append(total)
    return seconds, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON file")
    parser.add_argument("--steps", type=int, default=30 + WARM_UP)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    recipe = recipes.gpt3_345m().with_(dropout=options.dropout)
    if options.smoke:
        recipe = recipe.scaled_to("cpu").with_(num_layers=2, hidden_size=64, sequence_length=64)
    device = here().device
    torch.set_float32_matmul_precision("high")
    seconds, losses = train(recipe, options.steps, device)
    tokens = recipe.batch.global_batch_size * recipe.model.sequence_length
    speed = tokens / statistics.median(seconds[min(WARM_UP, len(seconds) // 2) :])
    content = {
        "program": "transformers GPT2LMHeadModel, bf16 autocast, SDPA, torch.compile, fused AdamW",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": here().name,
        "driver": (driver_versions() or [None])[0],
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "dropout": options.dropout,
        "batch": [recipe.batch.micro_batch_size, recipe.batch.global_batch_size, recipe.model.sequence_length],
        "tokens_per_second": speed,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "seconds": seconds,
        "losses": losses,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / f"transformers_gpt2_dropout_{options.dropout:g}.json"
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{speed:,.0f} tokens/s, loss {losses[0]:.3f} → {losses[-1]:.3f}: {target}")


if __name__ == "__main__":
    main()
