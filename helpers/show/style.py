"""The one picture language: colours, markers, fonts, and figures that carry their own description.

Colours come from Okabe and Ito (2008) and Paul Tol's muted set: both stay apart for colour-blind readers.
A parallel dimension keeps its colour in every figure and widget; memory is always the same parts in the same order.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

COLOURS = {
    "data": "#0072B2",
    "tensor": "#D55E00",
    "pipeline": "#009E73",
    "context": "#CC79A7",
    "expert": "#E69F00",
}
MEMORY_PARTS = {
    "weights": "#332288",
    "gradients": "#88CCEE",
    "optimizer": "#DDCC77",
    "activations": "#AA4499",
    "other": "#BBBBBB",
}
RUN_COLOURS = ("#000000", "#56B4E9", "#882255", "#999933", "#44AA99", "#AA4499", "#6699CC")
INK, GREY, FAINT = "#222222", "#666666", "#5A5A5A"  # words; those of reference lines; those beside the others
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCE = {"color": "#888888", "linestyle": "--", "linewidth": 1.2, "zorder": 1}
RECORDED_LINE = ":"
RECORDED_HATCH = "////"

# A figure is a sheet with a quiet edge: its ink needs a light ground, whatever the theme around it.
CARD = "box-sizing: border-box; padding: 10px; background: white; border: 1px solid #8888884d; border-radius: 8px"

_RC = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.hinting": "no_autohint",  # the automatic one gives small bold letters serifs
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


def apply():
    """A context manager: matplotlib settings of this tutorial hold inside the `with` block only."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def new_figure(rows=1, columns=1, width=7.2, height=3.6, **subplots):
    """An empty figure (width, height in inches) and its axes, in this style.

    No pyplot: nothing is shown twice and nothing stays open. `subplots` goes to `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    with apply():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **subplots)


def count_steps(axes) -> None:
    """The horizontal axis counts whole steps."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def run_style(index, recorded=False):
    """Line settings of the index-th run of a figure; recorded runs are dotted."""
    return {
        "color": RUN_COLOURS[index % len(RUN_COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": RECORDED_LINE if recorded else "-",
    }


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure with its description in words; Jupyter shows it once, as an image with alt text."""

    figure: object = field(repr=False)
    alt: str

    def __repr__(self) -> str:
        return self.alt

    @cached_property
    def png(self) -> bytes:
        """The image as a PNG file of 128 colours: a third of the bytes, and a notebook keeps many pictures."""
        from PIL import Image, PngImagePlugin

        drawn, small = io.BytesIO(), io.BytesIO()
        with apply():
            self.figure.savefig(drawn, format="png")
        words = PngImagePlugin.PngInfo()
        words.add_itxt("Description", self.alt)
        Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True, pnginfo=words)
        return small.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        width = round(self.figure.get_figwidth() * 100) + 22
        return (
            f'<img alt="{html.escape(self.alt)}" style="max-width: 100%; width: {width}px; {CARD}" '
            f'src="data:image/png;base64,{data}">'
        )

    def save(self, path) -> None:
        """Write the PNG file `path`."""
        with open(path, "wb") as file:
            file.write(self.png)


def in_groups(rows: Iterable[tuple[str, str]]) -> tuple[list[float], dict[float, str]]:
    """Heights for bars one below another, given as (heading, name): that of each bar, and the words at every height."""
    places, words, place, above = [], {}, -1.5, None
    for heading, name in rows:
        if heading != above:
            place, above = place + 1.5, heading
            words[place] = f"{heading}:"
        place += 1
        places.append(place)
        words[place] = name
    return places, words


def name_rows(axes, names: Mapping[float, str]) -> None:
    """Names beside horizontal bars, by height; bars need no lines of a grid and no ticks there."""
    axes.set_yticks(list(names), list(names.values()))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def places(several) -> str:
    """Where runs were measured, each kind of GPU once and without its number: "recorded on NVIDIA H200"."""
    return "; ".join(dict.fromkeys(re.sub(r"\d+ × ", "", run.measured_on) for run in several))
