"""What a cell shows of an error: run in a real IPython, with what it prints read back."""

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers.machine import places
from helpers.show import errors

COLOUR = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def cell(capsys):
    """What running a cell prints."""
    shell = InteractiveShell.instance()
    errors.set_in_ipython()

    def run(source: str) -> str:
        shell.run_cell(source)
        return COLOUR.sub("", capsys.readouterr().out)

    yield run
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "from helpers import launch, recipes\nlaunch.train(recipes.gpt3_345m(), 5)",
            "PreflightError: This cannot work",
        ),
        ("from helpers import corpus\ncorpus.prepare('nowhere')", "SourceError: corpus 'nowhere' is not here"),
        ("from helpers import recipes\nrecipes.gpt3_345m().with_(tp=2)", "TypeError: "),
        ("from helpers import runs\nruns.load('/nowhere')", "FileNotFoundError: There is no run directory"),
        ("from helpers import corpus\ncorpus.prepare('/proc/1/mem')", "SourceError: /proc/1/mem cannot be read"),
    ],
)
def test_what_is_told_in_words_stands_without_our_frames(source, words, cell):
    shown = cell(source)
    assert words in shown and "/helpers/" not in shown and "direct cause" not in shown, shown
    assert shown.count("Cell In[") <= 1


def test_an_interrupt_of_any_call_stands_without_our_frames(cell, monkeypatch):
    def interrupt(_path):
        raise KeyboardInterrupt

    monkeypatch.setattr(places.os, "fsencode", interrupt)
    shown = cell("from helpers import machine\nmachine.given('x', '{}')")
    assert "KeyboardInterrupt" in shown and "machine.given" in shown and "places.py" not in shown


def test_a_bug_of_ours_keeps_its_frames_and_so_does_an_error_of_the_learners(cell):
    shown = cell("from helpers.show import numbers\nnumbers.duration('x')")
    assert "TypeError" in shown and "numbers.py" in shown
    shown = cell("def mine():\n    raise ValueError('mine')\nmine()")
    assert "ValueError: mine" in shown and "def mine" in shown
    assert cell("1 / 0").count("ZeroDivisionError") == 2
    assert "SyntaxError" in cell("1 +")


def test_another_tools_handler_stays():
    shell = InteractiveShell.instance()
    try:
        shell.set_custom_exc((ValueError,), lambda *_, **__: None)
        errors.set_in_ipython()
        assert shell.custom_exceptions == (ValueError,)
    finally:
        InteractiveShell.clear_instance()
