"""The schedule of a pipeline: which stage computed which micro-batch when, measured, replayed or drawn.

`helpers/ranks/passes.py` writes it where a recipe has `record_schedule`; `ideal` draws the one that Megatron means.
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from helpers.runs import records
from helpers.runs.pipeline_order import orders, timed
from helpers.runs.results import Results
from helpers.show import bounds, message
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.names import told

PASSES = "passes"  # in a run directory: what the ranks wrote
FOLDER = "schedules"  # beside the recorded runs of a machine
DRAWABLE = range(1, 129)  # stages, micro-batches, chunks
WARM_UP = 2  # steps left out
MEASURED, REPLAY, DRAWN = "measured", "replay", "drawn"


@dataclass(frozen=True)
class Pass:
    """One micro-batch, forward or backward, through one chunk of a stage; milliseconds from the step's first pass."""

    stage: int
    direction: str
    micro_batch: int
    chunk: int
    start: float
    end: float


@told
@dataclass(frozen=True)
class PipelineSchedule:
    """One step of a pipeline. `kind` says where its times come from:

    - "measured": training; `step` is the step, `step_ms` the whole of it, with the optimizer,
    - "replay": Megatron's schedule and its transfers between real processes, the work of a stage a timed wait,
    - "drawn": computed; every pass takes what it was said to take, and transfers nothing.
    """

    IN_WORDS = "a schedule, from runs.pipeline"

    kind: str
    name: str
    machine: str
    passes: tuple[Pass, ...]
    step: int | None = None
    step_ms: float | None = None

    @property
    def stages(self) -> int:
        return 1 + max(one.stage for one in self.passes)

    @property
    def micro_batches(self) -> int:
        return 1 + max(one.micro_batch for one in self.passes)

    @property
    def chunks(self) -> int:
        return 1 + max(one.chunk for one in self.passes)

    @property
    def span_ms(self) -> float:
        """From the first pass of any stage to the end of the last."""
        return max(one.end for one in self.passes) - min(one.start for one in self.passes)

    def busy_ms(self, stage: int) -> float:
        return sum(one.end - one.start for one in self.passes if one.stage == stage)

    @property
    def bubble(self) -> float:
        """Waiting over working, all stages together: what (P − 1) ÷ (m v) predicts for stages of one length."""
        busy = sum(self.busy_ms(stage) for stage in range(self.stages))
        return (self.stages * self.span_ms - busy) / busy

    @property
    def formula(self) -> float:
        """(P − 1) ÷ (m v): Narayanan et al. 2021, sections 2.2.1 and 2.2.2."""
        return (self.stages - 1) / (self.micro_batches * self.chunks)

    def held(self, stage: int) -> float:
        """Micro-batches, at most, that a stage has taken forward and not yet backward; a chunk of several counts as
        its share of one."""
        changes = [(one.start, 1) for one in self.passes if one.stage == stage and one.direction == "forward"]
        changes += [(one.end, -1) for one in self.passes if one.stage == stage and one.direction == "backward"]
        held = most = 0
        for _, change in sorted(changes):
            held += change
            most = max(most, held)
        return most / self.chunks


@checked
def of_run(run: Results, step: int | None = None) -> PipelineSchedule:
    """The schedule of a run that recorded it: of one step, or of the fastest after the first two, the least disturbed.

    Raises:
        FileNotFoundError: it did not record any.
        ValueError: it has no such step.
    """
    folder = run.path / PASSES
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{run.headline}. It has no {PASSES}/: train it with recipe.with_(record_schedule=True)."
        )
    steps = _steps(folder)
    if step is None:
        late = {number: lines for number, lines in steps.items() if number > WARM_UP} or steps
        lengths = {number: _length(lines) for number, lines in late.items()}
        step = min(lengths, key=lengths.__getitem__)
    if step not in steps:
        raise ValueError(f"step={step}: {run.headline}. It recorded the passes of steps 1 to {max(steps)}.")
    lines = steps[step]
    name = run.recipe.name if hasattr(run, "recipe") else run.path.name
    return PipelineSchedule(MEASURED, name, run.machine, _passes(lines), step, 1e3 * _length(lines))


