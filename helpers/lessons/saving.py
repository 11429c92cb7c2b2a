"""How often to save: what checkpoints cost while all is well, and what they give back when a node dies."""

import math
import random
from collections.abc import Iterable

from helpers.lessons.exercises import told
from helpers.show.arguments import checked
from helpers.show.message import Message
from helpers.show.numbers import as_typed

# Llama Team 2024, "The Llama 3 Herd of Models", section 3.3.4: 419 unexpected interruptions in 54 days on 16,384 H100s.
GPU_HOURS_BETWEEN_FAILURES = 16_384 * 54 * 24 / 419
RESTART_SECONDS = 600  # from a failure to the next step: noticed, queued again, loaded
DAYS = 30
UNITS = ((86400, 4, "days"), (3600, 2, "h"), (60, 2, "min"))  # seconds of each, and from how many on it is used
EXERCISE = {"gpus": 1024, "save_seconds": 45.0}
WITHIN = 0.002  # of the run's time, from the best


@checked
def mean_time_between_failures(gpus: int) -> float:
    """Seconds from one failure to the next of a job on so many GPUs, where each fails as often as Llama 3's did."""
    return GPU_HOURS_BETWEEN_FAILURES * 3600 / gpus


@checked
def lost_share(every: float, save_seconds: float, between_failures: float, restart: float = RESTART_SECONDS) -> float:
    """The share of time that is no progress: saving, the work since the last checkpoint, and starting again.

    1 − every ÷ (M e^(restart ÷ M) (e^((every + save) ÷ M) − 1)), M the time between failures: Daly
    2006. To first order, where all else is small against M, save ÷ every + (every ÷ 2 + restart) ÷ M. All in seconds;
    `save_seconds` is how long training stands still for a checkpoint.
    """
    failing = between_failures
    return 1 - every / (failing * math.exp(restart / failing) * math.expm1((every + save_seconds) / failing))


@checked
def best_interval(save_seconds: float, between_failures: float) -> float:
    """Seconds between two checkpoints with the least lost, to first order: √(2 × save × time between failures)."""
    return math.sqrt(2 * save_seconds * between_failures)


@checked
def table(gpus: Iterable[int], save_seconds: Iterable[float]):
    """A row for each number of GPUs and each time that a checkpoint takes: how often, and what is lost (pandas)."""
    import pandas as pd

    rows = []
    for count in gpus:
        failing = mean_time_between_failures(count)
        for seconds in save_seconds:
            best = best_interval(seconds, failing)
            rows.append(
                {
                    "GPUs": f"{count:,}",
                    "a failure every": _in_words(failing),
                    "a save stops training for": _in_words(seconds),
                    "save every": _in_words(best),
                    "lost": f"{lost_share(best, seconds, failing):.1%}",
                    "lost, saving every 4 h": f"{lost_share(4 * 3600, seconds, failing):.1%}",
                }
            )
    return pd.DataFrame(rows).set_index(["GPUs", "a failure every", "a save stops training for"])


def _in_words(seconds: float) -> str:
    """One unit, two digits: "60 s", "5.6 min", "49 h", "33 days"."""
    for size, least, unit in UNITS:
        if (count := seconds / size) >= least:
            return f"{count:.{int(count < 10)}f} {unit}"
    return f"{seconds:.0f} s"


@checked
def simulate(every: float, save_seconds: float, between_failures: float, days: float = DAYS, seed: int = 1) -> float:
    """The share of time lost by a job whose nodes fail at random (exponential times between failures), run through."""
    chance = random.Random(seed)
    clock = done = 0.0
    fails_at = chance.expovariate(1 / between_failures)
    while clock < days * 86400:
        if fails_at < clock + every + save_seconds:  # nothing since the last checkpoint is kept
            clock = fails_at + RESTART_SECONDS
            fails_at = clock + chance.expovariate(1 / between_failures)
        else:
            clock += every + save_seconds
            done += every
    return 1 - done / clock


@told
def exercise(minutes) -> Message:
    """Exercise: minutes between checkpoints of 1,024 GPUs whose checkpoint stops training for 45 s; checked by running
    a hundred months of such a job through."""
    if minutes is ...:
        return Message("asked", "Put a number of minutes where the … is and run the cell again.")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < 1e5:
        return Message("wrong", f"The answer is a number of minutes, like 30, not {as_typed(minutes)}.")
    failing = mean_time_between_failures(EXERCISE["gpus"])
    best = best_interval(EXERCISE["save_seconds"], failing)
    yours, least = (_simulated(every, failing) for every in (minutes * 60, best))
    found = f"A hundred simulated months lose {yours:.2%} of their time; the best that we know {least:.2%}."
    if yours <= least + WITHIN:
        return Message("right", found)
    more = "saving" if minutes * 60 < best else "work that is done again"
    return Message("wrong", f"{found} Most of the difference is {more}.")


def _simulated(every: float, failing: float) -> float:
    return simulate(every, EXERCISE["save_seconds"], failing, days=100 * DAYS)
