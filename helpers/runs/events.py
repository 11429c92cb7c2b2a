"""TensorBoard's event files as pandas tables, and such tables as small JSON."""

import math
import re
from functools import lru_cache
from pathlib import Path

from helpers.processes.logs import number

# Megatron's `report_memory` (megatron/training/utils/common_utils.py), in MiB, from the first rank of each data group.
PEAK_IN_LOG = re.compile(r"\[Rank \d+\] \(after \d+ iterations\) memory \(MB\).*?max allocated: ([\d.]+)")
KEPT_DIGITS = 7  # TensorBoard keeps float32


def scalars(directory: Path):
    """Every scalar of a folder of event files: a DataFrame, one row per step, one column per tag.

    A resumed run leaves one file per launch; where two hold the same step, the later launch counts. Tags over samples
    ("... vs samples") are left out: they repeat the others. At its end Megatron writes the loss of the test part under
    the tag of the validation part, "lm loss validation", and the same step (`pretrain` in training/training.py, before
    it ends): of that tag the first value of a step counts.
    """
    files = sorted(path for path in Path(directory).glob("events.out.tfevents.*") if path.is_file())
    return _read(tuple((str(path), path.stat().st_size) for path in files)).copy()


@lru_cache(maxsize=64)
def _read(files: tuple[tuple[str, int], ...]):
    import pandas as pd
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    columns: dict[str, dict[int, float]] = {}
    for path, _ in files:  # their names begin with the time, so a later launch comes later
        # Without the size guidance it would keep a sample of 10,000 points.
        accumulator = EventAccumulator(path, size_guidance={"scalars": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            if not tag.endswith(" vs samples"):
                events = accumulator.Scalars(tag)
                counting = reversed(events) if tag.endswith(" validation") else events
                columns.setdefault(tag, {}).update((e.step, e.value) for e in counting)
    table = pd.DataFrame({tag: pd.Series(values, dtype=float) for tag, values in columns.items()})
    return table.rename_axis("step").sort_index()


def peaks_in_log(text: str) -> list[float]:
    """Peak memory in bytes that ranks reported in a log."""
    return [peak * 2**20 for megabytes in PEAK_IN_LOG.findall(text) if (peak := number(megabytes)) is not None]


def pack(table, max_points: int) -> dict[str, dict[str, list]]:
    """A table of scalars as plain lists: tag → {"step", "value"}; evenly thinned to at most about `max_points`."""
    packed = {}
    for tag in table:
        series = table[tag].dropna()
        every = math.ceil(len(series) / max_points) or 1
        keep = (
            series.iloc[::every] if (len(series) - 1) % every == 0 else series.iloc[[*range(0, len(series), every), -1]]
        )
        packed[tag] = {
            "step": keep.index.tolist(),
            "value": [float(f"{value:.{KEPT_DIGITS}g}") for value in keep],
        }
    return packed


def unpack(packed: dict[str, dict[str, list]]):
    """The table that `pack` was given, at the steps it kept."""
    import pandas as pd

    columns = {tag: pd.Series(lists["value"], index=lists["step"], dtype=float) for tag, lists in packed.items()}
    return pd.DataFrame(columns).rename_axis("step").sort_index()
