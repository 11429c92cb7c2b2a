"""What torchrun runs for `after_training.py`: tokens a second of a model with random weights.

    torchrun --nproc-per-node 1 generation_ranks.py asked.json <flags of the model>

`asked.json`: texts (how many at once, several numbers), prompt and tokens (how long), vocabulary. Prints `ROW {json}`
for each: texts, program, tokens_per_second; `NOTE text` where a program cannot run here; and first `MEMORY {json}`:
bytes of the weights and the bandwidth of a copy in the device's memory, bytes a second, read and written. With
"profile" in `asked.json` it prints `STEP {json}` instead: what one step of the plain loop, one text, does on a GPU.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before Megatron is imported

import torch
import torch.distributed as dist
import torch.profiler
from megatron.core.inference.apis import MegatronLLM
from megatron.core.inference.config import InferenceConfig
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.inference.engines import StaticInferenceEngine
from megatron.core.inference.model_inference_wrappers.gpt.gpt_inference_wrapper import GPTInferenceWrapper
from megatron.core.inference.sampling_params import SamplingParams
from megatron.core.inference.text_generation_controllers.text_generation_controller import TextGenerationController

from helpers.ranks import checkpoint_model, generate

COPIED = 2**30  # bytes, on a GPU
GENERATOR = torch.Generator


class Numbers:
    """A tokenizer whose texts are numbers, as Megatron's engines ask one: random weights know no words."""

    bos, eod, vocab_size = None, 0, 97

    def tokenize(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def detokenize(self, ids) -> str:
        return " ".join(map(str, ids))

    def offsets(self, ids, text: str) -> list[int]:
        return [len(self.detokenize(ids[:end])) for end in range(len(ids))]


def on_the_processor(device=None):
    """Megatron's engines number their generator's device, and a CPU has no number."""
    return GENERATOR("cpu")


def say(mark: str, what) -> None:
    print(f"{mark} {what if isinstance(what, str) else json.dumps(what)}", flush=True)


def on_cpu() -> bool:
    return torch.empty(1, device="cuda").device.type == "cpu"


def bandwidth() -> float:
    size = COPIED // 8 if on_cpu() else COPIED
    source = torch.zeros(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size / best


def plain_loop(model, ids: list[list[int]], asked: dict) -> float:
    question = {"prompts": ids, "tokens": asked["tokens"], "end": None, "seed": 1, "vocabulary": asked["vocabulary"]}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        generate.generate(model, question | dict.fromkeys(("temperature", "top_k", "top_p")))
    told = json.loads(said.getvalue().rpartition(generate.END)[2])
    return told["tokens"] / told["seconds"]


def timed(call, texts: int, tokens: int) -> float:
    """Tokens a second of `call(count)`, which adds `count` tokens to every text; reading the prompts is not counted."""
    seconds = []
    for count in (1, tokens):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call(count)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return texts * (tokens - 1) / (seconds[1] - seconds[0])


def greedy(count: int) -> SamplingParams:
    """So many tokens, whichever they are: no token ends a text."""
    return SamplingParams(num_tokens_to_generate=count, top_k=1, termination_id=-1)


def static_engine(model, prompts: list[str], asked: dict) -> float:
    length = asked["prompt"] + asked["tokens"]
    wrapped = GPTInferenceWrapper(model, StaticInferenceContext(len(prompts), length))
    controller = TextGenerationController(wrapped, Numbers())
    engine = StaticInferenceEngine(controller, max_batch_size=len(prompts), legacy=True)

    def add(count):
        engine.generate(
            prompts, sampling_params=SamplingParams(num_tokens_to_generate=count, top_k=1, termination_id=-1)
        )

    return timed(add, len(prompts), asked["tokens"])


def dynamic_engine(model, prompts: list[str], asked: dict) -> float:
    config = InferenceConfig(
        max_sequence_length=asked["prompt"] + asked["tokens"], buffer_size_gb=4, max_requests=max(8, len(prompts))
    )
    engine = MegatronLLM(model=model, tokenizer=Numbers(), inference_config=config, use_coordinator=False)
    return timed(
        lambda count: engine.generate(
            prompts, SamplingParams(num_tokens_to_generate=count, top_k=1, termination_id=-1)
        ),
        len(prompts),
        asked["tokens"],
    )


def step(model, ids: list[list[int]], asked: dict) -> dict:
    """Of one new token: kernels and copies, the ms in which they run, and tokens/s of a first pass and of a second.

    In a second pass every length of the cache has been seen.
    """
    first, again = (plain_loop(model, ids, asked) for _ in range(2))
    device = "CPU" if on_cpu() else "CUDA"
    with torch.profiler.profile(activities=[getattr(torch.profiler.ProfilerActivity, device)]) as profiler:
        plain_loop(model, ids, asked)
    launched = [event for event in profiler.events() if event.device_type.name == device]
    busy = sum(event.time_range.elapsed_us() for event in launched) / 1e3
    count = asked["tokens"]
    speeds = {"tokens_per_second": round(first, 1), "again": round(again, 1)}
    return {"launched": round(len(launched) / count), "busy_ms": round(busy / count, 2)} | speeds


def prompts_of(texts: int, asked: dict) -> list[list[int]]:
    return [[(7 * place + 13 * text) % 97 for place in range(asked["prompt"])] for text in range(texts)]


@torch.no_grad()
def measure(asked: dict) -> None:
    model = checkpoint_model.build()
    if asked.get("profile"):
        ids = prompts_of(1, asked)
        plain_loop(model, ids, asked | {"tokens": 4})  # kernels are chosen and compiled here
        return say("STEP", step(model, ids, asked))
    if on_cpu():
        torch.Generator = on_the_processor
    weights = sum(parameter.nbytes for parameter in model.parameters())
    say("MEMORY", {"weights": weights, "bandwidth": bandwidth()})
    for texts in asked["texts"]:
        ids = prompts_of(texts, asked)
        spelled = [" ".join(map(str, one)) for one in ids]
        programs = {"plain loop": (plain_loop, ids), "static engine": (static_engine, spelled)}
        programs |= {"dynamic engine": (dynamic_engine, spelled)} if texts == asked["texts"][-1] else {}
        for name, (program, given) in programs.items():
            try:
                program(model, given, asked | {"tokens": 4})  # kernels are chosen and compiled here
                speed = program(model, given, asked)
            except Exception as error:
                say("NOTE", f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                continue
            say("ROW", {"texts": texts, "program": name, "tokens_per_second": speed})


if __name__ == "__main__":
    measure(json.loads(Path(sys.argv.pop(1)).read_text()))
    dist.destroy_process_group()
