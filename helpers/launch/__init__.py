"""Recipe + corpus → run, shown while it trains."""

from helpers.launch.one_rank import one_of_many
from helpers.launch.replay import replay_pipeline
from helpers.launch.several_hosts import by_hand
from helpers.launch.training import follow, train
from helpers.processes.programs import TrainingFailed, ranks
