"""One rank of a job, run alone: its memory and its time, measured here or recorded on a machine.

`helpers/ranks/one_rank.py` measures them; `launch.one_of_many` starts that.
"""

import dataclasses
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers.recipes import Recipe
from helpers.runs import records
from helpers.show import message
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.names import told
from helpers.show.numbers import decimal_bytes, shown
from helpers.show.tables import Table

MARK = "ONE_RANK "  # before the JSON that the program prints
FOLDER = "one_of_many"  # beside the recorded runs of a machine
WAITS = 0.9  # a GPU that is busy for less of a step waits for its host


@told
@dataclass(frozen=True, repr=False)
class OneRank(Table):
    """A rank of a pipeline stage, alone: no collective of it took time, and no loss of it means anything.

    Bytes are those of PyTorch's allocator, `peak_bytes` and `reserved_bytes` from the start to the last step (on a CPU
    both are what the process grew by), and `outside_bytes` what CUDA's context and the libraries took beside them, NCCL
    not among them. `state_bytes` says how much of them weights, gradients and optimizer hold for good.

    Milliseconds are of one step: `milliseconds` holds the wall time of each that was timed, `busy_milliseconds` is how
    long kernels ran, without `instead_milliseconds`, those that stand in for collectives. They launched `kernels`
    kernels. All of these are None on a CPU, and so is `outside_bytes`.
    """

    IN_WORDS = "a rank alone, from launch.one_of_many"

    described: dict = field(hash=False)
    environment: dict = field(hash=False)
    command: str
    stage: int
    rank: int
    milliseconds: tuple[float, ...]
    busy_milliseconds: float | None
    instead_milliseconds: float | None
    kernels: int | None
    peak_bytes: int
    reserved_bytes: int
    outside_bytes: int | None
    state_bytes: dict = field(hash=False)
    is_recorded: bool = False

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_json(self.described)

    @property
    def machine(self) -> str:
        """The machine's name, such as "NVIDIA H100 80GB HBM3"."""
        return self.environment["machine"]["name"]

    @property
    def wall_milliseconds(self) -> float:
        """Median wall time of a step; on a GPU that waits for its host it says more of the host than of the GPU."""
        return statistics.median(self.milliseconds)

    def tables(self) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        layout, name = self.recipe.layout, self.described["name"]
        title = f"{name} ({layout.name}): rank {self.rank} of {layout.world_size}, stage {self.stage}"
        yield title, ("measured", "value", "how"), list(self._memory()) + list(self._time())

    def _memory(self) -> Iterator[tuple[str, str, str]]:
        of = "PyTorch's allocator" if self.kernels else "what the process grew by"
        yield "peak memory of tensors", decimal_bytes(self.peak_bytes), of
        for part, held in self.state_bytes.items():
            yield f"{part}, kept from step to step", decimal_bytes(held), "summed over their storages"
        if self.outside_bytes is not None:
            yield "peak reserved by PyTorch", decimal_bytes(self.reserved_bytes), of
            yield "CUDA's context and libraries", decimal_bytes(self.outside_bytes), "NVML; NCCL is not started"

    def _time(self) -> Iterator[tuple[str, str, str]]:
        steps = f"median of {len(self.milliseconds)} steps, collectives left out"
        yield "wall time of a step", f"{shown(self.wall_milliseconds)} ms", steps
        if self.busy_milliseconds is None:
            yield "GPU busy", "–", "no GPU here: one core's wall time is all there is"
        else:
            yield "GPU busy", f"{shown(self.busy_milliseconds)} ms", f"{self.kernels:,} kernels, PyTorch's profiler"

    def headline(self) -> str:
        where = f"{'Recorded' if self.is_recorded else 'Measured'} on {self.machine}"
        words = f"{where}, alone (--fake-process-group): nothing was exchanged, so there is no loss to show."
        busy = (self.busy_milliseconds or self.wall_milliseconds) / self.wall_milliseconds
        if busy < WAITS:
            words += f" The GPU waits {1 - busy:.0%} of the wall time for its host to launch kernels."
        return words


@checked
def from_output(output: str, **known) -> OneRank:
    """What the program printed, as a value; `known` are the other fields.

    Raises:
        ValueError: it printed something else.
    """
    found = records.of_line(output, MARK)
    return OneRank(milliseconds=tuple(found.pop("milliseconds")), **found, **known)


@checked
def record(found: OneRank, name: str, recorded_dir: Path = records.RECORDED) -> Path:
    """Keep it for readers elsewhere, as `<recorded>/<machine>/one_of_many/<name>.json`; it names no path."""
    path = recorded_dir / found.environment["machine"]["label"] / FOLDER / f"{name}.json"
    return records.keep(path, dataclasses.asdict(dataclasses.replace(found, is_recorded=True)), digits=6)


@checked
def recorded(machine_label: str, name: str | None = None) -> OneRank | Absence | list[OneRank]:
    """The record called `name` of a machine ("h100-80gb-hbm3"), a sentence where there is none; without a name all."""
    folder = records.folder_of(machine_label) / FOLDER
    if name is None:
        return [_read(path) for path in sorted(folder.glob("*.json"))]
    path = folder / f"{name}.json"
    return _read(path) if os.path.isfile(path) else message.nothing_recorded(f"rank alone of {name}")


def _read(path: Path) -> OneRank:
    def one_rank(content: dict) -> OneRank:
        return OneRank(**content | {"milliseconds": tuple(content["milliseconds"])})

    return records.of_file(path, one_rank, "one_rank.recorded, {}", "runs.one_rank.record(found, name)")
