"""What each notebook will do on a machine, and about how long."""

import json
from dataclasses import dataclass
from pathlib import Path

from helpers.machine import PROJECT, Machine
from helpers.show.arguments import checked


@dataclass(frozen=True)
class Plan:
    """How one notebook will run on this machine. `duration` is measured or says that it is not."""

    notebook: str
    here: str
    duration: str


@checked
def of(machine: Machine, hub: bool) -> tuple[Plan, ...]:
    """What each notebook will do on this machine."""
    first = machine.gpus[0] if machine.gpus else None
    memory = sum(gpu.memory_bytes for gpu in machine.gpus)
    corpus = "openwebtext-10k from the hub" if hub else "the packaged speeches (the hub does not answer)"
    if first is None:
        gpt = "GPT3-345M's architecture at a small scale, on the processor"
        split = "2 to 4 ranks on the processor, over gloo; speeds of GPUs only from recorded runs"
        llama = "the Llama-3 architecture at a small scale; FP8 on real tensors, FP8 training only from recorded runs"
    else:
        precision = "bf16" if machine.supports_bf16 else "fp16"
        gpt = f"the real GPT3-345M in {precision}" + (
            "" if first.memory_bytes > 26e9 else ", scaled to this GPU's memory"
        )
        split = f"TP on {len(machine.gpus)} GPUs over NCCL"
        if len(machine.gpus) == 1:
            split = "equality and shards on 2 ranks of the processor; speeds of several GPUs from recorded runs"
        llama = "Llama3-8B" if memory > 200e9 else "the Llama-3 architecture scaled to this machine"
        fp8 = machine.supports_fp8 and machine.transformer_engine
        llama += ", BF16 against FP8" if fp8 else ", without FP8; FP8 training from recorded runs"
    after = "a real model, SmolLM2-135M, from Hugging Face in, trained on, and out again"
    planned = "plans for machines that are not here; three small runs on two ranks to check one"
    staged = f"two stages on {'two GPUs' if len(machine.gpus) > 1 else 'the processor'}; pipelines of four as a replay"
    here = {"00": "this report and a real all-reduce", "01": corpus, "02": gpt, "03": split, "04": llama}
    shared = "two ranks from DDP to FSDP, four for the batch; speeds of GPUs from recorded runs"
    spread = "two hosts and a Slurm of two nodes, on the processor of this machine; where they cannot be, as recorded"
    here |= {"05": shared, "06": staged, "09": planned, "10": after, "11": spread}
    return tuple(
        Plan(path.stem, here[path.stem[:2]], duration(path, machine))
        for path in sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
        if path.stem[:2] in here
    )


@checked
def timed_as(machine: Machine) -> str:
    """The name under which a notebook keeps its minutes on a machine; a CPU without AVX-512 has its own."""
    return machine.kind


@checked
def duration(notebook: Path, machine: Machine) -> str:
    """Minutes of the notebook's last execution on such a machine, as the tour wrote them into it; else of another."""
    measured = json.loads(notebook.read_text())["metadata"].get("megatron_tour")
    if not measured:
        return "not measured yet"
    if (name := timed_as(machine)) in measured:
        return f"{measured[name]:.1f} min ({name})"
    for name in measured:
        if machine.gpus and name.split(" × ")[-1] == machine.gpus[0].name:
            return f"{measured[name]:.1f} min ({name})"
    alike = [name for name in measured if ("-core CPU" in name) == (machine.device == "cpu")]
    name = (alike or list(measured))[0]
    return f"{measured[name]:.1f} min ({name}; not measured on this one)"
