"""Recipe + corpus → run, shown while it trains."""

from helpers.launch.training import follow, train
from helpers.processes.programs import TrainingFailed, ranks
