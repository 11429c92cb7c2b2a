"""What the exercises of the notebooks expect: a cell asks by name, so the answer does not stand beside its question."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """`value`: a number, a text, a bool, or a list of these. `tolerance`: how far off, as a share of it."""

    value: object
    tolerance: float = 0.01
    hint: str = ""


ANSWERS = {
    # 00
    "all-reduce": Expected([11, 22], hint="Add the first entries, then the second ones."),
    # 01
    "bytes of the index": Expected(34 + 12 * 10_000 + 8 * 10_001, 0, "34 + 12·S + 8·D; D = S + 1."),
    "bits per byte": Expected([1.082, 1.298], hint="ln 2 is 0.6931."),
    # 03
    "megabytes of an all-reduce": Expected(67.1, hint="sequence × batch × hidden numbers, two bytes each."),
    "possible TP": Expected([2, 4, 8, 16], hint="Every rank holds the same number of whole heads."),
    "largest TP": Expected(4, 0, "layer_cost.ratio of wide.with_(tensor_parallel=…, sequence_parallel=True)."),
    "padded vocabulary at TP 2": Expected(50_432, 0, "The next multiple of 256."),
    # 04
    "largest E4M3": Expected(448, hint="It stands in the table of formats."),
    "scale": Expected(6400, hint="Largest of the format ÷ largest of the tensor."),
    "GB a rank": Expected(8.03 * (2 + 4 + 12 / 4), 0.02, "2 + 4 bytes stay whole; 12 are split by four."),
}
