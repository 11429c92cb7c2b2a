"""One finding: what was looked at, whether it is well, and the fix."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found. `status` is "ok", "note" (works, with a limit worth knowing) or "problem" (will not work)."""

    name: str
    status: str
    found: str
    why: str
    fix: str = ""
