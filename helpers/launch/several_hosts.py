"""A run on several hosts without a scheduler: everything is written, and a person types one line on each host."""

import html
from dataclasses import dataclass
from pathlib import Path

from helpers import recipes
from helpers.launch.training import write
from helpers.machine import PROJECT, Machine, here, runs_root
from helpers.processes import run_directory
from helpers.recipes import preflight
from helpers.recipes.command import CODE
from helpers.recipes.nodes import ADDRESS, NODE_RANK
from helpers.show.arguments import checked


@dataclass(frozen=True, repr=False)
class Lines:
    """What to type: `lines[n]` on host n, in any order. They wait for each other, ten minutes at most."""

    run_directory: Path
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(f"host {number}$ {line}" for number, line in enumerate(self.lines))

    def _repr_html_(self) -> str:
        return f'<pre style="{CODE}">{html.escape(repr(self))}</pre>'


@checked
def by_hand(recipe: recipes.Recipe, data, nodes: recipes.Nodes, *, machine: Machine | None = None) -> Lines:
    """Write the run directory of `recipe` on `nodes`, start nothing, and say what to type on each host.

    Every host must find it, the corpus, this project and its Python under the same paths. The same lines go on from
    the last checkpoint.

    Args:
        machine: one of the hosts, where it differs from this one.

    Raises:
        preflight.PreflightError: the run cannot work; nothing was written.
    """
    machine = machine or here()
    root = runs_root()
    found = preflight.check(recipe, data, machine, root / recipe.name, nodes=nodes)
    places = {"The runs": root, "this project": PROJECT}
    for warning in preflight.refuse([*found, *preflight.reachable(nodes, places)]):
        print(warning)
    identity = preflight.identity(recipe, data, None)
    with run_directory.claim(root / recipe.name, identity, fresh=False) as (directory, lock):
        if lock is None:
            raise RuntimeError(f"This run is going on in {directory}: run.stop() ends it.")
        write(directory, recipe, data, machine, identity, nodes=nodes)
    address = "" if nodes.address else f"{ADDRESS}=<host 0> "
    lines = [f"{address}{NODE_RANK}={number} bash {directory}/command.sh" for number in range(nodes.count)]
    return Lines(directory, tuple(lines))
