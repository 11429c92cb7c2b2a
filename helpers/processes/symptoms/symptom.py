"""One known way in which a run dies."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """One row: `pattern` is searched in the whole log; its named groups may stand in `cause` and `fix` as {name}.

    Where the words alone do not decide, `fits` looks at what was found.
    """

    name: str
    pattern: str
    cause: str
    fix: str
    fits: Callable[[re.Match], bool] = lambda match: True

    def search(self, log: str) -> re.Match | None:
        return next(filter(self.fits, re.finditer(self.pattern, log, re.MULTILINE)), None)
