"""Sentences in a cell, and an interrupt that is told in one line."""

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from helpers.show.message import LOOK, Message, quiet
from helpers.show.tables import HTML_COLOURS

WHITE, BLACK = "#ffffff", "#111111"  # the grounds of JupyterLab's two themes


def interrupt_in_a_helper():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as interrupt:
        quiet(interrupt, "KeyboardInterrupt: stopped.")
        raise


def test_an_interrupt_shows_its_words_and_none_of_our_frames():
    shell = InteractiveShell.instance()
    try:
        shell.user_ns["helper"] = interrupt_in_a_helper
        with capture_output() as told:
            result = shell.run_cell("helper()")
    finally:
        InteractiveShell.clear_instance()
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert told.stdout.strip() == "KeyboardInterrupt: stopped."


def test_words_are_no_markup():
    assert "a &lt; b" in Message("plain", "a < b")._repr_html_()


def contrast(one: str, other: str) -> float:
    """WCAG 2: from 1 (the same) to 21 (black on white)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [*HTML_COLOURS.values(), *(colour for _, colour in LOOK.values())])
def test_coloured_words_read_in_both_themes(colour):
    """3 is WCAG's least for bold and large words, which these are."""
    assert min(contrast(colour, WHITE), contrast(colour, BLACK)) > 3.4
