"""A sentence or two for the learner, in the place of a figure or beside an answer."""

import html
import os
from dataclasses import dataclass

# Jupyter breaks a long line anywhere, and an HTML page of a notebook has another font.
BETWEEN_WORDS = "white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; font-family: monospace"


@dataclass(frozen=True)
class Absence:
    """A sentence in the place of a figure or a table; Jupyter shows it as text."""

    IN_WORDS = "a sentence in its place"

    sentence: str

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>"


class Text(str):
    """Lines as a program printed them: a cell shows them without quotes, each on a line of its own."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f'<pre style="{BETWEEN_WORDS}">{html.escape(self)}</pre>'


def nothing_recorded(what: str) -> Absence:
    """The sentence for runs that nobody has recorded yet; `what` begins after "No"."""
    return Absence(f"No {what} is recorded yet: there is nothing to show in its place.")


WIDTH = "max-width: 46em; line-height: 1.5"
EMPTY_BOX = "display: inline-block; width: 9em; border: 1px solid #888888; border-radius: 3px"  # for an answer
LOOK = {  # kind of message -> sign and colour of its edge
    "right": ("✓", "#009E73"),
    "wrong": ("✗", "#D55E00"),
    "asked": ("?", "#0072B2"),
    "plain": ("·", "#888888"),
}


def quiet(error: BaseException, words: str) -> None:
    """In Jupyter and IPython `words` stand in the place of the frames of `error`."""
    error._render_traceback_ = lambda: [words]


def headless() -> bool:
    """Whether a program runs this notebook (`MEGATRON_TOUR_HEADLESS=1`): then nothing waits for a person."""
    return os.environ.get("MEGATRON_TOUR_HEADLESS") == "1"


@dataclass(frozen=True)
class Message:
    """A sentence or two for the learner; `kind` is right, wrong, asked or plain."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{LOOK[self.kind][0]} {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign, colour = LOOK[self.kind]
        return (
            f'<div style="{WIDTH}; border-left: 4px solid {colour}; padding: 0.3em 0.8em">'
            f'<b style="color: {colour}">{sign}</b> {html.escape(self.text)}</div>'
        )
