"""What goes wrong with weights, in words."""


class WeightsError(ValueError):
    """These weights cannot be used for what was asked; the message says why and what to change."""

    def _render_traceback_(self) -> list[str]:
        """In Jupyter: the message alone, without the frames of this wing."""
        return [f"{type(self).__name__}: {self}"]
