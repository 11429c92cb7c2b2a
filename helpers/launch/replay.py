"""Pipelines of more stages than there are cores: `replay_pipeline`."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.machine import CPU
from helpers.processes import programs
from helpers.runs import pipeline
from helpers.show.arguments import checked
from helpers.show.numbers import as_typed

MOST_STAGES = 8  # each is a process, with all of Megatron imported
KNOWN = ("micro_batches", "virtual_pipeline_chunks", "forward_ms", "backward_ms", "name")
USUAL = {"forward_ms": 20.0, "backward_ms": 40.0}


@checked
def replay_pipeline(
    pipeline_parallel: int, *settings: Mapping[str, Any], timeout_seconds: float = 300
) -> list[pipeline.PipelineSchedule]:
    """Replay pipelines: Megatron's schedule and transfers between real processes, the work of a stage a timed wait.

        launch.replay_pipeline(4, {"micro_batches": 8}, {"micro_batches": 8, "virtual_pipeline_chunks": 2})

    One start of `pipeline_parallel` processes runs all of them. It trains nothing, and its times are no model's: what
    it shows is in which order Megatron lets the stages work, and who waits for whom (`helpers/ranks/pipeline_replay`).

    Args:
        settings: of each pipeline `micro_batches`, `virtual_pipeline_chunks` (1), and how long a stage takes for one
            micro-batch, `forward_ms` (20) and `backward_ms` (40): a number, or one for each stage; and a `name`.

    Raises:
        ValueError: Megatron has no schedule for one of them.
        TrainingFailed: a rank failed, or `timeout_seconds` were not enough.
    """
    if not 2 <= pipeline_parallel <= MOST_STAGES:
        raise ValueError(
            f"replay_pipeline({pipeline_parallel}): a pipeline of 2 to {MOST_STAGES} stages, each a process."
        )
    jobs = [_job(pipeline_parallel, dict(setting)) for setting in settings]
    if not jobs:
        raise ValueError('replay_pipeline needs a pipeline to replay: {"micro_batches": 8}, say.')
    with tempfile.TemporaryDirectory() as folder:
        words = (folder, json.dumps(jobs))
        programs.ranks("pipeline_replay", pipeline_parallel, *words, machine=CPU, timeout_seconds=timeout_seconds)
        return [pipeline.replayed(Path(folder) / str(number), job["name"]) for number, job in enumerate(jobs)]


def _job(stages: int, setting: dict) -> dict:
    if unknown := sorted(setting.keys() - set(KNOWN)):
        raise ValueError(f"A replay has no {', '.join(unknown)}. There are: {', '.join(KNOWN)}.")
    count, chunks = setting.get("micro_batches"), setting.get("virtual_pipeline_chunks", 1)
    for name, value in (("micro_batches", count), ("virtual_pipeline_chunks", chunks)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 64:
            raise ValueError(f"{name}={as_typed(value)}: a whole number from 1 to 64.")
    if chunks > 1 and count % stages:
        why = f"The interleaved schedule takes micro-batches in groups of {stages}, one for each stage"
        raise ValueError(f"micro_batches={count} with virtual_pipeline_chunks={chunks}: {why}.")
    spent = {name: _each(name, setting.get(name, usual), stages) for name, usual in USUAL.items()}
    shown = setting.get("name", f"P={stages}, m={count}" + f", v={chunks}" * (chunks > 1))
    return {"micro_batches": count, "chunks": chunks, "name": str(shown)} | spent


def _each(name: str, given, stages: int) -> list[float]:
    each = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * stages
    if len(each) != stages or not all(isinstance(one, int | float) and 0 < one <= 1000 for one in each):
        raise ValueError(
            f"{name}={as_typed(given)}: milliseconds up to 1,000, one number or one for each of {stages} stages."
        )
    return [float(one) for one in each]
