"""Every layout that can train a recipe on a machine, by predicted speed."""

import html
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated

from helpers.machine import Machine, here
from helpers.planner.calibration import calibrated, is_here
from helpers.recipes import accounting, candidates, costs, preflight
from helpers.recipes.candidates import Candidate
from helpers.recipes.costs import Rates, Step
from helpers.recipes.layout import Layout
from helpers.recipes.preflight import precision
from helpers.recipes.recipe import Recipe
from helpers.show import bounds, frames, numbers
from helpers.show.arguments import checked
from helpers.show.names import told
from helpers.show.tables import whole_sentences

ROOM = 0.95  # of a GPU's memory: what the allocator loses in gaps is not planned
SHOWN = 11
MOST_DOUBLINGS = 12  # of the machine, in search of one that would do


@told
@dataclass(frozen=True, repr=False)
class Plan:
    """One layout with what it would take: `step` by part, `memory` by part in bytes on the fullest rank."""

    IN_WORDS = "a plan, such as planner.predict(recipe, machine)"

    recipe: Recipe
    step: Step
    memory: dict[str, float] = field(hash=False)

    @property
    def tokens_per_second_per_gpu(self) -> float:
        return self.step.tokens_per_second_per_gpu

    @property
    def gigabytes(self) -> float:
        return sum(self.memory.values()) / 1e9

    @property
    def fits(self) -> bool:
        return sum(self.memory.values()) <= _room(self.step.machine, self.recipe)

    @property
    def name(self) -> str:
        """ "TP2+SP×PP4, micro-batch 1, recomputed": what tells it from the others."""
        batch, layout = self.recipe.batch, self.recipe.layout
        extra = ", recomputed" if batch.recompute == "full" else ", attention recomputed" if batch.recompute else ""
        return f"{layout.name}, micro-batch {batch.micro_batch_size}{extra}{', stock' * self.recipe.stock}"

    def why_slower(self, best: "Plan") -> str:
        """The parts in which it loses most to a faster plan, in words."""
        if self.recipe.layout.world_size < best.recipe.layout.world_size:
            return f"uses {self.recipe.layout.world_size} of the GPUs"
        parts = ((name, self.step.parts[name] - best.step.parts[name]) for name in costs.PARTS)
        worst = sorted(parts, key=lambda part: -part[1])[:2]
        least = 0.02 * best.step.seconds
        return (
            ", ".join(f"{name} +{numbers.duration_ms(more)}" for name, more in worst if more > least)
            or "a little of each"
        )

    def table(self):
        """The parts of the step: milliseconds, and their share."""
        import pandas as pd

        step = self.step
        rows = [
            (name, numbers.duration_ms(seconds), f"{seconds / step.seconds:.1%}")
            for name, seconds in step.parts.items()
            if seconds > 0
        ]
        rows.append(("together", numbers.duration_ms(step.seconds), ""))
        return pd.DataFrame(rows, columns=["part", "a step", "share"]).set_index("part")

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>" + frames.to_html(self.table())

    def __repr__(self) -> str:
        machine = self.step.machine
        speed = f"{self.tokens_per_second_per_gpu:,.0f} tokens/s/GPU, {self.gigabytes:.1f} GB on the fullest rank"
        if not self.fits:
            speed += f", which do not fit in its {_room(machine, self.recipe) / 1e9:.1f} GB"
        return f"{self.recipe.name} on {machine.name}, {self.name}: {speed}"


@dataclass(frozen=True, repr=False)
class Search:
    """The plans of a search, fastest first; `too_large` layouts were left out for their memory."""

    machine: Machine
    plans: tuple[Plan, ...]
    too_large: int

    @property
    def best(self) -> Plan:
        return self.plans[0]

    @checked
    def table(self, rows: Annotated[int, bounds.COUNT] = SHOWN):
        """The fastest plans: speed, memory of the fullest rank, and why each loses to the first."""
        import pandas as pd

        listed = [
            {
                "layout": plan.name,
                "format": plan.recipe.precision.name,
                "tokens/s/GPU": f"{plan.tokens_per_second_per_gpu:,.0f}",
                "step": numbers.duration_ms(plan.step.seconds),
                "GB": f"{plan.gigabytes:.1f}",
                "why slower": "–" if plan is self.best else plan.why_slower(self.best),
            }
            for plan in self.plans[:rows]
        ]
        return pd.DataFrame(listed).set_index("layout")

    def _sentence(self) -> str:
        return f"{len(self.plans):,} layouts fit {self.machine.name}; {self.too_large:,} would not."

    def _repr_html_(self) -> str:
        return f"<p>{self._sentence()}</p>" + frames.to_html(self.table())

    def __repr__(self) -> str:
        return f"{self._sentence()}\n{self.table().to_string()}"


@checked
def predict(recipe: Recipe, machine: Machine | None = None, rates: Rates | None = None) -> Plan:
    """One step of a recipe before it runs: milliseconds by part, and the memory of the fullest rank.

    `rates` are those of the machine, where somebody measured them better than `rates_of` knows.

    Raises:
        PreflightError: the layout cannot run there, whatever its memory; the message says why and what to change.
        ValueError: for a machine whose GPU no data sheet describes.
    """
    machine = machine or here()
    preflight.require(recipe, machine)
    preflight.refuse(list(precision.precision(recipe, machine)))
    return Plan(recipe, costs.step(recipe, machine, rates or rates_of(machine)), accounting.memory(recipe, machine))


