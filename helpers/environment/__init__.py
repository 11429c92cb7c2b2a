"""Is this machine ready? Every star that has to align, and the fix for each that does not."""

from helpers.environment.collectives import Collectives, all_reduce
from helpers.environment.finding import Finding
from helpers.environment.report import Report, check
