"""One finding: a star, whether it aligns, and the fix."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One star. `status` is "ok", "note" (works, with a limit worth knowing) or "problem" (will not work)."""

    name: str
    status: str
    found: str
    why: str
    fix: str = ""
