"""How a table is shown: rows in a terminal and in Jupyter, whole sentences in pandas, visible spaces."""

import html
import io
import re
from collections.abc import Iterator

from helpers.show.numbers import is_number


def visible_spaces(token: str) -> str:
    """A token as it can be read in a table or a figure: "·" for a space, "⏎" for a new line."""
    return token.replace(" ", "·").replace("\n", "⏎")


def whole_sentences(table):
    """The same DataFrame; from now on pandas shows its sentences whole and not their first 50 letters."""
    import pandas as pd

    pd.set_option("display.max_colwidth", 600)
    return table


def dashed(table):
    """The same table with "–" where there is no number."""
    return table.astype(object).where(table.notna(), "–")


# Each reads on white and on the black of a dark theme.
HTML_COLOURS = {"ok": "#2b8a3e", "note": "#a86b00", "problem": "#e03131"}
SYMBOLS = {"ok": "✓", "note": "•", "problem": "✗"}
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


class Table:
    """Rows that show themselves: HTML in Jupyter, a rich table in a terminal, plain text as repr."""

    def tables(self) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        raise NotImplementedError

    def headline(self) -> str:
        return ""

    def __rich__(self):
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        parts = []
        for title, columns, rows in self.tables():
            table = RichTable(title=title or None, title_justify="left", expand=False)
            for name, justify in zip(columns, _sides(rows), strict=True):
                table.add_column(name, justify=justify)
            for row in rows:
                table.add_row(*(Text(cell, style=STYLES.get(cell.partition(" ")[2], "")) for cell in row))
            parts.append(table)
        return Group(*parts, Text(self.headline()))

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=110, color_system=None, force_jupyter=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_html_(self) -> str:
        parts = []
        for title, columns, rows in self.tables():
            sides = _sides(rows)
            heads = zip(columns, sides, strict=True)
            head = "".join(f'<th style="text-align: {side}">{html.escape(column)}</th>' for column, side in heads)
            body = "".join(f"<tr>{''.join(map(html_cell, row, sides))}</tr>" for row in rows)
            caption = f'<caption style="text-align: left; font-weight: bold">{html.escape(title)}</caption>'
            parts.append(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        return "".join(parts) + f"<p>{html.escape(self.headline())}</p>"


def _sides(rows) -> list[str]:
    """Where the cells of each column stand: numbers to the right, words to the left."""
    return ["right" if all(map(is_number, cells)) else "left" for cells in zip(*rows, strict=True)]


def html_cell(cell: str, side: str) -> str:
    colour = HTML_COLOURS.get(cell.partition(" ")[2])
    style = f"text-align: {side}; vertical-align: top"
    style += f"; color: {colour}; white-space: nowrap" if colour else ""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(cell)).replace("\n", "<br>")
    return f'<td style="{style}">{text}</td>'
