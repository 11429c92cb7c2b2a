"""What cannot work, told before anything starts."""

from helpers.recipes.preflight.checklist import PreflightError, check, refuse, require, require_values, wrong_values
from helpers.recipes.preflight.directory import identity
from helpers.recipes.preflight.division import split
from helpers.recipes.preflight.hosts import reachable, shared, time_limit
from helpers.recipes.preflight.memory import TOO_LARGE
from helpers.recipes.preflight.problem import Problem
