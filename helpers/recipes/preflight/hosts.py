"""What several hosts ask of a recipe: their ranks, and what of it may leave a host."""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from helpers.machine import Machine
from helpers.ranks import network
from helpers.recipes import costs
from helpers.recipes.nodes import Nodes
from helpers.recipes.preflight.problem import Problem, error, warning
from helpers.show import numbers
from helpers.show.arguments import checked

OWN_DISK = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "overlayfs"}

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
    """Tensor- and context-parallel groups that leave a host, with what they would send."""
    lay = recipe.layout
    inside = lay.tensor_parallel * lay.context_parallel
    if inside == 1 or nodes.processes_per_node % inside == 0:
        return
    sent = costs.sent_bytes(recipe)
    each = (sent.get("tensor", 0) + sent.get("context", 0)) / lay.world_size
    why = f"In every layer their ranks wait for what the others send, {numbers.decimal_bytes(each)} a rank and step."
    if machine.between_nodes_gbps and machine.device == "cuda":
        across, inside = (costs.step(recipe, one).seconds for one in (machine, replace(machine, nodes=1)))
        why += f" A step should take {numbers.duration_ms(across)}, and {numbers.duration_ms(inside)} in one host."
    asked = f"TP × CP = {lay.tensor_parallel} × {lay.context_parallel} on {nodes.name}"
    change = "Both inside a host: split the layers (pipeline_parallel) or the batch (data parallelism) between hosts."
    yield warning(asked, why, change)


@checked
def reachable(nodes: Nodes, places: Mapping[str, Path | str]) -> Iterator[Problem]:
    """What the other hosts would miss of this machine, if it is one of them: its network, and `places` (what lies
    there → folder) on its own disk."""
    if nodes.interface and nodes.interface not in (there := [name for _, name in socket.if_nameindex()]):
        why = f"This machine has {', '.join(there)}. A host without that network ends at its start."
        yield warning(f"interface={nodes.interface!r}", why, "One that `ip link` shows on every host.")
    elif nodes.sockets is None and (loopback := network.why_loopback()):
        yield warning("interface=None", *loopback.split(" Fix: "))
    yield from shared(nodes, places)


@checked
def shared(nodes: Nodes, places: Mapping[str, Path | str]) -> Iterator[Problem]:
    """Which of `places` (what lies there → folder) are on a disk of this machine alone."""
    kinds = {what: _file_system(Path(place)) for what, place in places.items()}
    if own := {what: kind for what, kind in kinds.items() if kind in OWN_DISK}:
        they = "It lies" if len(own) == 1 else "They lie"
        why = (
            f"{they} on {', '.join(sorted(set(own.values())))}, a disk of this machine, and every host must find them."
        )
        change = "A folder that all share (NFS, Lustre, GPFS …), or a copy under the same path on every host."
        yield warning(f"{' and '.join(own)} on {nodes.name}", why, change)


@checked
def time_limit(recipe: "Recipe", machine: Machine, seconds: float) -> Iterator[Problem]:
    """A limit on a job's time against the predicted time of a run, and of the steps between two checkpoints."""
    every, steps = recipe.checkpoints.save_interval, recipe.schedule.exit_interval or recipe.schedule.train_iters
    try:
        step = costs.step(recipe, machine).seconds
    except (ValueError, TypeError):  # nothing is known of its speed, or of its network
        step = 0.0
    said, limit = numbers.duration, f"a time limit of {numbers.duration(seconds)}"
    often = max(1, int(seconds / 4 / step)) if step else 100
    if every is None and (not step or steps * step > seconds):
        why = "What it cuts off is lost whole." + f" The run takes about {said(steps * step)}." * bool(step)
        yield warning(f"{limit} without checkpoints", why, f"save_interval={often}, say.")
    elif every is not None and every * step > seconds:
        why = f"From one checkpoint to the next it takes about {said(every * step)}: no start would get further."
        yield warning(f"{limit} with save_interval={every}", why, f"save_interval={often}, or a longer limit.")
    elif steps * step > seconds:
        why = f"The run takes about {said(steps * step)}: it is cut off, and goes on from its last checkpoint."
        yield warning(limit, why, f"{-(-steps * step // seconds):.0f} jobs in a row, or a longer limit.")


def _file_system(place: Path) -> str | None:
    """The kind of file system under a path, which need not be there yet: "ext4", "nfs4"."""
    place = Path(os.path.abspath(place))
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}  # the last one counts
    return next((mounts[str(folder)] for folder in (place, *place.parents) if str(folder) in mounts), None)
