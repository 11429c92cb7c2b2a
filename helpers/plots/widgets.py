"""Pictures with sliders: a parameter and memory counter, the rank grid, the number line of a format.

Each shows one thing wherever it is read: with a running kernel the sliders and their picture; in a headless run, on a
saved page or in a terminal the picture (or its description) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from helpers.formats import number_formats
from helpers.plots import formats, grid
from helpers.plots.sizes import sizes as drawn_sizes
from helpers.recipes import Layout, Recipe, preflight
from helpers.recipes.preflight.problem import nearest_multiple
from helpers.show.arguments import checked
from helpers.show.message import Message, headless
from helpers.show.style import Picture

if TYPE_CHECKING:
    import torch

SMALL_TENSOR = 2**16  # elements a slider redraws at most, to answer within 200 ms


class Refused(ValueError):
    """The sliders' position makes no sense; the message says why. It is shown in place of the picture."""


class Interactive:
    """Controls, and the picture `draw` makes of their values.

    Args:
        draw: from the controls' values by name to a Picture; a ValueError's message is shown instead of a picture.
        make_controls: gives the ipywidgets by name; called only where there is somebody to move them.
        start: the values of the static picture.
    """

    def __init__(self, draw: Callable[..., Picture], make_controls: Callable[[], Mapping], start: Mapping):
        self.draw, self._make_controls = draw, make_controls
        self.picture = draw(**start)

    @cached_property
    def controls(self) -> Mapping:
        controls = self._make_controls()
        for control in controls.values():
            control.observe(self._redraw, "value")
        return controls

    @cached_property
    def output(self):
        import ipywidgets

        return ipywidgets.HTML(self.picture._repr_html_())

    @cached_property
    def widget(self):
        """The live view: controls in rows of three, the picture below."""
        import ipywidgets

        wrap = ipywidgets.Layout(flex_flow="row wrap", width="100%")
        return ipywidgets.VBox([ipywidgets.Box(list(self.controls.values()), layout=wrap), self.output])

    def _redraw(self, _change) -> None:
        try:
            drawn = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.output.value = drawn._repr_html_()
        except ValueError as refusal:
            self.output.value = Message("wrong", str(refusal))._repr_html_()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The picture always; beside it the live view, which frontends that can show it prefer."""
        static = {"text/plain": self.picture.alt, "text/html": self.picture._repr_html_()}
        return static if headless() else self.widget._repr_mimebundle_() | static

    def __repr__(self) -> str:
        return self.picture.alt


def _choices(description: str, values, start):
    """A slider over a few values, `start` among them."""
    import ipywidgets

    return ipywidgets.SelectionSlider(
        options=[(f"{value:,}", value) for value in sorted({*values, start})],
        value=start,
        description=description,
        continuous_update=True,
        style={"description_width": "9em"},
        layout={"width": "24em"},
    )


def _buttons(description: str, options, start):
    import ipywidgets

    return ipywidgets.ToggleButtons(
        options=list(options), value=start, description=description, style={"button_width": "7em"}
    )


# ---- parameters and memory ---------------------------------------------------------------------------------------
@checked
def parameter_counter(recipe: Recipe) -> Interactive:
    """Parameters by part and memory of one rank, as the sizes of `recipe` (a `recipes.Recipe`) are moved.

    The MLP's width keeps its ratio to the hidden size, and the global batch is the nearest that divides.
    """
    preflight.require(recipe)
    model, layout, batch = recipe.model, recipe.layout, recipe.batch
    start = {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "sequence_length": model.sequence_length,
        "vocab_size": model.vocab_size,
        "tensor_parallel": layout.tensor_parallel,
        "micro_batch_size": batch.micro_batch_size,
    }
    values = {
        "num_layers": ("layers", (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 126)),
        "hidden_size": (
            "hidden size",
            (64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 8192, 12288),
        ),
        "num_attention_heads": ("heads", (1, 2, 4, 8, 12, 16, 24, 32, 40, 64, 96, 128)),
        "sequence_length": ("sequence length", [2**k for k in range(6, 18)]),
        "vocab_size": ("vocabulary", (1024, 4096, 32768, 50304, 65536, 128256, 262144)),
        "tensor_parallel": ("tensor parallel", (1, 2, 4, 8)),
        "micro_batch_size": ("micro-batch", (1, 2, 4, 8, 16, 32, 64)),
    }

    def draw(**sizes) -> Picture:
        return drawn_sizes(_resized(recipe, **sizes), compared_with=recipe)

    def controls():
        return {name: _choices(title, options, start[name]) for name, (title, options) in values.items()}

    return Interactive(draw, controls, start)


def _resized(recipe, *, tensor_parallel: int, **sizes):
    """The recipe at other sizes. Raises Refused where heads, groups and ranks do not divide."""
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    groups = recipe.model.num_query_groups
    if hidden % heads:
        raise Refused(f"{heads} heads cannot share a hidden size of {hidden:,}: it must be a multiple of the heads.")
    if groups and heads % groups:
        raise Refused(f"{heads} heads cannot share {groups} groups of keys and values: heads must be a multiple.")
    if heads % tensor_parallel:
        raise Refused(f"{heads} heads cannot be split over {tensor_parallel} tensor-parallel ranks.")
    ffn = recipe.model.ffn_hidden_size
    if ffn is not None:
        sizes["ffn_hidden_size"] = round(ffn / recipe.model.hidden_size * hidden)
    resized = recipe.with_(tensor_parallel=tensor_parallel, processes=None, **sizes)
    lay, batch = resized.layout, resized.batch
    step = (
        batch.micro_batch_size * lay.data_parallel * (lay.pipeline_parallel if lay.virtual_pipeline_chunks > 1 else 1)
    )
    return resized.with_(global_batch_size=nearest_multiple(batch.global_batch_size, step))


# ---- ranks -------------------------------------------------------------------------------------------------------
@checked
def rank_grid(layout: Layout, rank: int = 0) -> Interactive:
    """The ranks of any TP × PP × DP × CP layout and whom one of them talks to (`plots.rank_grid`).

    Raises:
        ValueError: the ranks of `layout` do not divide into copies of its model, or are more than a slider moves.
    """
    grid.require(layout, rank)

    def draw(data_parallel: int, rank: int, **sizes: int) -> Picture:
        ranks = prod(sizes.values()) * data_parallel
        resized = replace(layout, **sizes, processes=ranks)
        if ranks % resized.expert_model_parallel:
            needed = resized.expert_model_parallel
            raise Refused(f"Experts split this way need a multiple of {needed} ranks, and these are {ranks}.")
        return grid.rank_grid(resized, min(rank, ranks - 1))

    start = {
        "tensor_parallel": layout.tensor_parallel,
        "pipeline_parallel": layout.pipeline_parallel,
        "context_parallel": layout.context_parallel,
        "data_parallel": layout.data_parallel,
        "rank": rank,
    }

    def controls():
        import ipywidgets

        sizes = {name: _choices(name.replace("_", " "), (1, 2, 4, 8), start[name]) for name in list(start)[:4]}
        chosen = ipywidgets.IntSlider(
            value=rank,
            max=layout.world_size - 1,
            description="rank",
            style={"description_width": "8em"},
            layout={"width": "23em"},
        )

        def widen(_change):
            chosen.max = prod(control.value for control in sizes.values()) - 1

        for control in sizes.values():
            control.observe(widen, "value")
        return sizes | {"rank": chosen}

    return Interactive(draw, controls, start)


# ---- numbers -----------------------------------------------------------------------------------------------------
FORMATS = {format.name: format for format in number_formats.FORMATS}
SCALINGS = {
    "unscaled": lambda kind: None,
    "tensorwise": lambda kind: number_formats.CurrentScaling(),
    "blockwise": lambda kind: number_formats.scaling_of("blockwise", kind),
    "mxfp8": lambda kind: number_formats.MXScaling(),
}


@checked
def number_line(tensors: torch.Tensor | Mapping[str, torch.Tensor], format: str = "E4M3") -> Interactive:
    """A tensor on the number line of a format and a scaling of one's choice (`plots.number_line`).

    Args:
        tensors: one tensor, or several by name; a name that holds "weight" is scaled as weights are. Of a large
            tensor the first rows are taken (65,536 elements), and its name says so.
    """
    named = tensors if isinstance(tensors, Mapping) else {"tensor": tensors}
    if not named:
        raise ValueError("widgets.number_line: there is no tensor. It takes one, or several by name.")
    if format not in FORMATS:
        raise ValueError(f"widgets.number_line(format={format!r}): there are {', '.join(FORMATS)}.")
    shown = {}
    for name, tensor in named.items():
        if not tensor.numel():
            raise ValueError(f"widgets.number_line: the tensor {name!r} has no element.")
        matrix = tensor.detach().float().reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
        rows = max(1, SMALL_TENSOR // matrix.shape[1])
        label = name if len(matrix) <= rows else f"{name} (first {rows:,} of {len(matrix):,} rows)"
        shown[name] = matrix[:rows], label, "weight" if "weight" in name else "activation"

    def draw(format: str, scaling: str, tensor: str = next(iter(named))) -> Picture:
        values, label, kind = shown[tensor]
        chosen = FORMATS[format]
        return formats.number_line(values, chosen, SCALINGS[scaling](kind) if chosen.bits == 8 else None, label)

    start = {"format": format, "scaling": "unscaled"}

    def controls():
        buttons = {
            "format": _buttons("format", FORMATS, format),
            "scaling": _buttons("scaling", SCALINGS, "unscaled"),
        }
        if len(named) > 1:
            buttons["tensor"] = _buttons("tensor", named, next(iter(named)))
        return buttons

    return Interactive(draw, controls, start)
