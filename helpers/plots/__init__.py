"""Every figure, one module per subject. Each comes with its description in words."""

from helpers.plots import widgets
from helpers.plots.changes import waterfall
from helpers.plots.corpus import (
    blend_order,
    document_lengths,
    index_bytes,
    packing,
    pieces,
    split_parts,
    token_bytes,
)
from helpers.plots.data_parallel import data_parallel_cost, data_parallel_table
from helpers.plots.floor import micro_batches
from helpers.plots.formats import number_line, outlier
from helpers.plots.grid import rank_grid, ranks_on_nodes
from helpers.plots.layer import collectives, shards
from helpers.plots.layer_cost import communication_share
from helpers.plots.llama_speeds import format_speeds, format_speeds_table, stock_formats_table
from helpers.plots.pipeline import against_chunks, against_micro_batches, layers_on_stages, pipeline_schedule
from helpers.plots.plans import predicted_and_measured, step_parts
from helpers.plots.sharding import data_parallel_steps, held, zero_stages
from helpers.plots.sizes import memory, parameters
from helpers.plots.speedups import scaling, strong_scaling, strong_scaling_table, weak_scaling, weak_scaling_table
from helpers.plots.starts import two_starts
from helpers.plots.timeline import layer_timeline, time_shares
from helpers.plots.training import curves, learning_rate, loss, loss_difference, signed_differences
from helpers.plots.wires import narrow_wire
