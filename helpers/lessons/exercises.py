"""Predict, then run; then check an answer. What a learner types gets words back, never a traceback."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Annotated

from helpers.lessons.answers import ANSWERS
from helpers.show import bounds
from helpers.show.arguments import checked
from helpers.show.message import EMPTY_BOX, WIDTH, Message, headless
from helpers.show.names import nearest
from helpers.show.numbers import as_typed, shown

EXPONENT = r"(?:[eE][-+]?\d+)?"
GROUPED = re.compile(r"[-+]?\d{1,3}([ ,_])\d{3}(?:\1\d{3})*(?:\.\d+)?" + EXPONENT)  # 12,500 and 1 000 000.5
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+" + EXPONENT)  # 4,5


def told(function):
    """The function, which answers a wrong kind of argument with a message as it answers a wrong answer."""
    return checked(function, lambda wrong: Message("wrong", wrong))


class Predictions(dict):
    """What the learner predicted: name → number or choice. Hand it to `launch.train(predict=…)`: it is kept with the
    run, in `predictions.json`. Empty where nobody answered, as in a headless run."""

    def __init__(self):
        super().__init__()
        self.units: dict[str, str] = {}

    @told
    def compare(self, name: str, measured: Real | str | tuple | None, run=None) -> Message:
        """A prediction beside the measurement.

        Args:
            name: as in `predict`.
            measured: a number, the choice that turned out true (a tuple where several did), or None (MFU on a CPU).
            run: a `runs.Run` whose kept predictions count where this kernel has none.
        """
        kept = getattr(run, "predictions", None) or {}
        predicted = self.get(name, kept.get(name))
        predicted = None if predicted is ... else predicted  # as `predict` prints it in a terminal
        unit = self.units.get(name, "")
        if measured is None or measured != measured:
            return Message("plain", f"{name}: not measured on this machine.")
        right = measured if isinstance(measured, tuple) else (str(measured),)
        if isinstance(measured, tuple):
            measured = " and ".join(measured)
        found = f"Measured, {name}: {_shown(measured, unit)}."
        if predicted is None:
            return Message("plain", found)
        if isinstance(predicted, str) and not isinstance(measured, str):
            typed = number(predicted)
            predicted = predicted if typed is None or isinstance(typed, Message) else typed
        if isinstance(measured, str):
            hit = str(predicted) in right
            text = f"{found} You predicted {_shown(predicted, unit)}" + (": right." if hit else ".")
            return Message("right" if hit else "plain", text)
        if not _is_number(predicted) or not math.isfinite(predicted):
            return Message(
                "wrong", f"{found} Your prediction {as_typed(predicted)} is no number: write it like 4.8 or 12500."
            )
        return Message("plain", f"{found} You predicted {_shown(predicted, unit)}{_distance(predicted, measured)}.")


predictions = Predictions()


def _shown(value, unit: str) -> str:
    return f"{value if isinstance(value, str) else shown(value)} {unit}".strip()


def _distance(predicted: float, measured: float) -> str:
    """How far off, in the words one would use: percent while close, a factor when not."""
    if predicted == measured:
        return ": exactly that"
    if predicted * measured <= 0:
        return f", {abs(predicted - measured):.3g} away"
    ratio = predicted / measured
    side = "more" if abs(predicted) > abs(measured) else "less"
    if 0.5 <= ratio <= 2:
        return f", {abs(ratio - 1):.0%} {side}"
    return f", {max(ratio, 1 / ratio):,.3g} times {side}"


@dataclass(frozen=True)
class Question:
    """A question before a run, with a box, or with buttons where there are `choices`.

    With a running kernel the answer is in `predictions[name]` as soon as it is typed. On a saved page and in a terminal
    the question stands alone, with an empty box.
    """

    name: str
    question: str
    unit: str = ""
    choices: Sequence[str] = ()

    @cached_property
    def widget(self):
        return _ask(self.name, self.question, self.unit, self.choices)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        static = {"text/plain": repr(self), "text/html": self._repr_html_()}
        return static if headless() else self.widget._repr_mimebundle_() | static

    def _repr_html_(self) -> str:
        box = f'<span style="{EMPTY_BOX}">&nbsp;</span> {html.escape(self.unit)}'
        answers = "&emsp;".join(f"☐ {html.escape(choice)}" for choice in self.choices)
        return f"{_heading(self.question)}<p>{answers or box}</p>"

    def __repr__(self) -> str:
        box = "   ".join(f"☐ {choice}" for choice in self.choices) or f"[          ] {self.unit}".rstrip()
        return f"Predict: {self.question}\n{box}\nWrite it down: exercises.predictions[{self.name!r}] = …"


@checked
def predict(name: str, question: str, unit: str = "", choices: Sequence[str] = ()) -> Question:
    """Ask for a prediction before a run."""
    predictions.units[name] = unit
    return Question(name, question, unit, choices)


def _heading(question: str) -> str:
    return f'<div style="{WIDTH}"><b>Predict:</b> {html.escape(question)}</div>'


def _ask(name: str, question: str, unit: str, choices: Sequence[str]):
    import ipywidgets

    reply = ipywidgets.HTML()
    known = predictions.get(name)
    if choices:
        box = ipywidgets.ToggleButtons(options=list(choices), value=known if known in choices else None)
    else:
        box = ipywidgets.Text(
            value=f"{known:.15g}" if _is_number(known) else "",
            placeholder="a number, then Enter",
            continuous_update=False,
            layout=ipywidgets.Layout(width="14em"),
        )

    def take(change):
        value = change["new"] if choices else number(change["new"])
        if isinstance(value, Message):
            reply.value = value._repr_html_()
        elif value is not None:
            predictions[name] = value
            reply.value = Message("plain", f"Written down: {_shown(value, unit)}.")._repr_html_()

    box.observe(take, "value")
    row = ipywidgets.HBox([box, ipywidgets.Label(unit)])
    return ipywidgets.VBox([ipywidgets.HTML(_heading(question)), row, reply])


@told
def number(text: str) -> float | Message | None:
    """The number a person typed ("12,500", "4,5", "40%", "5e3"); None for nothing; a message where it is no number.

    A comma before three digits separates thousands, unless a single 0 stands before it; any other one is a decimal one.
    """
    typed = text.strip().removesuffix("%").strip()
    if not typed:
        return None
    if GROUPED.fullmatch(typed) and not typed.lstrip("+-").startswith("0"):
        typed = re.sub("[ ,_]", "", typed)
    elif DECIMAL_COMMA.fullmatch(typed):
        typed = typed.replace(",", ".")
    try:
        value = math.nan if "_" in typed else float(typed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        return Message("wrong", f"“{text}” is not a number. Write it like 4.8 or 12500 or 2e6.")
    return value


@told
def check(
    name: str, answer, expected=None, tolerance: Annotated[float, bounds.SHARE] = 0.01, hint: str = ""
) -> Message:
    """Say whether an answer is right; when it is not, give a hint, never the answer.

    Args:
        name: of the exercise. Those of the notebooks are known by it: see `answers.ANSWERS`.
        answer: what the learner put in; any type, a wrong one is told in words.
        expected: for an exercise of your own: a number, a text, a bool, or a list of these in order.
        tolerance: how far a number may be off, as a share of `expected`.
        hint: one sentence that helps.
    """
    if expected is None:
        if name not in ANSWERS:
            meant = nearest(name, ANSWERS)
            hint = f" Did you mean “{meant}”?" if meant else ""
            return Message("wrong", f"There is no exercise called “{name}”.{hint}")
        known = ANSWERS[name]
        expected, tolerance, hint = known.value, known.tolerance, known.hint
    if answer is None or answer is ...:
        return Message("asked", f"{name}: put your answer where the … is and run the cell again.")
    complaint = _unlike(answer, expected)
    if complaint:
        return Message("wrong", f"{name}: {complaint}")
    if _agrees(answer, expected, tolerance):
        return Message("right", f"{name}: right.")
    clue = _clue(answer, expected, tolerance)
    return Message("wrong", " ".join(part for part in (f"{name}: not yet.", clue, hint) if part))


def _is_number(value) -> bool:
    if isinstance(value, (bool, str)) or value is None:
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_list(value) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) or (hasattr(value, "tolist") and getattr(value, "ndim", 0))


def _unlike(answer, expected) -> str | None:
    """What is wrong with the type of an answer; None when nothing is."""
    kind = type(answer).__name__
    if isinstance(expected, bool):
        is_bool = isinstance(answer, bool) or type(answer).__name__ in ("bool_", "bool")
        return None if is_bool else f"the answer is True or False, not {kind}."
    if isinstance(expected, str):
        return None if isinstance(answer, str) else f"the answer is a text in quotes, not {kind}."
    if _is_list(expected):
        if not _is_list(answer):
            return f"the answer is a list, like [1, 2], not {kind}."
        return None if len(answer) == len(expected) else f"the answer has another number of entries than {len(answer)}."
    if isinstance(answer, str):
        return "the answer is a number: write it without quotes."
    if isinstance(answer, int) and not isinstance(answer, bool) and not _is_number(answer):
        return f"{as_typed(answer)} is far too large."
    if not _is_number(answer):
        return f"the answer is one number, not {kind}."
    return None if math.isfinite(float(answer)) else f"{float(answer)} is no answer: something was divided by zero."


def _agrees(answer, expected, tolerance: float) -> bool:
    if _is_list(expected):
        pairs = zip(_ordered(answer, expected), list(expected), strict=True)
        return all(_unlike(a, e) is None and _agrees(a, e, tolerance) for a, e in pairs)
    if isinstance(expected, bool):
        return bool(answer) == expected
    if isinstance(expected, str):
        return answer.strip().casefold() == expected.strip().casefold()
    if not _is_number(expected):
        return answer == expected
    return math.isclose(float(answer), float(expected), rel_tol=tolerance, abs_tol=tolerance if not expected else 0.0)


def _ordered(answer, expected) -> list:
    """Sets have no order: sort them. Other lists keep theirs."""
    return sorted(answer, key=str) if isinstance(answer, (set, frozenset)) else list(answer)


def _clue(answer, expected, tolerance: float) -> str:
    """Which way a number is off, and whether it looks like a slip of units."""
    if not _is_number(expected) or not _is_number(answer) or not float(expected):
        return ""
    ratio = float(answer) / float(expected)
    slips = {1e3: "thousand", 1e6: "million", 1e9: "billion", 8: "bits for bytes", 2: "factor of two"}
    for size, word in slips.items():
        if any(math.isclose(ratio, r, rel_tol=tolerance) for r in (size, 1 / size)):
            return f"Look at the units: it is off by a {word}." if size >= 1e3 else f"It looks like a slip: {word}."
    return "It should be smaller." if float(answer) > float(expected) else "It should be larger."
