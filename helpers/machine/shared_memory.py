"""/dev/shm: where the processes of one machine share memory, and where Python keeps its locks."""

import tempfile
from pathlib import Path

PLACE = Path("/dev/shm")
PAGE_BYTES = 4096


def why_unusable() -> str | None:
    """What keeps processes from sharing memory here, in the system's words; None where nothing does."""
    try:
        with tempfile.TemporaryFile(dir=PLACE, buffering=0) as file:
            file.write(bytes(PAGE_BYTES))
    except OSError as refusal:
        return f"{PLACE}: {refusal.strerror}"
    return None
