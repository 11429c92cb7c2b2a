"""Steps of the same model on two hosts, while the wire between them narrows."""

from collections.abc import Mapping
from typing import Any

from helpers.plots import shapes
from helpers.show import message, style
from helpers.show.arguments import checked, fits
from helpers.show.message import Absence
from helpers.show.numbers import as_typed
from helpers.show.style import COLOURS, GREY, INK, REFERENCE, Picture

DIMENSION = {"PP": "pipeline", "DP": "data", "TP": "tensor"}
SECONDS_OF_BITS = 8e-3  # milliseconds × Mbit/s ÷ bytes


@checked
def narrow_wire(measured: Mapping[str, Any]) -> Picture | Absence:
    """Milliseconds a step at each rate of the wire, a panel a layout, from `lessons.wires.measure`. The dashed line is
    the free wire's step and, on top of it, what sending takes: half of the bytes go each way, at the same time."""
    if not (layouts := measured.get("layouts")):
        return message.nothing_recorded("measurement of a wire between two hosts")
    if not fits(layouts, Mapping[str, Mapping]) or not all(map(_is_measured, layouts.values())):
        raise ValueError(f"plots.narrow_wire: {as_typed(layouts)} is nothing that lessons.wires.measure(…) returns.")
    rates = list(next(iter(layouts.values()))["step_ms"])
    with style.apply():
        figure, axes = style.new_figure(1, len(layouts), 9.0, 3.4, sharey=True, squeeze=False)
        for (name, one), panel in zip(layouts.items(), axes[0], strict=True):
            times = [one["step_ms"][rate] for rate in rates]
            colour = COLOURS.get(DIMENSION.get(name[:2], ""), INK)
            panel.bar(rates, times, width=0.62, color=colour, zorder=2)
            words = {"ha": "center", "color": shapes.on(colour), "zorder": 4, "textcoords": "offset points"}
            for place, ms in enumerate(times):
                panel.annotate(f"{ms:,.0f}", (place, 0), (0, 5), **words)
            for place, both in enumerate(_with_sending(one, rates), start=1):
                panel.hlines(both, place - 0.42, place + 0.42, **REFERENCE | {"zorder": 3})
            panel.set_title(f"{name}: {one['sent_bytes'] / 1e6:.1f} MB a step")
            panel.grid(axis="x", visible=False)
        first = next(iter(layouts.values()))
        highest = max(
            _with_sending(first, rates)[-1], *list(first["step_ms"].values())[-2:]
        )  # it is as wide as two bars
        label = {"ha": "right", "color": GREY, "fontsize": 10, "textcoords": "offset points"}
        axes[0, 0].annotate("free + sending", (len(rates) - 0.55, highest), (0, 4), **label)
        axes[0, 0].set_ylabel("ms a step")
        slowest = max(max(*one["step_ms"].values(), *_with_sending(one, rates)) for one in layouts.values())
        axes[0, 0].set_ylim(0, 1.05 * slowest)
        figure.supxlabel(
            "rate of the wire between the hosts (MB: both hosts together; sending: half of them ÷ the rate)",
            fontsize=10,
        )
    spoken = [
        f"{name}: " + ", ".join(f"{rate} {one['step_ms'][rate]:,.0f}" for rate in rates)
        for name, one in layouts.items()
    ]
    return Picture(figure, f"Milliseconds a step by the rate of the wire. {'; '.join(spoken)}.")


def _is_measured(one: Mapping) -> bool:
    return bool(one.get("step_ms")) and fits(one["step_ms"], Mapping[str, float]) and fits(one.get("sent_bytes"), float)


def _with_sending(one: Mapping[str, Any], rates: list[str]) -> list[float]:
    """At each rate but the free one."""
    free = one["step_ms"][rates[0]]
    return [free + one["sent_bytes"] / 2 * SECONDS_OF_BITS / _megabits(rate) for rate in rates[1:]]


def _megabits(rate: str) -> float:
    """ "1 Gbit/s" → 1000."""
    number, unit = rate.split()
    return float(number) * (1000 if unit.startswith("G") else 1)
