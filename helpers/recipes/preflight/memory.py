"""Does it fit? If not, what would."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import accounting
from helpers.recipes.preflight import sizes
from helpers.recipes.preflight.problem import Problem, error
from helpers.show import numbers

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

TOO_LARGE = "One rank would take about"  # how the reason begins when the memory is too small


def memory(recipe: "Recipe", machine: Machine, parts: Mapping[str, float], ranks: int) -> Iterator[Problem]:
    """The estimate of one rank against the GPU's memory, or that of all `ranks` against the machine's on a CPU.

    `parts` is what `accounting.memory` says of the recipe on this machine, in bytes.
    """
    size = numbers.decimal_bytes
    need = sum(parts.values())
    if machine.device == "cpu":
        if need * ranks > machine.memory_bytes:
            each = f"{ranks} × {size(need)}" if ranks > 1 else size(need)
            why = f"It would take about {each} of memory; the machine has {size(machine.memory_bytes)}."
            change = _lower(recipe, machine, need, machine.memory_bytes / ranks)
            yield error(f"{recipe.name} ({recipe.layout.name}) on {machine.name}", why, f"{change}.")
        return
    have = min(gpu.memory_bytes for gpu in machine.gpus)
    if need > have:
        shares = ", ".join(f"{part} {size(part_bytes)}" for part, part_bytes in parts.items())
        why = f"{TOO_LARGE} {size(need)} ({shares}): {size(need - have)} more than the GPU's {size(have)}."
        asked = f"{recipe.name} ({recipe.layout.name}) on {machine.name}"
        yield error(asked, why, f"{_lower(recipe, machine, need, have)}.")


def _lower(recipe: "Recipe", machine: Machine, need: float, room: float) -> str:
    """What would save memory of the `need` bytes, and how much: what the layout allows, largest saving first."""
    lay, b = recipe.layout, recipe.batch
    changes: list[dict] = [{"cuda_graph": False}] if recipe.speed.cuda_graph and machine.device == "cuda" else []
    if b.micro_batch_size > 1:
        changes += [{"micro_batch_size": b.micro_batch_size // 2}, {"micro_batch_size": 1}]
    if b.recompute != "full":
        changes.append({"recompute": "full"})
    if lay.data_parallel * lay.context_parallel > 1 and not lay.distributed_optimizer:
        changes.append({"distributed_optimizer": True})
    gpus, wider = len(machine.gpus), lay.tensor_parallel * 2
    if lay.world_size < gpus:
        changes.append({"processes": gpus, "distributed_optimizer": True})
    if wider <= gpus and not list(sizes.shapes(recipe.with_(**_wider(recipe, wider)))):
        changes.append(_wider(recipe, wider))
    totals = [_total(recipe, change, machine) for change in changes]
    if len(changes) > 1 and min(totals) > room:
        changes.append({name: value for change in changes for name, value in change.items()})
        totals.append(_total(recipe, changes[-1], machine))
    options = {}
    for change, total in zip(changes, totals, strict=True):
        words = ", ".join(f"{name}={value!r}" for name, value in change.items())
        if total < need:
            fits = ", which fits" if total <= room else ""
            options[f"{words} (saves {numbers.decimal_bytes(need - total)}{fits})"] = total
    ordered = sorted(options, key=options.get)
    if not ordered or options[ordered[0]] > room:
        ordered.append("recipe.scaled_to(machine), a smaller model of the same architecture")
    return "; or ".join(ordered)


def _total(recipe: "Recipe", change: dict, machine: Machine) -> float:
    return sum(accounting.memory(recipe.with_(**change), machine).values())


def _wider(recipe: "Recipe", tensor_parallel: int) -> dict:
    lay = recipe.layout
    world = max(lay.world_size, tensor_parallel * lay.pipeline_parallel * lay.context_parallel)
    return {"tensor_parallel": tensor_parallel, "sequence_parallel": True, "processes": world}
