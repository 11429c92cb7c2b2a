"""What several hosts ask of a recipe: their ranks, and what of it may leave a host."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.nodes import Nodes
from helpers.recipes.preflight.problem import Problem, error, warning

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe


def ranks_on(recipe: "Recipe", nodes: Nodes) -> Iterator[Problem]:
    """The layout's ranks against those that the hosts start."""
    world = recipe.layout.world_size
    if world != nodes.world_size:
        why = f"torchrun starts {nodes.count} × {nodes.processes_per_node} = {nodes.world_size} ranks there."
        each, rest = divmod(world, nodes.count)
        change = f"recipe.with_(processes={nodes.world_size})"
        change += f", or processes_per_node={each}." if each and not rest else "."
        yield error(f"{world} process{'es' * (world > 1)} ({recipe.layout.name}) on {nodes.name}", why, change)


def between(recipe: "Recipe", nodes: Nodes, machine: Machine) -> Iterator[Problem]:
    """Tensor- and context-parallel groups that leave a host."""
    lay = recipe.layout
    inside = lay.tensor_parallel * lay.context_parallel
    if nodes.processes_per_node % inside:
        why = "Their ranks wait for each other several times in every layer, and between hosts the wire is narrow."
        asked = f"TP × CP = {lay.tensor_parallel} × {lay.context_parallel} with {nodes.processes_per_node} ranks a host"
        yield warning(asked, why, "Split layers (pipeline_parallel) or samples (data parallelism) between hosts.")
