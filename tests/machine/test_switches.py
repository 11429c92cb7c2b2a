"""Variables of the environment that are 1 or 0."""

import pytest

from helpers import recipes
from helpers.machine import hardware, switches


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False), (" 1 ", True)])
def test_one_and_zero_are_read(value, on, monkeypatch):
    monkeypatch.setenv("MEGATRON_TOUR_STOCK", value)
    assert switches.is_on("MEGATRON_TOUR_STOCK") is on
    assert recipes.gpt3_345m().stock is on


@pytest.mark.parametrize("value", ["true", "True", "yes", "on", "2", "-1", "banana"])
def test_another_word_is_refused_and_never_passes_for_off(value, monkeypatch):
    for name, ask in (("MEGATRON_TOUR_STOCK", recipes.gpt3_345m), ("MEGATRON_CPU", hardware.here.__wrapped__)):
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=f"^{name}={value!r} in the environment: it is 1 or 0. `export {name}=1`"):
            ask()
