"""A problem of a recipe, in words: what was asked, why it cannot work, what to change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that cannot work (`severity` "error") or will surprise ("warning"): what was asked, why, what to do."""

    severity: str
    asked: str
    why: str
    change: str

    def __str__(self) -> str:
        return f"{self.asked}\n  why:    {self.why}\n  change: {self.change}"


def error(asked: str, why: str, change: str) -> Problem:
    return Problem("error", asked, why, change)


def warning(asked: str, why: str, change: str) -> Problem:
    return Problem("warning", asked, why, change)


def nearest_multiple(number: int, step: int) -> int:
    return max(step, round(number / step) * step)
