"""What a step will take before it runs, on machines that are here or not, and which layout wins."""

from helpers.planner import elsewhere
from helpers.planner.calibration import calibrate, calibrated
from helpers.planner.comparison import SUBJECTS, with_others, with_own, with_ranks_alone, with_records
from helpers.planner.plans import across, best, predict, search
