"""Exercises about layouts, checked by the planner; each answers in words, never with a traceback."""

from dataclasses import dataclass, fields, replace
from functools import cache

from helpers import planner, recipes
from helpers.lessons.exercises import told
from helpers.machine import Machine, described
from helpers.planner.plans import Plan
from helpers.recipes import Layout, Recipe, preflight
from helpers.recipes.settings import Batch, Speed
from helpers.runs.timeline import IDLE, Timeline
from helpers.show import numbers
from helpers.show.arguments import checked
from helpers.show.message import Absence, Message
from helpers.show.numbers import as_typed

NEAR_BEST = 0.05
MAY_CHANGE = {field.name for part in (Layout, Batch, Speed) for field in fields(part)} - {"global_batch_size"}
IN_BF16 = {"fp8_format": None, "fp8_param_gather": False}


@dataclass(frozen=True)
class Job:
    """A recipe that is to train on a machine. `wanted`: how many times as fast a bad layout is to become."""

    title: str
    recipe: Recipe
    machine: Machine
    wanted: float = 1.0


def _llama(whole: Recipe | None = None, **changes) -> Recipe:
    return replace(whole or recipes.llama3_8b(), stock=False).with_(cuda_graph=False, **changes)


def _gpt_13b() -> Recipe:
    whole = replace(recipes.gpt3_857m(), name="gpt_13b", stock=False)
    return whole.with_(
        num_layers=40,
        hidden_size=5120,
        num_attention_heads=40,
        dropout=0.0,
        global_batch_size=128,
        cross_entropy_fusion="te",
        distributed_optimizer=True,
        overlap_communication=True,
    )


@cache
def jobs() -> dict[int, Job]:
    """Three models, three machines."""
    eight = described("8 × H100 80GB")
    return {
        1: Job(
            "Llama3-8B in bf16, samples of 32,768 tokens, 16 a step, on 8 H100",
            _llama(sequence_length=32768, global_batch_size=16, **IN_BF16),
            eight,
        ),
        2: Job(
            "a GPT of 13B, 128 samples of 2,048 tokens a step, on two nodes of 8 A100 with 40 GB, 100 Gbit/s a GPU",
            _gpt_13b(),
            described("8 × A100 40GB", nodes=2, between_nodes_gbps=100),
        ),
        3: Job(
            "Llama3-70B in FP8, 256 samples of 8,192 tokens a step, on 8 nodes of 8 H100, 400 Gbit/s a GPU",
            _llama(recipes.llama3_70b(), global_batch_size=256),
            described("8 × H100 80GB", nodes=8, between_nodes_gbps=400),
        ),
    }


@cache
def bad_layouts() -> dict[int, Job]:
    """Three layouts that run, and waste most of the machine."""
    eight = described("8 × H100 80GB")
    shared = {"distributed_optimizer": True}
    return {
        1: Job(
            "Llama3-8B on two nodes of 8 H100, TP 16",
            _llama(
                global_batch_size=128,
                layout=Layout(16, tensor_parallel=16, sequence_parallel=True, **shared),
            ),
            described("8 × H100 80GB", nodes=2, between_nodes_gbps=400),
            5,
        ),
        2: Job(
            "Llama3-8B, samples of 2,048 tokens, on 8 H100, PP 8 with micro-batches of 8",
            _llama(
                global_batch_size=64,
                sequence_length=2048,
                micro_batch_size=8,
                layout=Layout(8, pipeline_parallel=8, **shared),
            ),
            eight,
            1.5,
        ),
        3: Job(
            "Llama3-8B on 8 H100, DP 8, every layer recomputed",
            _llama(global_batch_size=128, recompute="full", layout=Layout(8, **shared)),
            eight,
            1.25,
        ),
    }


@told
def show(number: int, bad: bool = False):
    """The plan of a job as it stands, or of a bad layout: `planner.predict` of its recipe and machine."""
    job = _find(number, bad_layouts() if bad else jobs())
    return job if isinstance(job, Message) else planner.predict(job.recipe, job.machine)


@told
def plan(number: int, changes) -> Message:
    """Check changes (a dict for `with_`) that lay a job out: right within 5 % of the best that the planner finds."""
    found = _answered(f"job {number}", number, jobs(), changes)
    if isinstance(found, Message):
        return found
    best = _best(number)
    share = found.tokens_per_second_per_gpu / best.tokens_per_second_per_gpu
    said = f"job {number}: {found.name} makes {share:.0%} of the best, {found.gigabytes:.0f} GB a GPU"
    if share >= 1 - NEAR_BEST:
        return Message("right", f"{said}. The best: {best.name}.")
    return Message("wrong", f"{said}. It loses by {found.why_slower(best)}.")


