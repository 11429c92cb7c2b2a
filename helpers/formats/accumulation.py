"""How a tensor core adds up the products of an FP8 GEMM, emulated on a CPU.

A Hopper tensor core takes 32 products at a time, aligns them with the running sum at the largest exponent among them,
and keeps about 14 bits: what lies below is cut off (DeepSeek-V3 technical report, sections 3.3.2 and 3.5.2, arXiv
2412.19437). Split accumulation moves the partial sum into fp32 registers every 128 products and begins a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from helpers.formats.number_formats import E4M3, CurrentScaling, cast, relative_error
from helpers.show import bounds
from helpers.show.arguments import checked

if TYPE_CHECKING:
    import pandas as pd
    import torch

AT_ONCE, KEPT_BITS, SPLIT_AT = 32, 14, 128
LENGTHS = (128, 1024, 4096, 14336)  # inner dimensions of the table; the last is that of Llama3-8B's fc2
MEANS = ((0, 0), (1, 0), (1, 1))  # of the two operands, whose spread is 1
ROWS = 32  # of each operand
BITS = range(1, 25)  # of fp32, in which it is emulated


@checked
def add_up(
    a: Annotated[torch.Tensor, bounds.MATRIX],
    b: Annotated[torch.Tensor, bounds.MATRIX],
    bits: Annotated[int, BITS] = KEPT_BITS,
    split_at: Annotated[int, bounds.COUNT] | None = None,
) -> torch.Tensor:
    """a · bᵀ of fp32 operands [m, k] and [n, k], summed 32 products at a time with `bits` bits kept.

    Args:
        split_at: products after which the partial sum moves to fp32; None keeps one running sum to the end.

    Raises:
        ValueError: the operands have different k.
    """
    import torch

    if a.shape[1] != b.shape[1]:
        raise ValueError(f"add_up: k is {a.shape[1]} in a and {b.shape[1]} in b. They are [m, k] and [n, k].")
    total = torch.zeros(len(a), len(b))
    running = torch.zeros(len(a), len(b))
    for start in range(0, a.shape[1], AT_ONCE):
        some = slice(start, start + AT_ONCE)
        terms = torch.cat([a[:, None, some] * b[None, :, some], running[..., None]], dim=-1)
        largest, exponent = terms.abs().amax(dim=-1, keepdim=True).frexp()
        unit = torch.ldexp(
            torch.ones_like(largest), exponent - bits
        )  # of the largest term: `bits` bits, its first one included
        running = ((terms / unit).trunc() * unit).sum(dim=-1)
        if split_at and (start + AT_ONCE) % split_at == 0:
            total, running = total + running, torch.zeros_like(running)
    return total + running


@checked
def accumulation_errors(seed: Annotated[int, bounds.SEED] = 0) -> pd.DataFrame:
    """What the sum alone loses, by the means of the two operands and the length of the inner dimension (pandas).

    The operands are normal numbers with spread 1, cast to E4M3. Errors of the sums are relative to the product of the
    cast operands in fp64; `cast` is what that product lost to the cast.
    """
    import pandas as pd
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = {}
    for means in MEANS:
        for length in LENGTHS:
            pair = [mean + torch.randn(ROWS, length, generator=generator) for mean in means]
            a, b = (cast(one, E4M3, CurrentScaling()).values for one in pair)
            exact = a.double() @ b.double().T
            rows["{} × {}".format(*means), length] = {
                "cast": relative_error(exact, pair[0].double() @ pair[1].double().T),
                "summed in fp32": relative_error(a @ b.T, exact),
                "14 bits": relative_error(add_up(a, b), exact),
                "14 bits, split every 128": relative_error(add_up(a, b, split_at=SPLIT_AT), exact),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["means", "inner dimension"])
