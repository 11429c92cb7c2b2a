"""Real tensors of a trained model, and what each FP8 recipe costs them: in a cast, and in a matrix product."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.formats import number_formats
from helpers.formats.number_formats import cast, errors, relative_error, scaling_of
from helpers.processes import checkpoints

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from helpers.machine import Machine
    from helpers.runs import Run

RECIPES = ("bf16", "delayed", "tensorwise", "blockwise", "mxfp8")
KINDS = ("weight", "activation", "gradient")
DROPPED = ("--save", "--save-interval", "--tensorboard-dir", "--wandb-project", "--wandb-exp-name", "--wandb-save-dir")


@dataclass(frozen=True)
class Linear:
    """What the three matrix products of one linear layer are made of, in fp32: weight [out, in], activation (its
    input) [tokens, in], gradient (of its output) [tokens, out]. `before`: the same, one optimizer step earlier."""

    name: str
    weight: torch.Tensor
    activation: torch.Tensor
    gradient: torch.Tensor
    before: Linear | None = None

    def __repr__(self) -> str:
        (out, into), tokens = self.weight.shape, len(self.activation)
        return f"{self.name}: weight {out} × {into}, activation {tokens} × {into}, gradient {tokens} × {out}"


def tensors_from_checkpoint(run: Run | Path, step: int | None = None) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint by name, without a GPU, a model or Megatron; layers are stacked along the first axis.

    Args:
        run: a run, or its directory. The checkpoints must be in the torch_dist format.
        step: None takes the newest.

    Raises:
        FileNotFoundError: the run has no whole checkpoint of that step.
    """
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    path = _checkpoint(run, step)
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(meta.size, dtype=meta.properties.dtype)
        for name, meta in stored.items()
        if isinstance(meta, TensorStorageMetadata) and name.split(".")[0] in ("embedding", "decoder", "output_layer")
    }
    load(weights, storage_reader=FileSystemReader(path), no_dist=True)
    return weights


def _checkpoint(run: Run | Path, step: int | None) -> Path:
    folder = Path(getattr(run, "path", run)) / "checkpoints"
    saved = checkpoints.saved(folder)
    if not saved or step not in (None, *saved):
        found = f"it has those of steps {', '.join(map(str, saved))}" if saved else "it has none"
        which = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise FileNotFoundError(f"{folder.parent} has no {which}: {found}. Train with save_interval set.")
    return checkpoints.path_of(folder, saved[-1] if step is None else step)


def of_run(run: Run, layer: int = -1, machine: Machine | None = None) -> dict[str, Linear]:
    """The tensors of one layer's `linear_proj` (attention's output) and `linear_fc2` (the MLP's), from real steps.

    Loads the run's newest checkpoint into its own model and takes two training steps on its own data, under torchrun,
    with the run's own flags (`helpers/ranks/layer_tensors.py`). Nothing is saved into the run.

    Args:
        layer: which of the layers that rank 0 holds.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        launch.TrainingFailed: the two steps failed.
    """
    import torch

    from helpers.processes import programs

    _checkpoint(run, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pt"
        flags = _flags(run) + ["--finetune", "--no-load-optim", "--no-load-rng", "--exit-interval", "2"]
        flags += ["--data-cache-path", folder, "--lr-warmup-iters", "0"]
        if last_rate := run.recipe.get("schedule", {}).get("min_lr"):
            flags += ["--lr", str(last_rate)]  # Adam starts anew here: its first step is a full one
        known = run.environment.get("variables", {}).items()
        variables = {name: (value, "as the run had it") for name, value in known}
        ranks = run.layout.world_size
        programs.ranks("layer_tensors", ranks, path, layer, *flags, machine=machine, variables=variables)
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


def cast_errors(linear: Linear, recipes: Sequence[str] = RECIPES) -> pd.DataFrame:
    """What casting each tensor loses under each recipe.

    Delayed scaling uses the tensor's amax of the step before, as in training; without one, its own.

    Returns:
        Index (tensor, recipe); columns format, relative_error, sqnr_db, underflow, saturated (`number_formats.Errors`).
    """
    import pandas as pd

    rows = {}
    for kind in KINDS:
        tensor = getattr(linear, kind)
        for recipe in recipes:
            format, scaling = scaling_of(recipe, kind, getattr(linear.before or linear, kind))
            rows[kind, recipe] = {"format": format.name, **vars(errors(tensor, cast(tensor, format, scaling)))}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["tensor", "recipe"])


def product_errors(linear: Linear, recipes: Sequence[str] = RECIPES) -> pd.DataFrame:
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
        for recipe in recipes:
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


def best(errors: pd.DataFrame, tensor: str, measure: str = "relative_error") -> tuple[str, ...]:
    """The 8-bit recipes with the smallest error on a tensor, from a table of `cast_errors` or `product_errors`.

    Those within one percent of the smallest are all named: in the figure they are the same.
    """
    column = errors.loc[tensor][measure].drop("bf16", errors="ignore")
    return tuple(map(str, column.index[column <= 1.01 * column.min()]))


def _times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b.T


def outliers(tensor: torch.Tensor) -> dict[str, float]:
    """How uneven a tensor is: amax over its root mean square, and the largest column's amax over the median column's.

    Large second figures are what block scaling is for: one loud column no longer sets the scale of the quiet ones.
    """
    magnitudes = tensor.abs().float()
    columns = magnitudes.amax(dim=tuple(range(tensor.ndim - 1)))
    return {
        "amax / rms": float(magnitudes.max() / magnitudes.square().mean().sqrt()),
        "loudest / median column": float(columns.max() / columns.median().clamp(min=1e-30)),
    }
