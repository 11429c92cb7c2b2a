"""A problem of a recipe, in words: what was asked, why it cannot work, what to change."""

from dataclasses import dataclass

from helpers.show.numbers import cut

LONGEST = 1000  # letters of each of the three


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
    return Problem("error", *_cut(asked, why, change))


def warning(asked: str, why: str, change: str) -> Problem:
    return Problem("warning", *_cut(asked, why, change))


def _cut(*words: str) -> tuple[str, ...]:
    return tuple(cut(one, LONGEST) for one in words)


def nearest_multiple(number: int, step: int) -> int:
    return max(step, round(number / step) * step)
