"""Tables of pandas in a cell: words to the left, numbers to the right, one row of names, nothing cut off."""

import re

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers.show import frames
from helpers.show.numbers import is_number

CELL = re.compile(r'<(t[hd]) style="text-align: (\w+)[^"]*">(.*?)</\1>')


def cells(frame, **how) -> list[list[tuple[str, str]]]:
    """(text, side) of each cell, line by line, the names first."""
    lines = re.findall(r"<tr>(.*?)</tr>", frames.to_html(frame, **how))
    return [[(text, side) for _, side, text in CELL.findall(line)] for line in lines]


@pytest.mark.parametrize(
    "text", ["1", "-1", "1,024", "3.5e-05", "40.2%", "40 %", "1.30×", "99 GB", "4.1 GB/s", "–", "354.9M", "<0.01%"]
)
def test_numbers_are_known_with_their_units(text):
    assert is_number(text)


@pytest.mark.parametrize("text", ["", "TP2", "8 × H100", "12·512", "0.5 min (laptop)", "50,304·512", "True", "a 1"])
def test_words_are_no_numbers(text):
    assert not is_number(text)


def test_each_column_stands_on_its_side_below_its_name():
    frame = pd.DataFrame(
        {"part": ["embedding", "MLP"], "parameters": [25_755_648, 512], "share": ["40.2%", "–"], "id": [11241, 7]}
    )
    assert cells(frame.set_index("part")) == [
        [("part", "left"), ("parameters", "right"), ("share", "right"), ("id", "right")],
        [("embedding", "left"), ("25,755,648", "right"), ("40.2%", "right"), ("11241", "right")],
        [("MLP", "left"), ("512", "right"), ("–", "right"), ("7", "right")],
    ]


def test_decimals_are_those_of_pandas_and_whole_columns_have_none():
    frame = pd.DataFrame({"loss": [12.565236, 8.5], "speed": [10760.0, float("nan")], "lr": [3e-5, 1e-4]})
    assert [[text for text, _ in line] for line in cells(frame, index=False)[1:]] == [
        ["12.565236", "10,760", "0.00003"],
        ["8.500000", "–", "0.00010"],
    ]


def test_numbers_beside_a_dash_have_the_digits_of_their_column():
    frame = pd.DataFrame({"speed-up": [1.0, "–", 1.53]}, dtype=object)
    assert [line[0] for line in cells(frame, index=False)[1:]] == [("1.00", "right"), ("–", "right"), ("1.53", "right")]


def test_a_number_that_came_as_text_stays_as_it_is():
    frame = pd.DataFrame({"flag": ["--seed"], "value": ["1234"], "tokens": [1234]})
    assert [text for text, _ in cells(frame, index=False)[1]] == ["--seed", "1234", "1,234"]


def test_a_label_of_several_rows_stands_once_and_text_is_no_markup():
    frame = pd.DataFrame({"batch": [20, 20, 8], "how": ["<b>", "eager", "eager"], "ms": [1, 2, 3]})
    assert [[text for text, _ in line] for line in cells(frame.set_index(["batch", "how"]))] == [
        ["batch", "how", "ms"],
        ["20", "&lt;b&gt;", "1"],
        ["", "eager", "2"],
        ["8", "eager", "3"],
    ]
    assert [line[0][0] for line in cells(frame.set_index("how"))] == ["how", "&lt;b&gt;", "eager", "eager"]


def test_a_long_table_shows_its_ends_and_says_how_long_it_is():
    page = frames.to_html(pd.DataFrame({"step": range(1000)}))
    assert page.count("<tr>") == 1 + 10 + 1 + 10 and ">999<" in page and "<p>1,000 rows</p>" in page


def test_an_empty_table_has_its_names():
    assert cells(pd.DataFrame({"a": [], "b": []}), index=False) == [[("a", "right"), ("b", "right")]]


def test_a_kernel_shows_every_table_so(monkeypatch):
    shell = InteractiveShell.instance()
    try:
        frames.set_in_jupyter()
        shown, _ = shell.display_formatter.format(pd.DataFrame({"why": ["because"]}))
        assert "text-align: left" in shown["text/html"] and "because" in shown["text/plain"]
    finally:
        InteractiveShell.clear_instance()


def test_a_long_name_may_go_on_in_the_next_line():
    """Else its column takes the room of the columns with sentences."""
    shown = frames.to_html(pd.DataFrame({"replaces": ["LanguageModule.compute_language_model_loss", "bias_gelu"]}))
    assert "Language<wbr>Module.<wbr>compute_<wbr>language_<wbr>model_<wbr>loss<" in shown
    assert ">bias_gelu<" in shown
