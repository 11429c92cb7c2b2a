"""One known way in which a run dies."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """One row: `pattern` is searched in the whole log; its named groups may stand in `cause` and `fix` as {name}."""

    name: str
    pattern: str
    cause: str
    fix: str

    def search(self, log: str) -> re.Match | None:
        return re.search(self.pattern, log, re.MULTILINE)
