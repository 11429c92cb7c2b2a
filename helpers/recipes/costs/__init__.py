"""What a step costs, from the sizes of a recipe and the rates of a machine: formulas, nothing fitted to a run."""

from helpers.recipes.costs.rates import Link, Products, Rates, nearest, of
from helpers.recipes.costs.traffic import crossing_bytes, sent_bytes
from helpers.recipes.costs.whole_step import PARTS, Step, computing, step
