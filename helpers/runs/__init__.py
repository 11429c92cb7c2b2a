"""What runs left behind, here and on named machines."""

from helpers.runs import baselines, timeline, wandb_history
from helpers.runs.comparison import compare, labels
from helpers.runs.records import Recorded, read_result, record, recorded, write_result
from helpers.runs.run import Run, latest, load

__all__ = [
    "Recorded",
    "Run",
    "baselines",
    "compare",
    "labels",
    "latest",
    "load",
    "read_result",
    "record",
    "recorded",
    "timeline",
    "wandb_history",
    "write_result",
]
