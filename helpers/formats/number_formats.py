"""Number formats as values, and what a cast to one costs: E4M3, E5M2, bf16, fp16 under every scaling Megatron offers.

The names of the scalings are the values of Megatron's `--fp8-recipe`: delayed, tensorwise (current scaling), blockwise,
mxfp8. The casts are real ones, with torch's float8 types, which work on any CPU. GEMMs are not part of this module:
`layer_tensors` multiplies the cast values and sums in fp32, `accumulation` sums as a Hopper tensor core does.

Sources: Micikevicius et al. 2022, "FP8 formats for deep learning" (arXiv 2209.05433); Transformer Engine's
`transformer_engine/common/recipe`; DeepSeek-V3 technical report, section 3.3 (arXiv 2412.19437); OCP Microscaling
Formats (MX) v1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from helpers.show.arguments import checked
from helpers.show.numbers import short_number

if TYPE_CHECKING:
    import pandas as pd
    import torch


@dataclass(frozen=True)
class Format:
    """A floating-point format. `largest` is the largest finite value; `has_infinity` is False for E4M3 only, which
    spends those codes on numbers (Micikevicius et al. 2022, table 1)."""

    IN_WORDS = "a format, such as number_formats.E4M3"

    name: str
    exponent_bits: int
    mantissa_bits: int
    largest: float
    has_infinity: bool
    torch_name: str

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (1 - self.bias - self.mantissa_bits)

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.torch_name)

    def spacing(self, value: float) -> float:
        """The distance from |value| to the next representable magnitude above it."""
        exponent = math.floor(math.log2(abs(value))) if abs(value) >= self.smallest_normal else 1 - self.bias
        return 2.0 ** (exponent - self.mantissa_bits)

    def values(self) -> torch.Tensor:
        """Every finite value, ascending, fp32 [n]; zero once. 8-bit formats have ~250, 16-bit ones ~65,000."""
        return _values(self)


E4M3 = Format("E4M3", 4, 3, 448.0, False, "float8_e4m3fn")
E5M2 = Format("E5M2", 5, 2, 57344.0, True, "float8_e5m2")
BF16 = Format("bf16", 8, 7, (2 - 2**-7) * 2.0**127, True, "bfloat16")
FP16 = Format("fp16", 5, 10, 65504.0, True, "float16")
FORMATS = (E4M3, E5M2, BF16, FP16)


@cache
def _values(format: Format) -> torch.Tensor:
    import torch

    codes = torch.arange(2**format.bits, dtype=torch.int32).to(torch.uint8 if format.bits == 8 else torch.uint16)
    values = codes.view(format.dtype).float()
    return values[values.isfinite()].unique()


def table() -> pd.DataFrame:
    """The formats side by side, one row each: bits, largest, smallest normal and subnormal, spacing at 1."""
    import pandas as pd

    rows = [
        {
            "format": f.name,
            "exponent bits": f.exponent_bits,
            "mantissa bits": f.mantissa_bits,
            "largest": short_number(f.largest),
            "smallest normal": short_number(f.smallest_normal),
            "smallest subnormal": short_number(f.smallest_subnormal),
            "spacing at 1": short_number(f.spacing(1.0)),
            "finite values": len(f.values()),
            "infinity": "yes" if f.has_infinity else "no",
        }
        for f in FORMATS
    ]
    return pd.DataFrame(rows).set_index("format")


@dataclass(frozen=True)
class Unscaled:
    """A plain cast: the tensor as it is."""

    name = "unscaled"

    def scale(self, tensor: torch.Tensor, format: Format) -> torch.Tensor:
        return tensor.new_ones(())


@dataclass(frozen=True)
class DelayedScaling:
    """One scale per tensor, from the amax of *earlier* steps, so no pass over the tensor is needed before the cast.

    scale = largest / amax / 2^margin, and 1 while no step has been seen, as in Transformer Engine's `DelayedScaling`.
    The defaults are Transformer Engine's; Megatron's `--fp8-amax-history-len` is 1 and `--fp8-amax-compute-algo` is
    most_recent unless you say otherwise. `seen(tensor)` returns the scaling of the next step.
    """

    amax_history_len: int = 1024
    amax_compute_algo: str = "max"
    margin: int = 0
    amax_history: tuple[float, ...] = ()

    name = "delayed"

    def seen(self, tensor: torch.Tensor) -> DelayedScaling:
        history = (*self.amax_history, float(tensor.abs().max()))
        return replace(self, amax_history=history[-self.amax_history_len :])

    def scale(self, tensor: torch.Tensor, format: Format) -> torch.Tensor:
        if self.amax_compute_algo not in ("max", "most_recent"):
            raise ValueError(f"amax_compute_algo is {self.amax_compute_algo!r}: say 'max' or 'most_recent'")
        if not self.amax_history:
            return tensor.new_ones(())
        amax = max(self.amax_history) if self.amax_compute_algo == "max" else self.amax_history[-1]
        return _scale_of(tensor.new_tensor(amax), format) / 2**self.margin


@dataclass(frozen=True)
class CurrentScaling:
    """One scale per tensor, from its own amax: exact fit, one more pass over the tensor. `--fp8-recipe tensorwise`."""

    name = "tensorwise"

    def scale(self, tensor: torch.Tensor, format: Format) -> torch.Tensor:
        return _scale_of(tensor.abs().max(), format)


@dataclass(frozen=True)
class BlockScaling:
    """One power-of-two scale per block of `block` = (rows, columns) of the last two axes, columns along the inner
    dimension of the product. DeepSeek-V3: 1×128 for activations and gradients, 128×128 for weights (section 3.3.2);
    Transformer Engine's `Float8BlockScaling` does the same. The power of two is the one that never saturates."""

    block: tuple[int, int] = (1, 128)

    name = "blockwise"

    def scale(self, tensor: torch.Tensor, format: Format) -> torch.Tensor:
        return _power_of_two(_scale_of(_block_amax(tensor, self.block), format), -126, 127)


