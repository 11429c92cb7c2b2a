"""Parameters, floating-point operations and memory of a recipe, counted from its sizes alone."""

from helpers.recipes.accounting.megatron_estimate import megatron_memory
from helpers.recipes.accounting.parameter_count import (
    flops_by_part,
    flops_per_token,
    mfu,
    parameter_counts,
    parameters,
    rank_parameters,
)
from helpers.recipes.accounting.rank_memory import PARTS, checkpoint_bytes, memory
