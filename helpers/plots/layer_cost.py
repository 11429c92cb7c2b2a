"""How much of a layer is communication, against its width."""

from typing import TYPE_CHECKING

from helpers.show import style
from helpers.show.arguments import checked
from helpers.show.style import GREY, REFERENCE, Picture

if TYPE_CHECKING:
    import pandas as pd


@checked
def communication_share(table: "pd.DataFrame") -> Picture:
    """T_comm ÷ T_comp of a layer against its hidden size, one line a machine and TP; dashed, where both are equal.

    Args:
        table: from `lessons.layer_cost.ratios`.
    """
    if table.index.name != "hidden size":
        raise ValueError("plots.communication_share: it takes a table of layer_cost.ratios.")
    with style.apply():
        figure, axes = style.new_figure(width=8.2, height=4.4)
        axes.axhline(1, **REFERENCE)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center", "color": GREY}
        axes.annotate("as long as\nthe GEMMs", (1, 1), (5, 0), **place)
        for index, name in enumerate(table):
            axes.plot(table.index, table[name], label=name, **style.run_style(index))
        axes.set(xscale="log", yscale="log", xlabel="hidden size", ylabel="T_comm ÷ T_comp of a layer")
        axes.set_xticks(list(table.index), [f"{width:,}" for width in table.index])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        figure.legend(loc="outside lower center", ncols=3)
    first, last = table.index[0], table.index[-1]
    words = [f"{name}: {table[name][first]:.2g} at {first}, {table[name][last]:.2g} at {last}" for name in table]
    return Picture(figure, f"Collectives over GEMMs of a layer by hidden size. {'; '.join(words)}.")
