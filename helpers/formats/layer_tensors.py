"""Real tensors of a trained model, and what 8 bits cost them: in a cast, and in the layer's three GEMMs."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from helpers.formats.number_formats import E4M3, E5M2, Format, Scaling, cast, errors, relative_error, scaling_of
from helpers.machine import Machine
from helpers.processes import checkpoints, trust
from helpers.runs import Run
from helpers.show import bounds
from helpers.show.arguments import checked

if TYPE_CHECKING:
    import pandas as pd
    import torch

SCALINGS = ("delayed", "tensorwise", "blockwise", "mxfp8")  # the values of Megatron's --fp8-recipe
KINDS = ("weight", "activation", "gradient")
GEMMS = {  # the operands of a layer's GEMMs, transposed or not so that the inner dimension comes last: a · bᵀ
    "fprop": (("activation", False), ("weight", False)),
    "dgrad": (("gradient", False), ("weight", True)),
    "wgrad": (("gradient", True), ("activation", True)),
}
DROPPED = ("--save", "--save-interval", "--tensorboard-dir", "--wandb-project", "--wandb-exp-name", "--wandb-save-dir")


@dataclass(frozen=True)
class Linear:
    """What the three GEMMs of one linear layer are made of, in fp32: weight [out, in], activation (its
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

    step, wrong = checkpoints.loaded_next(Path(run.path) / "checkpoints")
    if step is None:
        raise FileNotFoundError(f"{run.path} {checkpoints.none_whole(wrong)} Train with save_interval set.")
    if why := trust.why_not(run.path):
        raise PermissionError(f"The checkpoint of {run.path} is not loaded. {why} runs.trust(path) says that you know.")
    if words := checkpoints.passed_over(step, wrong):
        print(words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pt"
        flags = _flags(run) + ["--finetune", "--no-load-optim", "--no-load-rng", "--exit-interval", "2"]
        flags += ["--ckpt-step", str(step), "--data-cache-path", folder, "--lr-warmup-iters", "0"]
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
    """What a cast of each tensor loses, ‖x − q‖ / ‖x‖: every scaling with every 8-bit element format.

    Delayed scaling has the tensor's amax of the step before, as in training; without one, its own.

    Returns:
        Index (tensor, element format), a column for each scaling; the values are shares of 1.
    """
    import pandas as pd

    rows = {
        (kind, format.name): {name: _cast_error(linear, kind, format, name) for name in SCALINGS}
        for kind in KINDS
        for format in (E4M3, E5M2)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["tensor", "element format"])


@checked
def decides(errors: pd.DataFrame) -> str:
    """What a table of `cast_errors` depends on more, by its largest ratio: "the scale" or "the element format".

    Raises:
        ValueError: it is another table.
    """
    if errors.index.names != ["tensor", "element format"]:
        raise ValueError("formats.decides takes the table of formats.cast_errors(linear).")
    scales = (errors.max(axis=1) / errors.min(axis=1)).max()
    by_tensor = errors.groupby(level="tensor")
    elements = (by_tensor.max() / by_tensor.min()).max(axis=None)
    return "the scale" if scales > elements else "the element format"


def _cast_error(linear: Linear, kind: str, format: Format, name: str) -> float:
    tensor = getattr(linear, kind)
    return errors(tensor, cast(tensor, format, _scaling(linear, kind, name))).relative_error


def _scaling(linear: Linear, kind: str, name: str) -> Scaling:
    return scaling_of(name, kind, getattr(linear.before or linear, kind))


@checked
def product_errors(linear: Linear) -> pd.DataFrame:
    """Error of the layer's three GEMMs when both operands are cast, against fp64 products of the originals.

    fprop: activation · weightᵀ; dgrad: gradient · weight; wgrad: gradientᵀ · activation. The gradient is E5M2
    (`--fp8-format hybrid`) or E4M3 (`--fp8-format e4m3`), all else E4M3. Blocks lie along the inner dimension of each
    GEMM, so a tensor is cast anew for each, as Transformer Engine does. Cast values are multiplied and summed in fp32.

    Returns:
        Index (GEMM, gradient), a column for each scaling; fprop has no gradient and one row.
    """
    import pandas as pd

    rows = {}
    for gemm, operands in GEMMS.items():
        exact = _exact(linear, gemm)
        for format in (E4M3, E5M2) if gemm != "fprop" else (None,):
            elements = {kind: format if kind == "gradient" else E4M3 for kind, _ in operands}
            rows[gemm, format.name if format else "none"] = {
                name: relative_error(_rounded(linear, gemm, elements, name), exact) for name in SCALINGS
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["GEMM", "gradient"])


def cast_operands(linear: Linear, gemm: str, format: Format, scaling: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One of the three GEMMs with both operands cast to `format`, and in fp64 without a cast: (found, exact)."""
    return _rounded(linear, gemm, dict.fromkeys(KINDS, format), scaling), _exact(linear, gemm)


def _exact(linear: Linear, gemm: str) -> torch.Tensor:
    return _times(*(_facing(linear, kind, flip).double() for kind, flip in GEMMS[gemm]))


def _rounded(linear: Linear, gemm: str, elements: dict[str, Format], name: str) -> torch.Tensor:
    return _times(
        *(
            cast(_facing(linear, kind, flip), elements[kind], _scaling(linear, kind, name)).values
            for kind, flip in GEMMS[gemm]
        )
    )


def _facing(linear: Linear, kind: str, flip: bool) -> torch.Tensor:
    tensor = getattr(linear, kind)
    return tensor.T.contiguous() if flip else tensor


def _times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b.T


@checked
def normal(linear: Linear, seed: Annotated[int, bounds.SEED] = 0) -> Linear:
    """A layer of the same shapes and sizes whose entries are independent normal numbers: nothing in it is learned."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {kind: getattr(linear, kind) for kind in KINDS}
    made = {kind: torch.randn(one.shape, generator=generator) * one.std() for kind, one in tensors.items()}
    return Linear(f"{linear.name} with normal numbers", **made)
