"""Steps of the same model on two hosts, while the wire between them narrows."""

from collections.abc import Mapping
from typing import Any

from helpers.show import message, style
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.style import COLOURS, INK, REFERENCE, Picture

DIMENSION = {"PP": "pipeline", "DP": "data", "TP": "tensor"}
SECONDS_OF_BITS = 8e-3  # milliseconds × Mbit/s ÷ bytes


@checked
def narrow_wire(measured: Mapping[str, Any]) -> Picture | Absence:
    """Milliseconds a step at each rate of the wire, a panel a layout, from `lessons.wires.measure`. The dashed line is
    the free wire's step and, on top of it, the bytes of one direction over the rate."""
    if not measured["layouts"]:
        return message.nothing_recorded("measurement of a wire between two hosts")
    layouts = measured["layouts"]
    rates = list(next(iter(layouts.values()))["step_ms"])
    with style.apply():
        figure, axes = style.new_figure(1, len(layouts), 9.0, 3.4, sharey=True, squeeze=False)
        for (name, one), panel in zip(layouts.items(), axes[0], strict=True):
            times = [one["step_ms"][rate] for rate in rates]
            panel.bar(rates, times, width=0.62, color=COLOURS.get(DIMENSION.get(name[:2], ""), INK), zorder=2)
            for place, ms in enumerate(times):
                panel.annotate(f"{ms:,.0f}", (place, ms), (0, 3), textcoords="offset points", ha="center", color=INK)
            for place, least in enumerate(_least(one, rates)):
                panel.hlines(least, place - 0.42, place + 0.42, **REFERENCE | {"zorder": 3})
            panel.set_title(f"{name}: {one['sent_bytes'] / 1e6:.1f} MB a step")
            panel.grid(axis="x", visible=False)
        axes[0, 0].set_ylabel("ms a step")
        axes[0, 0].set_ylim(0, 1.12 * max(max(one["step_ms"].values()) for one in layouts.values()))
        figure.supxlabel("the wire between the hosts (dashed: the free step + its bytes ÷ the rate)", fontsize=10)
    spoken = [
        f"{name}: " + ", ".join(f"{rate} {one['step_ms'][rate]:,.0f}" for rate in rates)
        for name, one in layouts.items()
    ]
    return Picture(figure, f"Milliseconds a step by the rate of the wire. {'; '.join(spoken)}.")


def _least(one: Mapping[str, Any], rates: list[str]) -> list[float]:
    """Half of the bytes go each way, at the same time."""
    free = one["step_ms"][rates[0]]
    return [free] + [free + one["sent_bytes"] / 2 * SECONDS_OF_BITS / _megabits(rate) for rate in rates[1:]]


def _megabits(rate: str) -> float:
    """ "1 Gbit/s" → 1000."""
    number, unit = rate.split()
    return float(number) * (1000 if unit.startswith("G") else 1)
