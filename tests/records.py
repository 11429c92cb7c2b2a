"""Made-up runs and records: what a recipe would have left on a machine, as fast as the test says."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from machines import TWO_H200

from helpers import recipes, runs
from helpers.corpus import Corpus
from helpers.processes import control

RECIPE = recipes.gpt3_345m().with_(tensor_parallel=2, micro_batch_size=8, global_batch_size=8)
TOKENS_PER_STEP = 8 * 1024
DATA = Corpus(
    "text", Path("corpus_text_document"), documents=10, tokens=1000, bytes=4000, token_dtype="uint16", vocab_size=50257,
    max_token_id=50256, eod_id=50256, tokenizer="gpt2", tokenizer_path=Path("tokenizer"), fingerprint="abc",
    source_note="nowhere",
)  # fmt: skip


def write_events(folder, scalars: dict[str, dict[int, float]], suffix: str = ".one"):
    """One event file, written by TensorBoard's own writer."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for tag, values in scalars.items():
        for step, value in values.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))
    writer.close()
    return next(folder.glob(f"*{suffix}"))


def curves(steps=20, seconds=0.5, start=10.8) -> dict[str, dict[int, float]]:
    """A run whose first three steps are slow."""
    return {
        "lm loss": {step: start - 0.1 * step for step in range(1, steps + 1)},
        "lm loss vs samples": {8 * step: start for step in range(1, steps + 1)},
        "iteration-time": {step: (5.0 if step < 5 else seconds) for step in range(2, steps + 1)},
        "mem-max-allocated-bytes": {step: 1e9 + step for step in range(1, steps + 1)},
    }


def make_run(path, recipe=RECIPE, machine=TWO_H200, scalars=None, state="finished"):
    path.mkdir(parents=True)
    (path / "recipe.json").write_text(json.dumps(asdict(recipe) | {"corpus": "sotu"}))
    described = asdict(machine) | {"name": machine.name, "label": machine.label}
    (path / "environment.json").write_text(json.dumps({"date": "2026-11-23T08:00:00+0000", "machine": described}))
    (path / "command.sh").write_text(f"cd {path}\nexec torchrun")
    write_events(path / "tensorboard", scalars if scalars is not None else curves())
    control.write_status(path, state=state, started=time.time() - 60, wall_seconds=60.0)
    return runs.load(path)


def recorded(folder, recipe, seconds: float, peak: float = 1e9):
    """`recipe` as a run recorded on H200s: `seconds` a step, `peak` bytes of memory."""
    scalars = curves(seconds=seconds)
    scalars["mem-max-allocated-bytes"] = dict.fromkeys(scalars["lm loss"], peak)
    machine = replace(TWO_H200, gpus=TWO_H200.gpus[:1] * recipe.layout.world_size)
    run = make_run(folder / recipe.name / "live", recipe, machine, scalars)
    return runs.read_result(runs.record(run, recipe.name, folder / "recorded"))
