"""One of each widget, and moves of one of its sliders."""

import torch

from helpers import recipes
from helpers.plots import widgets
from helpers.recipes import Layout

TENSORS = {
    "weight": torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) * 0.02,
    "activation": torch.randn(300, 512, generator=torch.Generator().manual_seed(1)),
}
MAKERS = {
    "parameter_counter": lambda: widgets.parameter_counter(recipes.llama3_8b()),
    "rank_grid": lambda: widgets.rank_grid(Layout(tensor_parallel=2, pipeline_parallel=2, processes=8)),
    "number_line": lambda: widgets.number_line(TENSORS),
}
MOVES = {
    "parameter_counter": ("num_layers", (8, 16, 24, 40)),
    "rank_grid": ("tensor_parallel", (4, 1, 8, 2)),
    "number_line": ("scaling", ("tensorwise", "blockwise", "mxfp8", "unscaled")),
}
