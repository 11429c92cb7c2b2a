"""Where things lie: the project, runs, prepared corpora."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_CACHE = "~/.cache/megatron-tour"


def runs_root() -> Path:
    """Where runs go, as a whole path: $MEGATRON_TOUR_RUNS, else `runs/` in the project."""
    return Path(os.environ.get("MEGATRON_TOUR_RUNS") or PROJECT / "runs").expanduser().resolve()


def cache_root() -> Path:
    """Where prepared corpora go, as a whole path: $MEGATRON_TOUR_CACHE, else `~/.cache/megatron-tour`."""
    return Path(os.environ.get("MEGATRON_TOUR_CACHE") or DEFAULT_CACHE).expanduser().resolve()


def state_root() -> Path:
    """Where what this user has decided is kept, as a whole path: $XDG_STATE_HOME/megatron-tour, else in ~/.local."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser().resolve() / "megatron-tour"


def given(path, call: str) -> Path:
    """The path that a caller of `call` gave, with ~ filled in.

    Raises:
        TypeError: it is no path. ValueError: its ~ is nobody's home.
    """
    try:
        return Path(path).expanduser()
    except TypeError:
        raise TypeError(f"{call}({path!r}): it takes a path, as a text or a pathlib.Path.") from None
    except RuntimeError:
        raise ValueError(
            f"{call}({str(path)!r}): the home that ~ stands for is not known. Give the whole path."
        ) from None


def short_path(path: Path | str) -> str:
    """A path as a reader wants it: from the project on where it lies inside, "~" for the home directory."""
    path = Path(path)
    if path.is_relative_to(PROJECT):
        return str(path.relative_to(PROJECT))
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)
