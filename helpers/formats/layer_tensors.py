"""Real tensors of a trained model, and what each FP8 recipe costs them: in a cast, and in a matrix product."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.formats import number_formats
from helpers.formats.number_formats import cast, errors, relative_error, scaling_of
from helpers.machine import Machine
from helpers.processes import checkpoints, trust
from helpers.runs import Run
from helpers.show.arguments import checked

if TYPE_CHECKING:
    import pandas as pd
    import torch

RECIPES = ("bf16", "delayed", "tensorwise", "blockwise", "mxfp8")
KINDS = ("weight", "activation", "gradient")
DROPPED = ("--save", "--save-interval", "--tensorboard-dir", "--wandb-project", "--wandb-exp-name", "--wandb-save-dir")


@dataclass(frozen=True)
class Linear:
    """What the three matrix products of one linear layer are made of, in fp32: weight [out, in], activation (its
    input) [tokens, in], gradient (of its output) [tokens, out]. `before`: the same, one optimizer step earlier."""

    IN_WORDS = "a layer's tensors, one of formats.of_run(run).values()"

    name: str
    weight: torch.Tensor
    activation: torch.Tensor
    gradient: torch.Tensor
    before: Linear | None = None

    def __repr__(self) -> str:
        (out, into), tokens = self.weight.shape, len(self.activation)
        return f"{self.name}: weight {out} × {into}, activation {tokens} × {into}, gradient {tokens} × {out}"


@checked
def of_run(run: Run, machine: Machine | None = None) -> dict[str, Linear]:
    """The tensors of the last layer's `linear_proj` (attention's output) and `linear_fc2` (the MLP's), from real steps.

    Loads the run's newest checkpoint into its own model and takes two training steps on its own data, under torchrun,
    with the run's own flags (`helpers/ranks/layer_tensors.py`). Nothing is saved into the run.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        PermissionError: it has one that somebody else wrote.
        launch.TrainingFailed: the two steps failed.
    """
    import torch

    from helpers.processes import programs

    if not checkpoints.saved(Path(run.path) / "checkpoints"):
        raise FileNotFoundError(f"{run.path} has no checkpoint. Train with save_interval set.")
    if why := trust.why_not(run.path):
        raise PermissionError(f"The checkpoint of {run.path} is not loaded. {why} runs.trust(path) says that you know.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pt"
        flags = _flags(run) + ["--finetune", "--no-load-optim", "--no-load-rng", "--exit-interval", "2"]
        flags += ["--data-cache-path", folder, "--lr-warmup-iters", "0"]
        if last_rate := run.recipe and run.recipe.schedule.min_lr:
            flags += ["--lr", str(last_rate)]  # Adam starts anew here: its first step is a full one
        known = run.environment.get("variables", {}).items()
        variables = {name: (value, "as the run had it") for name, value in known}
        ranks = run.layout.world_size
        programs.ranks("layer_tensors", ranks, path, *flags, machine=machine, variables=variables)
        kept = torch.load(path, weights_only=True)
    return {
        name: Linear(name, **steps[-1], before=Linear(name, **steps[0]) if len(steps) > 1 else None)
        for name, steps in kept.items()
    }


def _flags(run: Run) -> list[str]:
    """The training flags in a run's `command.sh`, without those that would write into the run."""
    words = shlex.split(run.command, comments=True)
    flags = words[words.index("flags=(") + 1 : words.index(")")]
    kept, skip = [], False
    for word in flags:
        skip = word in DROPPED if word.startswith("--") else skip
        if not skip:
            kept.append(word)
    return kept


@checked
def cast_errors(linear: Linear) -> pd.DataFrame:
    """What casting each tensor loses under each recipe.

    Delayed scaling uses the tensor's amax of the step before, as in training; without one, its own.

    Returns:
        Index (tensor, recipe); columns format, relative_error, sqnr_db, underflow, saturated (`number_formats.Errors`).
    """
    import pandas as pd

    rows = {}
    for kind in KINDS:
        tensor = getattr(linear, kind)
        for recipe in RECIPES:
            format, scaling = scaling_of(recipe, kind, getattr(linear.before or linear, kind))
            rows[kind, recipe] = {"format": format.name, **vars(errors(tensor, cast(tensor, format, scaling)))}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["tensor", "recipe"])


@checked
def product_errors(linear: Linear) -> pd.DataFrame:
    """Error of the layer's three matrix products when both operands are cast, against fp64 products of the originals.

    forward: activation · weightᵀ; input gradient: gradient · weight; weight gradient: gradientᵀ · activation. Blocks
    lie along the inner dimension of each product, so a tensor is cast anew for every product, as Transformer Engine
    does. Products of the cast values are summed in fp32.

    Returns:
        Index (product, recipe); columns relative_error, sqnr_db.
    """
    import pandas as pd

    products = {  # both operands with the inner dimension last: a · bᵀ
        "forward": (("activation", False), ("weight", False)),
        "input gradient": (("gradient", False), ("weight", True)),
        "weight gradient": (("gradient", True), ("activation", True)),
    }
    rows = {}
    for product, operands in products.items():
        exact = _times(*(_facing(linear, kind, flip).double() for kind, flip in operands))
        for recipe in RECIPES:
            rounded = []
            for kind, flip in operands:
                format, scaling = scaling_of(recipe, kind, getattr(linear.before or linear, kind))
                rounded.append(cast(_facing(linear, kind, flip), format, scaling).values)
            error = relative_error(_times(*rounded), exact)
            rows[product, recipe] = {"relative_error": error, "sqnr_db": number_formats.decibel(error)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["product", "recipe"])


def _facing(linear: Linear, kind: str, flip: bool) -> torch.Tensor:
    tensor = getattr(linear, kind)
    return tensor.T.contiguous() if flip else tensor


@checked
def best(errors: pd.DataFrame, tensor: str) -> tuple[str, ...]:
    """The 8-bit recipes with the smallest error on a tensor, from a table of `cast_errors` or `product_errors`.

    Those within one percent of the smallest are all named: in the figure they are the same.

    Raises:
        ValueError: the table is another one, or has no such tensor.
    """
    rows = list(dict.fromkeys(errors.index.get_level_values(0))) if errors.index.nlevels == 2 else []
    if "relative_error" not in errors or tensor not in rows:
        there = f"It has {', '.join(map(str, rows))}." if rows else "It takes that of cast_errors or product_errors."
        raise ValueError(f"formats.best(tensor={tensor!r}): there is no such row in this table. {there}")
    column = errors.loc[tensor]["relative_error"].drop("bf16", errors="ignore")
    return tuple(map(str, column.index[column <= 1.01 * column.min()]))


def _times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b.T
