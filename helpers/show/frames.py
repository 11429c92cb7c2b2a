"""How a pandas table looks in a cell: words to the left, numbers to the right, thousands separated, one row of names.

Jupyter sets every column to the right. The styles stand in the cells: a client that knows no style sheet keeps them.
"""

import html
import re

from helpers.show.numbers import is_number

WHOLE_SHOWN = 60  # rows, as in pandas; of a longer table the first and the last ten
LONG_WORD = re.compile(r"[^\s<>&]{30,}")  # a name of a function, a path
JOINTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[._/])(?=\w)")  # where it may go on in the next line
THOUSANDS = re.compile(r"-?\d{4,}(?:\.\d+)?")


def set_in_jupyter() -> None:
    """From now on this kernel shows every DataFrame so. Outside IPython: nothing."""
    from IPython import get_ipython

    if shell := get_ipython():
        pages = shell.display_formatter.formatters["text/html"]
        for module in ("pandas", "pandas.core.frame"):  # its name since pandas 3, and before
            pages.for_type_by_name(module, "DataFrame", to_html)


def to_html(frame, index: bool = True, header: bool = True) -> str:
    """A DataFrame as an HTML table. Column names of several levels are left to pandas."""
    import pandas as pd

    if frame.columns.nlevels > 1:
        return frame.to_html(border=0, index=index)
    long = len(frame) > WHOLE_SHOWN
    shown = pd.concat([frame.head(10), frame.tail(10)]) if long else frame
    labels = _labels(shown.index) if index else []
    texts = labels + [_texts(shown.iloc[:, place]) for place in range(len(shown.columns))]
    looks = [_look(column) for column in texts]
    rows = list(zip(*texts, strict=True))
    if long:
        rows.insert(10, ("…",) * len(texts))
    names = [*("" if name is None else name for name in (frame.index.names if index else ())), *frame.columns]
    parts = [_row([str(name) for name in names], looks, len(texts))] if header else []
    parts = ["<thead>", *parts, "</thead><tbody>", *(_row(row, looks, len(labels)) for row in rows), "</tbody>"]
    size = f"<p>{len(frame):,} rows</p>" if long else ""
    return f'<table class="dataframe">{"".join(parts)}</table>{size}'


def _labels(index) -> list[list[str]]:
    """The labels of each level; one that several rows share, but for the last level's, stands in the first of them."""
    rows = [tuple(map(str, row)) for row in (index if index.nlevels > 1 else ((label,) for label in index))]
    last = index.nlevels - 1
    return [
        [
            "" if level < last and place and rows[place - 1][: level + 1] == row[: level + 1] else row[level]
            for place, row in enumerate(rows)
        ]
        for level in range(index.nlevels)
    ]


def _texts(column) -> list[str]:
    import pandas as pd

    if len(column) and all(value == "–" or pd.api.types.is_float(value) for value in column):
        numbers = pd.to_numeric(column, errors="coerce")
        texts = [text.strip() for text in numbers.to_string(index=False, header=False, na_rep="–").split("\n")]
        if all(text == "–" or text.endswith(".0") for text in texts):
            texts = [text.removesuffix(".0") for text in texts]
        return [_separated(text) for text in texts]
    named = str(column.name).endswith("id")  # an id is a name, as is a number that came as text
    return [str(value) if named or isinstance(value, str) else _text(value) for value in column]


def _text(value) -> str:
    import pandas as pd

    return "–" if pd.api.types.is_scalar(value) and pd.isna(value) else _separated(str(value))


def _separated(text: str) -> str:
    whole, point, rest = text.partition(".")
    return f"{int(whole):,}{point}{rest}" if THOUSANDS.fullmatch(text) else text


def _look(texts: list[str]) -> str:
    numbers = all(is_number(text) for text in texts if text)
    return f"text-align: {'right; white-space: nowrap' if numbers else 'left'}; vertical-align: top"


def _row(texts, looks: list[str], labels: int) -> str:
    """A line of the table; its first `labels` cells are headings."""
    kinds = ["th" if place < labels else "td" for place in range(len(texts))]
    shown = [_breakable(html.escape(text)) for text in texts]
    cells = zip(kinds, looks, shown, strict=True)
    return f"<tr>{''.join(f'<{kind} style="{look}">{text}</{kind}>' for kind, look, text in cells)}</tr>"


def _breakable(text: str) -> str:
    return LONG_WORD.sub(lambda word: JOINTS.sub("<wbr>", word[0]), text)
