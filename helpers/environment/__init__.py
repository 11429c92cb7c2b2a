"""Is this machine ready? Every finding, and the fix for each that stands in the way."""

from helpers.environment.collectives import Collectives, all_reduce
from helpers.environment.finding import Finding
from helpers.environment.report import Report, check