def _room(machine: Machine, recipe: Recipe) -> float:
    """Bytes that a rank may take."""
    if machine.gpus:
        return min(gpu.memory_bytes for gpu in machine.gpus)
    return machine.memory_bytes / recipe.layout.world_size


def rates_of(machine: Machine) -> Rates:
    """What is known of a machine: its calibration where it is this one and has one, else `costs.of`."""
    return (calibrated(machine) if is_here(machine) else None) or costs.of(machine)


@checked
def search(recipe: Recipe, machine: Machine | None = None, rates: Rates | None = None) -> Search:
    """Every layout of the recipe's model that preflight accepts on a machine, fastest first.

    Tensor, pipeline (with chunks), context, expert and data parallelism over all GPUs, or over as many as share the
    batch; sequence parallelism on and off; micro-batches of powers of two; recomputation only where the layout does not
    fit without; the distributed optimizer wherever there are ranks to share it. Tensor parallelism stays in a node.

    Raises:
        PreflightError: the recipe's number formats are none of that machine.
        ValueError: the model fits nowhere; the message says what is missing.
    """
    machine = machine or here()
    preflight.require_values(recipe)
    formats = replace(recipe, layout=replace(recipe.layout, distributed_optimizer=True))
    preflight.refuse(list(precision.precision(formats, machine)))
    rates = rates or rates_of(machine)
    tried = candidates.candidates(recipe, machine, ROOM)
    fitting = [one for one in tried if one.fits]
    if not fitting:
        raise ValueError(_nowhere(recipe, machine, tried))
    plans = [Plan(one.recipe, costs.step(one.recipe, machine, rates), one.memory) for one in fitting]
    plans.sort(key=lambda plan: plan.step.seconds)
    return Search(machine, tuple(plans), len(tried) - len(fitting))


@checked
def best(recipe: Recipe, machine: Machine | None = None) -> Recipe:
    """The recipe in the fastest layout of `search`; its model, its batch and its number format stay."""
    machine = machine or here()
    fastest = search(recipe, machine).best.recipe
    return replace(fastest, scaled_for=machine.name)


@checked
def across(recipe: Recipe, machines: Iterable[Machine]):
    """The best plan of one recipe on several machines, a row each; where it fits nowhere, what is missing.

    Raises:
        ValueError: there is no machine.
    """
    import pandas as pd

    preflight.require_values(recipe)
    if not (machines := list(machines)):
        raise ValueError("planner.across: there is no machine. It takes several: [described(…), described(…)].")
    rows = []
    for machine in machines:
        try:
            plan = search(recipe, machine).best
        except ValueError as nowhere:
            rows.append((machine.name, "–", "–", "–", "–", str(nowhere).partition(": ")[2]))
            continue
        others = {name: seconds for name, seconds in plan.step.parts.items() if name != "GEMMs"}
        largest = sorted(others.items(), key=lambda part: -part[1])[:2]
        most = ", ".join(f"{name} {seconds / plan.step.seconds:.0%}" for name, seconds in largest)
        speed, step = f"{plan.tokens_per_second_per_gpu:,.0f}", numbers.duration_ms(plan.step.seconds)
        rows.append((machine.name, plan.name, speed, step, f"{plan.gigabytes:.1f}", f"beside the GEMMs: {most}"))
    columns = ["machine", "best layout", "tokens/s/GPU", "step", "GB", "what else"]
    return whole_sentences(pd.DataFrame(rows, columns=columns).set_index("machine"))


def _nowhere(recipe: Recipe, machine: Machine, tried: list[Candidate]) -> str:
    if not tried:
        return (
            f"No layout over {machine.name} divides {recipe.name} evenly: {recipe.model.num_layers} layers, "
            f"{recipe.model.num_attention_heads} heads, {recipe.batch.global_batch_size} samples a step. "
            "Another global_batch_size, a multiple of the GPUs, has more of them."
        )
    least = min(tried, key=lambda one: one.bytes)
    have = machine.gpus[0].memory_bytes if machine.gpus else machine.memory_bytes
    size = numbers.decimal_bytes
    said = (
        f"{recipe.name} fits in no layout of {machine.name}: the most frugal, {Plan(least.recipe, None, {}).name}, "
        f"takes {size(least.bytes)} of each GPU's {size(have)}, {size(least.bytes - ROOM * have)} more than the "
        f"{ROOM:.0%} of it that are planned."
    )
    for doubling in range(1, MOST_DOUBLINGS):
        gpus = len(machine.gpus) << doubling
        if _holds(recipe, machine, gpus, ROOM * have):
            return f"{said} {gpus:,} such GPUs would hold it."
    return said


def _holds(recipe: Recipe, machine: Machine, gpus: int, room: float) -> bool:
    """Whether so many GPUs hold the model at its most frugal: all recomputed, everything else split or shared."""
    node = len(machine.gpus) // machine.nodes
    batch = replace(recipe.batch, micro_batch_size=1, recompute="full", global_batch_size=gpus)
    frugal = replace(recipe, batch=batch).with_(cuda_graph=False)
    for tensor in (n for n in candidates.divisors(node) if recipe.model.num_attention_heads % n == 0):
        for stages in (n for n in candidates.divisors(recipe.model.num_layers) if gpus % (tensor * n) == 0):
            layout = Layout(gpus, tensor, stages, sequence_parallel=tensor > 1, distributed_optimizer=True)
            if sum(accounting.memory(replace(frugal, layout=layout), machine).values()) <= room:
                return True
    return False
