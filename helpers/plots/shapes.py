"""Shapes that several figures draw."""

from helpers.show.style import INK

PALE = "#F4F4F4"


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """`share` of a colour on white: 0 is white, 1 the colour itself."""
    from matplotlib.colors import to_rgb

    return tuple(1 - share * (1 - channel) for channel in to_rgb(colour))


def canvas(width: float, height: float):
    """A figure with one bare axes that fills it, both in inches, y downwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def rounded(axes, x, y, width, height, face, edge, line_width=1.0, hatch=""):
    """A box with rounded corners; x and y are its upper left corner."""
    from matplotlib.patches import FancyBboxPatch

    size = 0.1 * min(width, height)
    shape = f"round,pad=0,rounding_size={size}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=face, ec=edge, lw=line_width, hatch=hatch))


def on(colour: str) -> str:
    """Black or white, whichever can be read on a colour (relative luminance, WCAG 2)."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else INK
