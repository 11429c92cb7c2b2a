"""What notebook 06 teaches with: stages and layouts side by side, a schedule to write and two to mend."""

import re
from collections.abc import Mapping

from IPython.display import display

from helpers import launch, plots, recipes
from helpers.corpus import Blend, Corpus
from helpers.lessons.exercises import told
from helpers.machine import Machine
from helpers.planner.plans import predict, rates_of
from helpers.recipes import Recipe, accounting
from helpers.recipes.accounting.activations import micro_batches_held
from helpers.recipes.costs.stage import layer, stage
from helpers.runs import one_rank, pipeline
from helpers.runs.pipeline import PipelineSchedule
from helpers.runs.pipeline_order import Stuck, Work, timed
from helpers.runs.results import Results
from helpers.show.arguments import checked
from helpers.show.message import Message


# ---- the stages of a pipeline, side by side -----------------------------------------------------------------------
@checked
def stages(recipe: Recipe, machine: Machine, measured: Mapping[int, object] | None = None):
    """One row a pipeline stage (pandas): what it holds, memory in GB and milliseconds for a micro-batch, planned.

    Args:
        measured: stage → that rank measured alone (`launch.one_of_many`), or recorded; others are left out.

    Raises:
        PreflightError: the layout is none of that model, or of that machine.
    """
    import pandas as pd

    recipes.preflight.require(recipe, machine)
    layout, rates = recipe.layout, rates_of(machine)
    last = layout.pipeline_parallel - 1
    count = recipe.micro_batches
    each = layer(recipe, machine, rates)
    found = {one: alone for one, alone in (measured or {}).items() if isinstance(alone, one_rank.OneRank)}
    rows = {}
    for rank in range(layout.pipeline_parallel):
        parts = accounting.memory(recipe, machine, rank)
        states = sum(parts[part] for part in ("weights", "gradients", "optimizer"))
        rows[rank] = {
            "layers": f"{layout.layers(recipe.model.num_layers, rank):g}"
            + " + E" * (rank == 0)
            + " + L" * (rank == last),
            "parameters": f"{sum(accounting.rank_parameters(recipe.model, layout, rank)) / 1e9:.2f} G",
            "micro-batches held": f"{micro_batches_held(layout, count, rank):g}",
            "states GB": round(states / 1e9, 1),
            "activations GB": round(parts["activations"] / 1e9, 1),
            "ms a micro-batch": round(1e3 * stage(recipe, machine, rates, rank, each).busy, 1),
        }
        if rank in found:
            alone = found[rank]
            rows[rank] |= {"tensors GB, measured": f"{alone.peak_bytes / 1e9:.1f}"}
            if alone.busy_milliseconds:
                rows[rank] |= {"ms, measured": f"{alone.busy_milliseconds / count:.1f}"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stage").fillna("–")


@checked
def compare(recipe: Recipe, machine: Machine, *changes: Mapping[str, object]):
    """One row a layout (pandas), planned: m, the share of the step that is bubble, the memory and the step.

    Args:
        changes: what `recipe.with_` takes, a dict a layout.

    Raises:
        PreflightError: a layout is none of that model, or of that machine.
    """
    import pandas as pd

    rows = {}
    for change in changes:
        changed = recipe.with_(**change)
        plan, layout, m = predict(changed, machine), changed.layout, changed.micro_batches
        fill = layout.pipeline_parallel - 1
        first, last = (sum(accounting.memory(changed, machine, rank).values()) for rank in (0, fill))
        rows[layout.name] = {
            "m": m,
            "bubble of the step": f"{fill / (m * layout.virtual_pipeline_chunks + fill):.0%}",
            "first stage GB": f"{first / 1e9:.0f}",
            "last stage GB": f"{last / 1e9:.0f}",
            "step, planned": f"{plan.step.seconds:.1f} s",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layout")


@checked
def differences(reference: Results, runs: Mapping[str, Results]):
    """One row a run (pandas): the largest difference of its losses from those of a reference, in nats a token."""
    import pandas as pd

    rows = {name: f"{float((run.losses - reference.losses).abs().max()):.1e}" for name, run in runs.items()}
    return pd.Series(rows, name="largest difference").rename_axis(f"beside {reference.recipe.layout.name}").to_frame()


# ---- the puzzle: a schedule to write -------------------------------------------------------------------------------
STAGES, MICRO_BATCHES, BACKWARD = 4, 8, 2  # a forward takes one slot
IDLE, HELD = 36, 4
WORD = re.compile(r"([FB])(\d{1,2})")


@told
def puzzle(rows, idle: int = IDLE, held: int = HELD) -> Message:
    """Check a schedule of 4 stages and 8 micro-batches, and draw it.

    `rows`: for each stage its order in words, "F1 F2 B1 …": F a forward, one slot, B a backward, two slots. A stage
    takes its list in order, each as soon as what it needs is there. Right: at most `idle` slots in which a stage waits,
    all stages together, from the first pass to the last, and at most `held` micro-batches on any stage.
    """
    name = "the schedule"
    if rows is ... or rows is None:
        task = f"at most {idle} idle slots and {held} micro-batches held"
        return Message("asked", f'{name}: a list of {STAGES} texts, such as "F1 F2 B1 F3 …", with {task}.')
    order = _order(rows)
    if isinstance(order, str):
        return Message("wrong", f"{name}: {order}")
    try:
        drawn = _placed("yours", order)
    except Stuck as stuck:
        return Message("wrong", f"{name}: {_deadlock(stuck)}")
    display(plots.pipeline_schedule(drawn))
    waits = round(STAGES * drawn.span_ms - sum(drawn.busy_ms(one) for one in range(STAGES)))
    most = max(drawn.held(one) for one in range(STAGES))
    said = f"{name}: {waits} idle slots, and at most {most:g} micro-batches held"
    if waits > idle:
        return Message("wrong", f"{said}. {idle} are enough. Which stage waits although a forward is there to take?")
    if most > held:
        return Message("wrong", f"{said}. {held} are enough: a backward frees one, so take it as soon as it can run.")
    return Message("right", f"{said}. Megatron's own has {round(_megatrons_idle())} and {STAGES}.")


def _order(rows) -> list[list[Work]] | str:
    """What a learner wrote, as passes; a sentence where it is no schedule."""
    if not isinstance(rows, list | tuple) or len(rows) != STAGES or not all(isinstance(row, str) for row in rows):
        return f'a list of {STAGES} texts, one for each stage, such as "F1 F2 B1 …".'
    wanted = {(way, number) for way in "FB" for number in range(1, MICRO_BATCHES + 1)}
    order = []
    for number, row in enumerate(rows):
        found = [WORD.fullmatch(word) for word in row.upper().split()]
        if not all(found):
            word = row.split()[found.index(None)]
            return f"stage {number} has {word[:20]!r}. Write F1 to F{MICRO_BATCHES} and B1 to B{MICRO_BATCHES}."
        words = [(one[1], int(one[2])) for one in found]
        if len(words) != len(set(words)):
            twice = next(word for word in words if words.count(word) > 1)
            return f"stage {number} has {twice[0]}{twice[1]} twice."
        if odd := sorted(set(words) ^ wanted):
            way, count = odd[0]
            return f"stage {number} {'has no' if odd[0] in wanted else 'has an odd'} {way}{count}."
        order.append([Work({"F": "forward", "B": "backward"}[way], count - 1) for way, count in words])
    return order


def _placed(name: str, order: list[list[Work]]) -> PipelineSchedule:
    slots = {"forward": 1, "backward": BACKWARD}
    return pipeline.of_passes(pipeline.DRAWN, name, "", timed(order, 1, lambda _, work: slots[work.direction]))


def _deadlock(stuck: Stuck) -> str:
    waits = [
        f"stage {number} waits to take {'F' if work.direction == 'forward' else 'B'}{work.micro_batch + 1}"
        for number, work in stuck.waits.items()
    ]
    return f"nobody can go on: {'; '.join(waits)}. A deadlock: on GPUs this hangs until NCCL gives up."


def _megatrons_idle() -> float:
    drawn = pipeline.ideal(STAGES, MICRO_BATCHES, 1, 1, BACKWARD)
    return STAGES * drawn.span_ms - sum(drawn.busy_ms(one) for one in range(STAGES))


# ---- exercises that are checked by running -------------------------------------------------------------------------
MAY_MOVE = {"pipeline_layout", "account_for_embedding", "account_for_loss"}
CLOSER = 0.7  # of what the slowest stage works beyond the mean, at most so much may be left
SAME_LOSS = 1e-5


@told
def balance(run: Results, changes, data: Corpus | Blend | None, machine: Machine | None = None) -> Message:
    """Check changes (a dict for `with_`) that even out two stages of which the last has three quarters of the layers.

    Trains `run`'s recipe twice, with that split and with the changes, one right after the other. Right: the slowest
    stage works less beyond the mean of the stages than before, by a third at least, and the losses are the same.
    """
    name = "even stages"
    uneven = _three_quarters(run.recipe.model.num_layers)
    if changes is ... or changes is None:
        asked = f"it begins with {uneven}. A dict of {', '.join(sorted(MAY_MOVE))}"
        return Message("asked", f"{name}: {asked}.")
    if not isinstance(changes, dict) or changes.keys() - MAY_MOVE:
        return Message("wrong", f"{name}: a dict with some of {', '.join(sorted(MAY_MOVE))}; all else stays.")
    try:
        tried = run.recipe.with_(**changes, name="even_stages")
        recipes.preflight.require(tried, machine)
        begun = run.recipe.with_(pipeline_layout=uneven, name="uneven_stages")
        first = launch.train(begun, data, fresh=True, machine=machine)
        changed = launch.train(tried, data, fresh=True, machine=machine)
    except recipes.preflight.PreflightError as refused:
        problem = refused.problems[0]
        return Message("wrong", f"{name}: {problem.asked}. {problem.why} {problem.change}")
    apart = float((changed.losses - first.losses).abs().max())
    if apart > SAME_LOSS:
        return Message("wrong", f"{name}: the losses are {apart:.1g} apart. Whatever moved, it was more than layers.")
    before, after = _beyond(pipeline.work_ms(first)), _beyond(pipeline.work_ms(changed))
    said = f"{name}: the slowest stage works {after:.0%} longer than the mean, before {before:.0%}. {_works(changed)}"
    return Message("right" if after <= CLOSER * before else "wrong", f"{said}; losses within {apart:.1g}.")


def _three_quarters(layers: int) -> str:
    """A layout of two stages, the first with a quarter of the layers."""
    few = max(1, layers // 4)
    return f"Et*{few}|t*{layers - few}L"


def _beyond(work: list[float]) -> float:
    return max(work) * len(work) / sum(work) - 1


def _works(run: Results) -> str:
    """ "A micro-batch takes stage 0 36.8 ms, stage 1 51.8 ms"."""
    count = run.recipe.micro_batches
    each = [f"stage {stage} {work / count:.1f} ms" for stage, work in enumerate(pipeline.work_ms(run))]
    return "A micro-batch takes " + ", ".join(each)


_SLOW = 2
SLOWER_MS = {"forward_ms": 32.0, "backward_ms": 64.0}
USUAL_MS = {"forward_ms": 20.0, "backward_ms": 40.0}
HIDDEN = {  # a replay of four stages, one of which is slow
    "micro_batches": 8,
    "name": "one stage is slow",
    **{way: [SLOWER_MS[way] if one == _SLOW else usual for one in range(4)] for way, usual in USUAL_MS.items()},
}


@told
def mend(schedule: PipelineSchedule, answer) -> Message:
    """Check which stage is slow in the replay of `HIDDEN`: it is replayed with that stage half as slow."""
    name = "the slow stage"
    if answer is ... or answer is None:
        return Message(
            "asked", f"{name}: its number, 0 to 3. Look for the stage that waits least once the pipe is full."
        )
    if isinstance(answer, bool) or answer not in range(4):
        return Message("wrong", f"{name}: a number from 0 to 3.")
    repaired = {way: list(HIDDEN[way]) for way in USUAL_MS}
    for way in USUAL_MS:
        repaired[way][answer] /= 2
    (after,) = launch.replay_pipeline(4, {"micro_batches": 8, **repaired})
    said = f"{name}: with stage {answer} twice as fast {schedule.span_ms:.0f} ms become {after.span_ms:.0f}"
    if answer == _SLOW:
        return Message("right", f"{said}.")
    return Message("wrong", f"{said}: it was not that one. It waits for another.")
