"""Real processes that exchange tensors, and whether the sums are right."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated

from helpers.environment import gpus
from helpers.environment.finding import Finding
from helpers.environment.probe import last_line, told
from helpers.machine import Machine, here
from helpers.show import bounds
from helpers.show.arguments import checked
from helpers.show.numbers import binary_bytes, bytes_per_second
from helpers.show.tables import Table


@dataclass(frozen=True, repr=False)
class Collectives(Table):
    """Collectives measured between real processes.

    A row has step (all-reduce or all-gather), bytes, seconds, bus_bytes_per_second and wrong_elements. Bus bandwidth
    is what nccl-tests calls busbw: bytes that cross a link a second, whatever the number of ranks. `told_by_torchrun`
    holds the variables that torchrun set, a dict a rank, rank 0 first.
    """

    backend: str
    processes: int
    rows: tuple[dict, ...]
    told_by_torchrun: tuple[dict, ...] = ()

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row["wrong_elements"] == 0 for row in self.rows)

    @property
    def bus_bytes_per_second(self) -> float:
        """The best of all sizes, in bytes a second."""
        return max(row["bus_bytes_per_second"] for row in self.rows)

    def milliseconds(self, size: int, step: str = "all-reduce") -> float:
        """How long one collective of `size` bytes took, of those that were measured.

        Raises:
            ValueError: it was not measured.
        """
        found = {(row["step"], row["bytes"]): 1e3 * row["seconds"] for row in self.rows}
        if (step, size) not in found:
            known = ", ".join(f"{bytes:,}" for name, bytes in found if name == step)
            raise ValueError(f"No {step} of {size!r} bytes was measured." + (f" There are: {known}." if known else ""))
        return found[step, size]

    def variables(self):
        """What torchrun told each rank: a DataFrame, a row a variable, a column a rank."""
        import pandas as pd

        columns = {f"rank {one['RANK']}": one for one in self.told_by_torchrun}
        return pd.DataFrame(columns).rename_axis("variable")

    def tables(self):
        rows = [
            (
                row["step"],
                binary_bytes(row["bytes"]),
                f"{row['seconds'] * 1e3:.2f} ms",
                bytes_per_second(row["bus_bytes_per_second"]),
                "yes" if row["wrong_elements"] == 0 else f"no, {row['wrong_elements']} elements differ",
            )
            for row in sorted(self.rows, key=lambda row: (row["step"] != "all-reduce", row["bytes"]))
        ]
        title = f"{self.processes} processes over {self.backend}"
        yield title, ("collective", "size of the result", "time", "bus bandwidth", "right result"), rows

    def headline(self) -> str:
        return (
            "Every process has the right sum." if self.ok else "Wrong numbers came back: do not train on this machine."
        )


@checked
def all_reduce(
    processes: Annotated[int, bounds.PROCESSES] = 2,
    machine: Machine | None = None,
    sizes: Collection[Annotated[int, bounds.BYTES]] | None = None,
) -> Collectives:
    """Let real processes add tensors up under torchrun and check every sum.

    NCCL with one GPU a process; gloo on the processor where there are fewer GPUs than processes. `sizes` in bytes; from
    4 KiB to 32 MiB (on GPUs to 256 MiB) if not given.

    Raises:
        ValueError: a size is too small to give each process a number of it. launch.TrainingFailed: a process died; the
            message names rank, cause and fix.
    """
    from helpers.processes import programs

    if sizes is not None and not sizes:
        raise ValueError("environment.all_reduce(sizes=[]): there is no size. Leave it out, or give some in bytes.")
    if sizes and min(sizes) < (least := 4 * processes):
        raise ValueError(
            f"environment.all_reduce(sizes=[{min(sizes)}]): an all-gather takes a part from each of {processes} "
            f"processes, a number of 4 bytes at least: {least} bytes or more."
        )
    machine = machine or here()
    if len(machine.gpus) < processes:
        machine = replace(machine, gpus=())
    facts = told(programs.ranks("collectives", processes, *(sizes or ()), machine=machine))
    ranks = [{name: value for name, value in fact.items() if name != "step"} for fact in facts if "RANK" in fact]
    rows = tuple(fact for fact in facts if "bytes" in fact)
    in_order = tuple(sorted(ranks, key=lambda rank: int(rank["RANK"])))
    return Collectives(rows[0]["backend"] if rows else "none", processes, rows, in_order)


def between_gpus(machine: Machine) -> Finding:
    """All-reduce and all-gather between all GPUs, and the link they ride on."""
    why = "Tensor parallelism adds up activations four times a layer: it lives from this link."
    link = gpus.link()
    try:
        measured = all_reduce(len(machine.gpus), machine)
    except RuntimeError as error:
        fix = "Read the message; NCCL_DEBUG=INFO tells more. /dev/shm and the driver are the usual reasons."
        return Finding("Between GPUs", "problem", f"{link}: {last_line(str(error))}", why, fix)
    best = {
        step: max(row["bus_bytes_per_second"] for row in measured.rows if row["step"] == step) / 1e9
        for step in ("all-reduce", "all-gather")
    }
    found = f"{link}: " + ", ".join(f"{step} {speed:.0f} GB/s" for step, speed in best.items())
    if not measured.ok:
        return Finding("Between GPUs", "problem", found, why, measured.headline())
    return Finding("Between GPUs", "ok", found, why)
