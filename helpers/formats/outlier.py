"""One column of a tensor made louder and louder: what a cast then leaves of the others.

Trained transformers have such columns, "outlier channels" (Dettmers et al. 2022, "LLM.int8()", section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from helpers.formats.number_formats import E4M3, Format, cast, relative_error, scaling_of
from helpers.show import bounds
from helpers.show.arguments import checked

if TYPE_CHECKING:
    import pandas as pd
    import torch

SCALINGS = ("tensorwise", "blockwise", "mxfp8")
FACTORS = tuple(10.0**power for power in range(7))


@checked
def outlier_errors(
    tensor: Annotated[torch.Tensor, bounds.MATRIX], format: Format = E4M3, column: Annotated[int, bounds.PLACE] = 0
) -> pd.DataFrame:
    """Errors of a cast once a column of the tensor [rows, columns] is multiplied by 1, 10, … 10⁶.

    Returns:
        Index (factor, scaling). `whole`: ‖x − q‖ / ‖x‖ of the whole tensor. `quiet columns`: the same of all but the
        loud one. `become zero`: the share of the quiet columns' non-zero elements that the cast makes zero.

    Raises:
        ValueError: there is no such column, or no other one.
    """
    import pandas as pd
    import torch

    if not column < (columns := tensor.shape[1]) > 1:
        raise ValueError(
            f"formats.outlier_errors(column={column}): the tensor has {columns:,}, counted from 0, and beside the loud "
            "one there must be another."
        )
    quiet = torch.arange(tensor.shape[-1]) != column
    rows = {}
    for factor in FACTORS:
        loud = tensor.detach().float().clone()
        loud[..., column] *= factor
        for name in SCALINGS:
            found = cast(loud, format, scaling_of(name, "activation")).values
            before, after = loud[..., quiet], found[..., quiet]
            rows[factor, name] = {
                "whole": relative_error(found, loud),
                "quiet columns": relative_error(after, before),
                "become zero": float((after[before != 0] == 0).float().mean()),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["factor", "scaling"])
