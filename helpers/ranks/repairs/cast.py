"""Flat pieces of fp32 weights cast to FP8 once, not twice.

With `--fp8-param-gather` each rank casts its share of the fp32 weights to FP8, flat, as [N] or [1, N]
(`pytorch/tensor/utils.py` of Transformer Engine). The quantizer writes a transposed copy as well, which nobody reads,
with a kernel made for matrices: 245 of the 1,383 ms of a Llama3-8B step of four samples on two H200s.
"""


def apply() -> None:
    """Let `Float8Quantizer` write no transposed copy of a flat tensor."""
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer

    cast = Float8Quantizer.update_quantized

    def update_quantized(self, src, dst, *, noop_flag=None):
        wanted, is_flat = self.columnwise_usage, max(dst.shape, default=1) == dst.numel()
        self.columnwise_usage = wanted and not is_flat
        try:
            return cast(self, src, dst, noop_flag=noop_flag)
        finally:
            self.columnwise_usage = wanted

    Float8Quantizer.update_quantized = update_quantized


def measure() -> dict[str, tuple[float, float]]:
    """64 million fp32 weights in one row, with the transposed copy and without."""
    import torch
    import transformer_engine_torch as tex
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer

    from helpers.ranks.repairs.timing import microseconds

    weights = torch.randn(1, 1 << 26, device="cuda")

    def cast(columnwise: bool) -> float:
        one = torch.ones(1, device="cuda")
        quantizer = Float8Quantizer(one, one.clone(), tex.DType.kFloat8E4M3, columnwise=columnwise)
        made = quantizer.make_empty(weights.shape, dtype=torch.float32, device="cuda")
        return microseconds(lambda: quantizer.update_quantized(weights, made))

    return {"a flat cast of 64M weights": (cast(True), cast(False))}
