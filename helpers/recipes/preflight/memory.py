"""Does it fit? If not, what would."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import accounting
from helpers.recipes.preflight.division import is_even
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
    """The changes of one kind that make it fit, largest saving first; where none does, all of them together, if they
    do; else a smaller model."""
    lay, b = recipe.layout, recipe.batch
    changes: list[dict] = [{"cuda_graph": False}] if recipe.speed.cuda_graph and machine.device == "cuda" else []
    smaller = [{"micro_batch_size": size} for size in _parts(b.global_batch_size // lay.data_parallel, b)]
    changes += [next((one for one in smaller if _total(recipe, one, machine) <= room), smaller[-1])] if smaller else []
    if b.recompute != "full":
        changes.append({"recompute": "full"})
    if lay.data_parallel * lay.context_parallel > 1 and not lay.distributed_optimizer:
        changes.append({"distributed_optimizer": True})
    gpus, wider = len(machine.gpus), lay.tensor_parallel * 2
    if lay.world_size < gpus:
        changes.append({"processes": gpus, "distributed_optimizer": True})
    if wider <= gpus:
        changes.append(_wider(recipe, wider))
    changes = [change for change in changes if is_even(recipe.with_(**change), machine)]
    together = {name: value for change in changes for name, value in change.items()}
    for options in (changes, [together]):
        totals = {
            ", ".join(f"{name}={value!r}" for name, value in change.items()): _total(recipe, change, machine)
            for change in options
            if is_even(recipe.with_(**change), machine)
        }
        if fitting := sorted((words for words, total in totals.items() if total <= room), key=totals.get):
            size = numbers.decimal_bytes
            return "; or ".join(f"{words} (saves {size(need - totals[words])}, which fits)" for words in fitting)
    return "recipe.scaled_to(machine), a smaller model of the same architecture"


def _parts(samples: int, batch) -> list[int]:
    """Smaller micro-batches that a rank's samples of a step divide into, largest first."""
    return [size for size in range(batch.micro_batch_size - 1, 0, -1) if samples % size == 0]


def _total(recipe: "Recipe", change: dict, machine: Machine) -> float:
    return sum(accounting.memory(recipe.with_(**change), machine).values())


def _wider(recipe: "Recipe", tensor_parallel: int) -> dict:
    lay = recipe.layout
    world = max(lay.world_size, tensor_parallel * lay.pipeline_parallel * lay.context_parallel)
    return {"tensor_parallel": tensor_parallel, "sequence_parallel": True, "processes": world}
