"""How long one micro-batch takes, forward and backward, against its size: measured here, or recorded on a machine.

`helpers/ranks/micro_batches.py` measures it; `lessons.experiments.floor` starts that.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

from helpers.recipes import Recipe
from helpers.runs import records
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.names import told

MARK = "MICRO_BATCHES "  # before the JSON that the program prints
FOLDER = "micro_batches"  # beside the recorded runs of a machine
FLAT = 1.25  # up to so many times the fastest a micro-batch counts as on the floor


@dataclass(frozen=True)
class Size:
    """One micro-batch of `size` samples: median milliseconds, launches (kernels on a GPU, operations on a CPU) and the
    milliseconds in which kernels ran (None on a CPU)."""

    size: int
    milliseconds: float
    launches: int
    busy_milliseconds: float | None


@told
@dataclass(frozen=True)
class MicroBatches:
    """A model's micro-batches on one machine, launched kernel by kernel.

    `launch_microseconds` is what one launch costs the processor at least, `out_of_memory` the first size that did not
    fit, and `recorded_on` names the machine of a record.
    """

    IN_WORDS = "micro-batches, such as lessons.experiments.floor(recipe, data)"

    machine: str
    recipe: str
    stock: bool
    sequence_length: int
    sizes: tuple[Size, ...]
    launch_microseconds: float
    out_of_memory: int | None = None
    recorded_on: str = ""

    @property
    def floor(self) -> float:
        """Milliseconds of the fastest micro-batch: less is not to be had by making it smaller."""
        return min(size.milliseconds for size in self.sizes)

    @property
    def flat_until(self) -> int:
        """The largest micro-batch that still takes about as long as the fastest."""
        return max(size.size for size in self.sizes if size.milliseconds <= FLAT * self.floor)

    @property
    def launches(self) -> int:
        return self.sizes[0].launches

    @property
    def launching_milliseconds(self) -> float:
        """The least that launching alone takes: launches × the cost of one."""
        return self.launches * self.launch_microseconds / 1e3

    def times(self, size: int) -> float:
        """How many times the time of one sample `size` samples take, to 0.01; nan where they were not timed."""
        taken = {one.size: one.milliseconds for one in self.sizes}
        return round(taken.get(size, math.nan) / taken[1], 2)

    def table(self):
        """One row a size: milliseconds, tokens a second, and on a GPU the share of time in which kernels run."""
        import pandas as pd

        rows = [
            {
                "micro-batch": size.size,
                "ms": round(size.milliseconds, 1),
                "ms a sample": round(size.milliseconds / size.size, 2),
                "tokens/s": f"{1e3 * size.size * self.sequence_length / size.milliseconds:,.0f}",
                "kernels run": "–"
                if size.busy_milliseconds is None
                else f"{min(1.0, size.busy_milliseconds / size.milliseconds):.0%} of the time",
            }
            for size in self.sizes
        ]
        return pd.DataFrame(rows).set_index("micro-batch")


@checked
def from_output(output: str, machine: str, recipe: Recipe) -> MicroBatches:
    """What the program printed, as a value.

    Raises:
        ValueError: it printed something else.
    """
    found = records.of_line(output, MARK)
    sizes = tuple(Size(**size) for size in found.pop("sizes"))
    return MicroBatches(machine, recipe.name, recipe.stock, recipe.model.sequence_length, sizes, **found)


@checked
def record(found: MicroBatches, name: str, label: str, recorded_dir: Path = records.RECORDED) -> Path:
    """Keep it for readers elsewhere, as `<recorded>/<label>/micro_batches/<name>.json`."""
    kept = dataclasses.asdict(dataclasses.replace(found, recorded_on=found.machine))
    return records.keep(recorded_dir / label / FOLDER / f"{name}.json", kept)


@checked
def recorded(machine_label: str, name: str) -> MicroBatches | Absence:
    """The record called `name` of a machine ("h100-80gb-hbm3"); a sentence where there is none."""
    path = records.folder_of(machine_label) / FOLDER / f"{name}.json"
    if not os.path.isfile(path):
        return message.nothing_recorded(f"micro-batches of {name}")

    def micro_batches(content: dict) -> MicroBatches:
        return MicroBatches(**content | {"sizes": tuple(Size(**size) for size in content["sizes"])})

    return records.of_file(path, micro_batches, "micro_batches.recorded, {}", "runs.micro_batches.record(found, …)")
