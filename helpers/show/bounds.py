"""How far what a caller gives may go, for annotations: `count: Annotated[int, bounds.SAMPLES]`.

Beyond each lies nothing that anybody wants: a machine that is full, or busy for hours, or a number that C cannot hold.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Above:
    """Numbers above 0, up to `most`."""

    most: float

    def __contains__(self, value) -> bool:
        return 0 < value <= self.most

    def __str__(self) -> str:
        return f"above 0, up to {self.most:,}"


@dataclass(frozen=True)
class From:
    """Numbers from `least` to `most`."""

    least: float
    most: float

    def __contains__(self, value) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        return f"from {self.least:,} to {self.most:,}"


@dataclass(frozen=True)
class Characters:
    """Texts of so many characters at most."""

    most: int

    def __contains__(self, value) -> bool:
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"of up to {self.most:,} characters"


@dataclass(frozen=True)
class Dimensions:
    """Tensors of so many dimensions with something in them."""

    count: int

    def __contains__(self, tensor) -> bool:
        return tensor.ndim == self.count and tensor.numel() > 0

    def __str__(self) -> str:
        return f"of {self.count} dimensions, none of which is 0 long"


PLACE = range(2**31)  # in a list, counted from 0
COUNT = range(1, 2**31)
SEED = range(2**31)  # Megatron adds to it for each rank, and NumPy takes 32 bits
LAYERS = range(1, 10_001)
WIDTH = range(1, 1_000_001)
TOKENS = range(1, 2**24 + 1)  # in one sample
SAMPLES = range(1, 10**8 + 1)
STEPS = range(1, 10**9 + 1)
RANKS = range(1, 100_001)  # of a job that is planned
PROCESSES = range(1, 257)  # of one host
PORT = range(1, 2**16)
BANDWIDTH = Above(10**15)  # bytes/s
BYTES = range(4, 2**30 + 1)  # that a collective sends: a number to a GB
SHARE = From(0, 1)
SECONDS = Above(30 * 24 * 3600)
TEXT = Characters(100_000)
LINE = Characters(300)  # that a figure shows
MATRIX = Dimensions(2)