@told
def repair(number: int, changes) -> Message:
    """Check changes (a dict for `with_`) that mend a bad layout: how many times as fast it becomes."""
    found = _answered(f"bad layout {number}", number, bad_layouts(), changes)
    if isinstance(found, Message):
        return found
    job = bad_layouts()[number]
    before = planner.predict(job.recipe, job.machine)
    times = before.step.seconds / found.step.seconds
    said = f"bad layout {number}: {numbers.duration_ms(before.step.seconds)} become "
    said += f"{numbers.duration_ms(found.step.seconds)}, {times:.2g} times as fast"
    if times < job.wanted:
        part = max(found.step.parts, key=found.step.parts.get)
        return Message("wrong", f"{said}; {job.wanted:g} is there. Now most goes to {part}.")
    part = max(before.step.parts, key=lambda name: before.step.parts[name] - found.step.parts[name])
    return Message("right", f"{said}: {part} was it.")


def _answered(name: str, number: int, among: dict[int, Job], changes):
    """The plan of a job with a learner's changes; a message where there is none."""
    job = _find(number, among)
    if isinstance(job, Message):
        return job
    if changes is ... or changes is None:
        task = f"Make it {job.wanted:g} times as fast." if job.wanted > 1 else "Put a dict of changes where the … is."
        return Message("asked", f"{name}: {job.title}. {task}")
    return _tried(name, job, changes)


def _find(number: int, among: dict[int, Job]) -> Job | Message:
    if number in among:
        return among[number]
    return Message("wrong", f"There is no number {number}: there are {', '.join(map(str, among))}.")


@cache
def _best(number: int):
    job = jobs()[number]
    return planner.search(job.recipe, job.machine).best


def _tried(name: str, job: Job, changes):
    """The plan of a job with changes, or what they are refused for."""
    if not isinstance(changes, dict):
        return Message("wrong", f'{name}: a dict of changes for with_, such as {{"tensor_parallel": 2}}.')
    if other := sorted(changes.keys() - MAY_CHANGE):
        known = "layout, micro-batch and recomputation may change"
        return Message("wrong", f"{name}: {', '.join(map(str, other))} stays as it is; {known}.")
    changed = {"processes": len(job.machine.gpus)} | changes
    try:
        recipe = job.recipe.with_(**changed)
    except TypeError as unknown:
        return Message("wrong", f"{name}: {unknown}")
    errors = [found for found in preflight.check(recipe, None, job.machine) if found.severity == "error"]
    if errors:
        return Message("wrong", f"{name}: {errors[0].why} {errors[0].change}")
    return planner.predict(recipe, job.machine)


# ---- what a plan got wrong ----------------------------------------------------------------------------------------
BESIDE = {  # a category of a timeline -> the parts of a plan that it holds
    "matrix products": ("GEMMs",),
    "attention": ("attention",),
    "loss": ("loss",),
    "norms, elementwise": ("norms, elementwise", "FP8 casts"),
    "optimizer": ("optimizer",),
    "collectives": ("TP collectives", "CP exchange", "EP all-to-all", "p2p", "DP collectives"),
    IDLE: ("launching", "pipeline bubble"),
}


@checked
def beside(timeline: Timeline | Absence, plan: Plan) -> object:
    """A recorded step beside its plan, part by part: milliseconds measured, planned, and their difference."""
    import pandas as pd

    if isinstance(timeline, Absence):
        return timeline
    rows = []
    for category, parts in BESIDE.items():
        measured, planned = timeline.milliseconds.get(category, 0.0), sum(1e3 * plan.step.parts[part] for part in parts)
        rows.append((category, round(measured, 1), round(planned, 1), round(planned - measured, 1)))
    table = pd.DataFrame(rows, columns=["part", "measured ms", "planned ms", "difference"])
    return table.set_index("part")


@told
def wrong_part(timeline: Timeline | Absence, plan: Plan, answer) -> Message:
    """Check the part of a recorded step that its plan got most wrong, in milliseconds."""
    name = "the part that the plan got wrong"
    if isinstance(timeline, Absence):
        return Message("plain", str(timeline))
    if answer is ... or answer is None:
        return Message("asked", f"{name}: one of {', '.join(BESIDE)}.")
    if not isinstance(answer, str) or answer not in BESIDE:
        return Message("wrong", f"{name}: {as_typed(answer)} is none of {', '.join(BESIDE)}.")
    off = beside(timeline, plan)["difference"]
    worst = off.abs().idxmax()
    if answer != worst:
        return Message("wrong", f"{name}: {answer} is off by {off[answer]:+.0f} ms. Another one is off by more.")
    return Message("right", f"{name}: {worst}, {off[worst]:+.0f} ms of {timeline.step_ms:,.0f}.")
