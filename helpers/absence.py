"""What stands where nothing is recorded yet: a sentence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Absence:
    """A sentence in the place of a figure or a table; Jupyter shows it as text."""

    sentence: str

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self.sentence)}</p>"


def of(what: str) -> Absence:
    """The sentence for runs that nobody has recorded yet; `what` begins after "No"."""
    return Absence(f"No {what} is recorded yet: there is nothing to show in its place.")
