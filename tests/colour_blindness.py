"""Which colours somebody without green cones cannot tell apart (Viénot, Brettel, Mollon 1999)."""

from itertools import combinations

import matplotlib.colors
import numpy as np


def as_deuteranope(colour) -> np.ndarray:
    """What such a reader sees, in linear RGB."""
    red, green, blue = (channel**2.2 for channel in matplotlib.colors.to_rgb(colour))
    both = 0.29275 * red + 0.70725 * green
    return np.array([both, both, -0.02234 * red + 0.02234 * green + blue])


def confused(palette: dict[str, str]) -> list[tuple[str, str]]:
    """The pairs of names whose colours lie too close together."""
    seen = {name: as_deuteranope(colour) for name, colour in palette.items()}
    return [(one, other) for one, other in combinations(seen, 2) if np.linalg.norm(seen[one] - seen[other]) <= 0.1]
