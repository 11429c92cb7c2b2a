"""A whole step: micro-batches through the pipeline, gradients between data-parallel ranks, the optimizer."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.accounting import rank_parameters
from helpers.recipes.costs import exchange, passes
from helpers.recipes.costs.rates import Rates, of
from helpers.recipes.costs.stage import Stage, layer, stage
from helpers.show.arguments import checked

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

PARTS = (
    "GEMMs",
    "attention",
    "norms, elementwise",
    "FP8 casts",
    "loss",
    "recomputation",
    "optimizer",
    "launching",
    "TP collectives",
    "CP exchange",
    "EP all-to-all",
    "p2p",
    "pipeline bubble",
    "DP collectives",
    "cores shared",
)

EXCHANGED = ("TP collectives", "CP exchange", "EP all-to-all", "p2p", "DP collectives")


@dataclass(frozen=True)
class Step:
    """One predicted step. `parts`: exposed seconds on the slowest rank, by the names of `PARTS`; they add up to it."""

    recipe: "Recipe" = field(repr=False)
    machine: Machine = field(repr=False)
    rates: Rates = field(repr=False)
    parts: dict[str, float] = field(hash=False)

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.seconds

    @property
    def tokens_per_second_per_gpu(self) -> float:
        tokens = self.recipe.batch.global_batch_size * self.recipe.model.sequence_length
        return tokens / self.seconds / self.recipe.layout.world_size


@checked
def step(recipe: "Recipe", machine: Machine, rates: Rates | None = None) -> Step:
    """Predict one step of a recipe on a machine.

    1F1B (Narayanan et al. 2021, section 2.2): the slowest stage does all m micro-batches, and waits while the first one
    passes the others, for 1/v of that with v chunks a rank. A recorded step (CUDA graph) launches nothing; else each
    micro-batch takes at least what Python needs for its launches, and on a CPU both, one after the other. Where a CPU
    has more ranks than cores, all of their work takes as long as its cores need for it.
    """
    recipe.require()
    rates = rates or of(machine)
    layout, count = recipe.layout, recipe.micro_batches
    ranks = range(layout.pipeline_parallel)
    each = layer(recipe, machine, rates)
    kinds = {rank: stage(recipe, machine, rates, rank, each) for rank in layout.kinds_of_stages}
    stages = [kinds[rank] if rank in kinds else kinds[1] for rank in ranks]
    times = [sum(_elapsed(one, recipe, machine)) for one in stages]
    slowest = max(ranks, key=times.__getitem__)
    worst = stages[slowest]
    parts = Counter({name: count * worst.forward[name] + count * worst.backward[name] for name in PARTS})
    parts["launching"] = count * (times[slowest] - worst.busy) + rates.step
    hop = exchange.pipeline(recipe, machine, rates)
    chunks = layout.virtual_pipeline_chunks
    passes_through = 2 * count * chunks * (layout.pipeline_parallel > 1)
    parts["p2p"] = hop * passes_through * (1 if chunks == 1 else 0.5)
    parts["pipeline bubble"] = (sum(times) - times[slowest]) / chunks + 2 * (layout.pipeline_parallel - 1) * hop
    ends = (_end(recipe, machine, rates, rank, kinds[rank]) for rank in kinds)
    parts["optimizer"], parts["DP collectives"] = max(ends, key=sum)
    if machine.device == "cpu":
        own = parts["optimizer"] + rates.step
        worked = layout.world_size * (count * sum(times) / len(times) + own)  # by all ranks
        parts["cores shared"] = max(0.0, worked / machine.cpu_count - sum(parts.values()))
    return Step(recipe, machine, rates, {name: float(parts[name]) for name in PARTS})


@checked
def computing(recipe: "Recipe", machine: Machine, rank: int, rates: Rates | None = None) -> float:
    """Seconds of a step for which the kernels of a rank of stage `rank` run, collectives left out: what
    `launch.one_of_many` measures as the time that its GPU is busy."""
    recipe.require()
    recipe.layout.require_stage(rank)
    rates = rates or of(machine)
    one = stage(recipe, machine, rates, rank, layer(recipe, machine, rates))
    kernels = sum(parts[name] for parts in (one.forward, one.backward) for name in PARTS if name not in EXCHANGED)
    if recipe.batch.recompute == "full":
        kernels -= sum(one.forward[name] for name in EXCHANGED)
    return recipe.micro_batches * kernels + _end(recipe, machine, rates, rank, one)[0]


def _end(recipe: "Recipe", machine: Machine, rates: Rates, rank: int, one: Stage) -> tuple[float, float]:
    """Seconds of a stage's optimizer, and of its data-parallel collectives that nothing hides."""
    dense, expert = rank_parameters(recipe.model, recipe.layout, rank)
    sent, received, slowed = exchange.data(recipe, machine, rates, dense, expert)
    forward, backward = (time / recipe.layout.virtual_pipeline_chunks for time in _elapsed(one, recipe, machine))
    exposed = _exposed(recipe, sent, backward, slowed) + _exposed(recipe, received, forward, slowed)
    return _optimizer(recipe, machine, rates, dense, expert), exposed


def _elapsed(one: Stage, recipe: "Recipe", machine: Machine) -> tuple[float, float]:
    """Seconds of a micro-batch forward and backward: its kernels, or their launches where those take longer."""
    busy = [sum(parts.values()) for parts in (one.forward, one.backward)]
    if machine.device == "cpu":
        return busy[0] + one.launching[0], busy[1] + one.launching[1]
    if recipe.speed.cuda_graph:
        return busy[0], busy[1]
    return max(busy[0], one.launching[0]), max(busy[1], one.launching[1])


def _optimizer(recipe: "Recipe", machine: Machine, rates: Rates, dense: float, expert: float) -> float:
    layout = recipe.layout
    share = dense + expert
    if layout.distributed_optimizer:
        share = dense / max(1, layout.data_parallel * layout.context_parallel)
        share += expert / max(1, layout.world_size // layout.expert_model_parallel)
    work = passes.optimizer(recipe, machine, dense + expert, share)
    return work.bytes / rates.bandwidth + work.seconds


def _exposed(recipe: "Recipe", sent: float, beside: float, slowed: float) -> float:
    """Of a collective what nothing hides; behind the last micro-batch where the recipe overlaps them."""
    if not recipe.speed.overlap_communication:
        return sent
    return max(0.0, sent - beside) + slowed * min(sent, beside)