@checked
def work_ms(run: Results) -> list[float]:
    """How long each stage of a run computes in a step, forward and backward, undisturbed.

    Each kind of pass counts as long as the fastest tenth of its kind took at most, in all steps but the first two: what
    else the machine did meanwhile makes a pass longer, never shorter.

    Raises:
        FileNotFoundError: the run recorded no schedule.
    """
    steps = sorted(_steps(_folder(run)))
    several = [of_run(run, step) for step in steps[WARM_UP:] or steps]
    found: dict[tuple, list[float]] = {}
    for one in (one for schedule in several for one in schedule.passes):
        found.setdefault((one.stage, one.direction, one.chunk), []).append(one.end - one.start)
    count, work = several[0].micro_batches, [0.0] * several[0].stages
    for (stage, *_), lengths in found.items():
        work[stage] += count * sorted(lengths)[len(lengths) // 10]
    return work


def replayed(folder: Path, name: str) -> PipelineSchedule:
    """The schedule of a replay, as `helpers/ranks/pipeline_replay.py` left it: the last of its rounds."""
    steps = _steps(folder)
    step = max(steps)
    return PipelineSchedule(REPLAY, name, "", _passes(steps[step]), step)


@checked
def bubbles(schedules: Iterable[PipelineSchedule]):
    """One row a schedule (pandas): milliseconds from first to last pass, the bubble found and (P − 1) ÷ (m v)."""
    import pandas as pd

    rows = [
        {
            "schedule": f"{one.name} ({one.kind})",
            "P": one.stages,
            "m": one.micro_batches,
            "v": one.chunks,
            "ms": round(one.span_ms, 1),
            "ms a micro-batch": round(one.span_ms / one.micro_batches, 1),
            "waiting ÷ working": f"{one.bubble:.1%}",
            "(P − 1) ÷ (m v)": f"{one.formula:.1%}",
            "most held, stage 0": f"{one.held(0):g}",
        }
        for one in schedules
    ]
    if not rows:
        raise ValueError("bubbles([]): it takes schedules, such as runs.pipeline.ideal(4, 8), one or more.")
    return pd.DataFrame(rows).set_index("schedule")


@checked
def ideal(
    pipeline_parallel: Annotated[int, DRAWABLE],
    micro_batches: Annotated[int, DRAWABLE],
    virtual_pipeline_chunks: Annotated[int, DRAWABLE] = 1,
    forward_ms: Annotated[float, bounds.SECONDS] = 1.0,
    backward_ms: Annotated[float, bounds.SECONDS] = 2.0,
) -> PipelineSchedule:
    """The schedule that Megatron means, with stages of one length: a chunk takes its share of both times.

    Raises:
        ValueError: the interleaved schedule cannot take so many micro-batches.
    """
    v = virtual_pipeline_chunks
    if v > 1 and micro_batches % pipeline_parallel:
        why = f"the interleaved schedule takes micro-batches in groups of {pipeline_parallel}, one for each stage"
        raise ValueError(f"{micro_batches} micro-batches in {v} chunks: {why}.")
    order = orders(pipeline_parallel, micro_batches, v)
    spent = {"forward": forward_ms / v, "backward": backward_ms / v}
    placed = timed(order, v, lambda stage, work: spent[work.direction])
    name = f"P={pipeline_parallel}, m={micro_batches}" + f", v={v}" * (v > 1)
    return of_passes(DRAWN, name, "", placed)


@checked
def as_meant(schedule: PipelineSchedule) -> PipelineSchedule:
    """The ideal of a schedule: the same passes, each as long as the mean of its direction, and no time between them."""
    spent = {
        direction: statistics.mean(one.end - one.start for one in schedule.passes if one.direction == direction)
        for direction in ("forward", "backward")
    }
    v = schedule.chunks
    return ideal(schedule.stages, schedule.micro_batches, v, spent["forward"] * v, spent["backward"] * v)


def of_passes(kind: str, name: str, machine: str, placed: Iterable[tuple]) -> PipelineSchedule:
    """From (stage, direction, micro-batch, chunk, start, end), times in milliseconds from anywhere."""
    placed = list(placed)
    first = min(start for *_, start, _ in placed)
    passes = sorted((Pass(*what, start - first, end - first) for *what, start, end in placed), key=_by_time)
    return PipelineSchedule(kind, name, machine, tuple(passes))


def record(run, name: str, recorded_dir: Path = records.RECORDED) -> Path:
    """Keep a run's schedule for readers elsewhere, as `<recorded>/<label>/schedules/<name>.json`."""
    path = recorded_dir / run.environment["machine"]["label"] / FOLDER / f"{name}.json"
    return records.keep(path, dataclasses.asdict(of_run(run)) | {"name": name})


@checked
def recorded(machine_label: str, name: str) -> PipelineSchedule | Absence:
    """The recorded schedule called `name` of a machine ("h100-80gb-hbm3"); a sentence where there is none."""
    path = records.folder_of(machine_label) / FOLDER / f"{name}.json"
    if not os.path.isfile(path):
        return message.nothing_recorded(f"schedule of {name}")

    def schedule(content: dict) -> PipelineSchedule:
        return PipelineSchedule(**content | {"passes": tuple(Pass(**one) for one in content["passes"])})

    return records.of_file(path, schedule, "pipeline.recorded, {}", "runs.pipeline.record(run, name)")


def _folder(run: Results) -> Path:
    folder = run.path / PASSES
    if not folder.is_dir():
        how = "train it with recipe.with_(record_schedule=True)"
        raise FileNotFoundError(f"{run.headline}. It has no {PASSES}/: {how}.")
    return folder


def _steps(folder: Path) -> dict[int, list[dict]]:
    """The lines of each step, of the first rank of each stage; only steps that every one of them has whole."""
    stages: dict[int, dict[int, dict]] = {}
    for path in sorted(folder.glob("rank-*.jsonl"), key=lambda path: int(path.stem.partition("-")[2])):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        if lines:
            stages.setdefault(lines[0]["stage"], {line["step"]: line for line in lines})
    common = set.intersection(*(set(lines) for lines in stages.values())) if stages else set()
    if not common:
        raise ValueError(f"{folder} holds no whole step of all stages.")
    return {step: [lines[step] for lines in stages.values()] for step in sorted(common)}


def _length(lines: list[dict]) -> float:
    return max(line["end"] for line in lines) - min(line["start"] for line in lines)


def _passes(lines: list[dict]) -> tuple[Pass, ...]:
    placed = [
        (line["stage"], direction, micro_batch, chunk, 1e3 * start, 1e3 * end)
        for line in lines
        for direction, chunk, micro_batch, start, end in line["passes"]
    ]
    return of_passes(MEASURED, "", "", placed).passes


def _by_time(one: Pass) -> tuple:
    return one.start, one.stage
