"""One column of an activation made louder and louder: what that leaves of the layer's GEMMs.

Trained transformers have such columns, "outlier channels" (Dettmers et al. 2022, "LLM.int8()", section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from helpers.formats.layer_tensors import Linear, cast_operands
from helpers.formats.number_formats import E4M3, Format, relative_error
from helpers.show import bounds
from helpers.show.arguments import checked

if TYPE_CHECKING:
    import pandas as pd

SCALINGS = ("tensorwise", "blockwise", "mxfp8")
FACTORS = tuple(10.0**power for power in range(7))


@checked
def outlier_errors(linear: Linear, format: Format = E4M3, column: Annotated[int, bounds.PLACE] = 0) -> pd.DataFrame:
    """Errors of a layer's GEMMs once a column of its activation [tokens, in] is multiplied by 1, 10, … 10⁶.

    Returns:
        Index (factor, scaling), relative errors ‖found − exact‖ / ‖exact‖. `wgrad, quiet`: the weights' gradient
        without the loud column's. `fprop`: the output. `fprop, weight 0`: the output when the weights that the loud
        column meets are 0, so that it is made of the quiet columns alone.

    Raises:
        ValueError: there is no such column, or no other one.
    """
    import pandas as pd
    import torch

    if not column < (columns := linear.activation.shape[1]) > 1:
        raise ValueError(
            f"formats.outlier_errors(column={column}): the activation has {columns:,}, counted from 0, and beside the "
            "loud one there must be another."
        )
    quiet = torch.arange(columns) != column
    muted = linear.weight * quiet
    rows = {}
    for factor in FACTORS:
        loud = replace(linear, activation=linear.activation * torch.where(quiet, 1.0, factor), before=None)
        silent = replace(loud, weight=muted)
        for name in SCALINGS:
            found, exact = cast_operands(loud, "wgrad", format, name)
            rows[factor, name] = {
                "wgrad, quiet": relative_error(found[:, quiet], exact[:, quiet]),
                "fprop": relative_error(*cast_operands(loud, "fprop", format, name)),
                "fprop, weight 0": relative_error(*cast_operands(silent, "fprop", format, name)),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["factor", "scaling"])


@checked
def loudest(layers: Mapping[str, Linear]) -> pd.DataFrame:
    """How loud the loudest column of each layer's activation is, against the median column (pandas).

    A column's loudness is its amax over the tokens; `layers` are those of `formats.of_run(run)`.
    """
    import pandas as pd

    rows = {}
    for name, linear in layers.items():
        amax = linear.activation.abs().amax(dim=0)
        rows[name] = {
            "columns": len(amax),
            "loudest column": int(amax.argmax()),
            "its amax": round(float(amax.max()), 3),
            "median amax": round(float(amax.median()), 3),
            "loudest ÷ median": round(float(amax.max() / amax.median()), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("input of")