@dataclass(frozen=True)
class MXScaling:
    """One E8M0 scale (a power of two between 2^-127 and 2^127 in 8 bits) for 32 neighbours along the inner dimension
    (OCP MX v1.0). The scale is rounded so that nothing saturates, as Transformer Engine's `MXFP8BlockScaling` does; the
    OCP paper's own rule takes floor(log2 amax) and may clip the largest value of a block."""

    block: tuple[int, int] = (1, 32)

    name = "mxfp8"

    def scale(self, tensor: torch.Tensor, format: Format) -> torch.Tensor:
        return _power_of_two(_scale_of(_block_amax(tensor, self.block), format), -127, 127)


Scaling = Unscaled | DelayedScaling | CurrentScaling | BlockScaling | MXScaling


def _scale_of(amax: torch.Tensor, format: Format) -> torch.Tensor:
    """largest / amax; 1 where amax is zero or not finite (nothing to fit)."""
    fits = amax.isfinite() & (amax > 0)
    return (format.largest / amax.where(fits, amax.new_ones(()) * format.largest)).clamp(max=2.0**127)


def _power_of_two(scale: torch.Tensor, lowest: int, highest: int) -> torch.Tensor:
    mantissa, exponent = scale.frexp()  # scale = mantissa · 2^exponent, 0.5 ≤ mantissa < 1
    return scale.new_ones(scale.shape).ldexp((exponent - 1).clamp(lowest, highest))


def _block_amax(tensor: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """The largest magnitude of each element's block, in the tensor's shape; ragged edges form smaller blocks."""
    import torch

    rows, columns = block
    matrix = tensor.abs().reshape(-1, tensor.shape[-1])
    height, width = matrix.shape
    padded = torch.nn.functional.pad(matrix, (0, -width % columns, 0, -height % rows))
    tiles = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    amax = tiles.amax(dim=(1, 3), keepdim=True).expand_as(tiles).reshape(padded.shape)
    return amax[:height, :width].reshape(tensor.shape)


@dataclass(frozen=True)
class Cast:
    """What a cast left. `codes`: the tensor in the format's own type; `scale`: what it was multiplied by, broadcastable
    to its shape; `saturated`: share of elements that were beyond the format's range."""

    codes: torch.Tensor
    scale: torch.Tensor
    saturated: float
    format: Format
    scaling: Scaling

    @property
    def values(self) -> torch.Tensor:
        """The numbers a matrix product sees, fp32, in the tensor's shape and units."""
        return self.codes.float() / self.scale


@checked
def cast(tensor: torch.Tensor, format: Format, scaling: Scaling | None = None) -> Cast:
    """Multiply by the scale, then round to the nearest value of the format, ties to even.

    FP8 casts saturate at the largest value (as Transformer Engine casts); fp16 and bf16 overflow to infinity.

    Args:
        tensor: any shape and float type; for block scaling the last axis is the product's inner dimension.
        scaling: how to scale; None casts the tensor as it is.
    """
    scaling = scaling or Unscaled()
    tensor = tensor.detach().float()
    scale = scaling.scale(tensor, format)
    scaled = tensor * scale
    beyond = scaled.abs() > format.largest * (1 + 1e-6)  # amax · (largest / amax) may round up by a hair
    if format.bits == 8:
        scaled = scaled.clamp(-format.largest, format.largest)
    return Cast(scaled.to(format.dtype), scale, float(beyond.float().mean()), format, scaling)


@dataclass(frozen=True)
class Errors:
    """relative_error: ‖x − q‖ / ‖x‖. sqnr_db: the same as a signal-to-noise ratio, 20·log10 of its inverse. underflow:
    share of non-zero elements that became zero. saturated: share of elements beyond the format's range."""

    relative_error: float
    sqnr_db: float
    underflow: float
    saturated: float


@checked
def errors(tensor: torch.Tensor, result: Cast) -> Errors:
    """How far a cast is from the tensor it was made from."""
    tensor = tensor.detach().float()
    relative = relative_error(result.values, tensor)
    nonzero = tensor != 0
    lost = nonzero & (result.values == 0)
    return Errors(relative, decibel(relative), float(lost.sum() / nonzero.sum().clamp(min=1)), result.saturated)


@checked
def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """‖found − exact‖ / ‖exact‖ (Frobenius norms, in fp64); 0 for two zero tensors."""
    exact = exact.double()
    difference, norm = float((found.double() - exact).norm()), float(exact.norm())
    return difference / norm if norm else (math.inf if difference else 0.0)


def decibel(relative: float) -> float:
    """A relative error as a signal-to-noise ratio in dB; infinite for none."""
    return -20 * math.log10(relative) if relative else math.inf


@checked
def scaling_of(name: str, tensor_kind: str, previous: torch.Tensor | None = None) -> Scaling:
    """How a value of Megatron's `--fp8-recipe` scales a tensor, whatever element format it is cast to.

    Args:
        name: delayed, tensorwise, blockwise or mxfp8.
        tensor_kind: weight, activation or gradient.
        previous: the same tensor one step earlier, for the history of delayed scaling.
    """
    if name == "delayed":
        return DelayedScaling().seen(previous) if previous is not None else DelayedScaling()
    if name == "tensorwise":
        return CurrentScaling()
    if name == "blockwise":
        return BlockScaling((128, 128) if tensor_kind == "weight" else (1, 128))
    if name == "mxfp8":
        return MXScaling()
    raise ValueError(f"there is no FP8 recipe {name!r}: say delayed, tensorwise, blockwise or mxfp8")
