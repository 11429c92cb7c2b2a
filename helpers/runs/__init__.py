"""What runs left behind, here and on named machines."""

from helpers.processes.trust import trust
from helpers.runs import (
    baselines,
    generation_speeds,
    micro_batches,
    one_rank,
    pipeline,
    slurm_failures,
    timeline,
    wandb_history,
)
from helpers.runs.comparison import compare, labels
from helpers.runs.log_lines import log_line
from helpers.runs.one_rank import OneRank
from helpers.runs.records import Recorded, read_result, record, recorded, recorded_anywhere, write_result
from helpers.runs.run import Run, latest, load
