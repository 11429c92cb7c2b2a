"""A straight line through times: what each takes beyond its work, and the rate of the work."""

from collections.abc import Sequence


def start(points: Sequence[tuple[float, float]]) -> float:
    """Seconds at no work, of (work, seconds): least squares of the relative differences; never below zero."""
    a = sum(x * x / (y * y) for x, y in points)
    b = sum(x / (y * y) for x, y in points)
    c = sum(1 / (y * y) for _, y in points)
    d, e = sum(x / y for x, y in points), sum(1 / y for _, y in points)
    slope = (d * c - e * b) / (a * c - b * b)
    return max(0.0, (e - b * slope) / c)


def rate(points: Sequence[tuple[float, float]], start: float) -> float:
    """Work a second of all of them together, each after its start: long ones have their weight."""
    return sum(work for work, _ in points) / sum(seconds - start for _, seconds in points)
