"""The layouts in which a machine may train a recipe, and the memory that each takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import preflight
from helpers.recipes.accounting import rank_memory
from helpers.recipes.layout import Layout
from helpers.recipes.preflight import precision

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

LARGEST_MICRO_BATCH = 64


@dataclass(frozen=True)
class Candidate:
    """The recipe in one layout with one micro-batch, and bytes by part on its fullest rank; `fits` is whether they find
    room. One that does not is shown at its most frugal."""

    recipe: "Recipe"
    memory: dict[str, float] = field(hash=False)
    fits: bool

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())


def candidates(recipe: "Recipe", machine: Machine, room: float) -> list[Candidate]:
    """Every layout over all ranks of a machine, or over as many as one fits with; `room` is the share of a GPU's
    memory that may be planned.

    Recomputation only where a layout does not fit without, a recorded step (CUDA graph) only where the recipe asks for
    one and it fits, sequence parallelism on and off, the distributed optimizer wherever there are ranks to share it.
    """
    found: list[Candidate] = []
    for ranks in _worlds(machine):
        here = [
            one for layout in layouts(recipe, machine, ranks) for one in micro_batches(recipe, layout, machine, room)
        ]
        found += here
        if any(one.fits for one in here):
            break
    return found


def layouts(recipe: "Recipe", machine: Machine, ranks: int) -> Iterator[Layout]:
    """The layouts over so many ranks whose sizes go into model, batch and machine; tensor parallelism stays in a node.

    Layers go evenly into pipeline stages and their chunks, heads into tensor-parallel ranks (preflight's `sizes` says
    what else must divide what).
    """
    model, samples = recipe.model, recipe.batch.global_batch_size
    node = max(1, (len(machine.gpus) or machine.processes) // machine.nodes)
    for tensor in divisors(ranks):
        if tensor > node or model.num_attention_heads % tensor:
            continue
        for pipeline in divisors(ranks // tensor):
            ends = 0 if model.num_layers % pipeline == 0 else 2  # embedding and loss, where only with them it is whole
            if (model.num_layers + ends) % pipeline:
                continue
            for context in divisors(ranks // (tensor * pipeline)):
                data = ranks // (tensor * pipeline * context)
                if samples % data or (context > 1 and model.sequence_length % (2 * context)):
                    continue
                for chunks in divisors((model.num_layers + ends) // pipeline) if pipeline > 1 else (1,):
                    for expert, expert_tensor in _experts(recipe, tensor, context * data):
                        for sequence in (True, False) if tensor > 1 else (False,):
                            yield Layout(
                                processes=ranks,
                                tensor_parallel=tensor,
                                pipeline_parallel=pipeline,
                                virtual_pipeline_chunks=chunks,
                                context_parallel=context,
                                expert_parallel=expert,
                                expert_tensor_parallel=expert_tensor,
                                sequence_parallel=sequence,
                                distributed_optimizer=data * context > 1 or recipe.layout.distributed_optimizer,
                                account_for_embedding=ends > 0,
                                account_for_loss=ends > 0,
                            )


def _worlds(machine: Machine) -> list[int]:
    """All ranks, then fewer: one less each time on a small machine, half on a large one."""
    ranks = len(machine.gpus) or machine.processes
    if ranks <= 16:
        return list(range(ranks, 0, -1))
    return [ranks >> half for half in range(ranks.bit_length())]


def _experts(recipe: "Recipe", tensor: int, others: int) -> Iterator[tuple[int, int | None]]:
    """Expert-parallel and expert-tensor-parallel sizes that go into the ranks of a pipeline stage."""
    if not recipe.model.num_experts:
        yield 1, None
        return
    for expert in divisors(tensor * others):
        for shared in dict.fromkeys((1, tensor)):
            if recipe.model.num_experts % expert == 0 and (tensor * others) % (expert * shared) == 0:
                yield expert, shared


def micro_batches(recipe: "Recipe", layout: Layout, machine: Machine, room: float) -> Iterator[Candidate]:
    """One layout with micro-batches of powers of two, and the recipe's own."""
    shared = layout.distributed_optimizer
    speed = replace(
        recipe.speed,
        overlap_communication=recipe.speed.overlap_communication and shared,
        overlap_tensor_parallel=recipe.speed.overlap_tensor_parallel and layout.sequence_parallel,
        cuda_graph=recipe.speed.cuda_graph and layout.pipeline_parallel == 1 and not recipe.model.num_experts,
    )
    laid_out = replace(recipe, layout=layout, speed=speed)
    share = recipe.batch.global_batch_size // layout.data_parallel
    powers = [2**n for n in range(LARGEST_MICRO_BATCH.bit_length())]
    for size in sorted({recipe.batch.micro_batch_size, *powers}):
        sized = replace(laid_out, batch=replace(recipe.batch, micro_batch_size=size))
        if share % size == 0 and not _refused(sized, machine):
            yield _most_memory(sized, machine, room)


def _refused(recipe: "Recipe", machine: Machine) -> bool:
    return any(problem.severity == "error" for problem in preflight.split(recipe, machine))


def _most_memory(recipe: "Recipe", machine: Machine, room: float) -> Candidate:
    """The first way that fits, from the fastest to the most frugal; else that."""
    engine = machine.device == "cuda" and machine.transformer_engine
    ways = [(graph, None) for graph in ((True, False) if recipe.speed.cuda_graph and engine else (False,))]
    ways += [(False, "full")] if engine else [(False, "selective"), (False, "full")]  # fused attention keeps no scores
    ranks = recipe.layout.world_size
    have = min(gpu.memory_bytes for gpu in machine.gpus[:1]) if machine.gpus else machine.memory_bytes / ranks
    for graph, recompute in ways:
        batch = replace(recipe.batch, recompute=recompute)
        tried = replace(recipe, batch=batch, speed=replace(recipe.speed, cuda_graph=graph))
        parts = rank_memory.fullest(tried, machine)
        unsafe = graph and any(precision.cuda_graph(tried, machine, parts))
        if sum(parts.values()) <= room * have and not unsafe:
            return Candidate(tried, parts, True)
    return Candidate(tried, parts, False)


def divisors(number: int) -> list[int]:
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]
