"""Where things lie: the project, runs, prepared corpora."""

import os
from pathlib import Path

from helpers.show.names import named
from helpers.show.numbers import as_typed

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_CACHE = "~/.cache/megatron-tour"
NAME_BYTES, PATH_BYTES = 255, 4095  # of one file or folder, of a whole path, on Linux
SHOWN = 300  # characters of a path in a message


def runs_root() -> Path:
    """Where runs go, as a whole path: $MEGATRON_TOUR_RUNS, else `runs/` in the project."""
    return given_folder(os.environ.get("MEGATRON_TOUR_RUNS") or PROJECT / "runs", "MEGATRON_TOUR_RUNS={}")


def cache_root() -> Path:
    """Where prepared corpora go, as a whole path: $MEGATRON_TOUR_CACHE, else `~/.cache/megatron-tour`."""
    return given_folder(os.environ.get("MEGATRON_TOUR_CACHE") or DEFAULT_CACHE, "MEGATRON_TOUR_CACHE={}")


def state_root() -> Path:
    """Where what this user has decided is kept, as a whole path: $XDG_STATE_HOME/megatron-tour, else in ~/.local."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser().resolve() / "megatron-tour"


def given(path, asked: str) -> Path:
    """The path that a caller gave, with ~ filled in. `asked` is how they wrote it: "runs.load({})".

    Raises:
        TypeError: it is no path. ValueError: it is empty, no path can be so, or its ~ is nobody's home.
    """
    if not isinstance(path, str | os.PathLike):
        shown = as_typed(path) if isinstance(path, int | float | bytes | None) else type(path).__name__
        raise TypeError(f"{asked.format(shown)}: it takes a path, as a text or a pathlib.Path.")
    asked = asked.format(_shown(path))
    if path == "":
        raise ValueError(f'{asked}: an empty path names nothing. Write "." for the current folder.')
    if "\0" in str(path):
        raise ValueError(f"{asked}: no path has a NUL character in it. Take it out.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"{asked}: it has half a character in it, which no file is called by.") from None
    if (size := len(os.fsencode(path))) > PATH_BYTES:
        raise ValueError(f"{asked}: a path has at most {PATH_BYTES:,} bytes, and it has {size:,}. Is it a text?")
    try:
        home = Path(Path(path).parts[0]).expanduser() if str(path).startswith("~") else None
    except RuntimeError:
        raise ValueError(f"{asked}: the home that ~ stands for is not known. Give the whole path.") from None
    if home and not home.is_dir():
        raise ValueError(f"{asked}: ~ stands for {home}, and there is no such folder. Give the whole path.")
    return Path(path).expanduser()


def given_folder(path, asked: str) -> Path:
    """The whole path of a folder to write into, which need not be there yet; `asked` as in `given`.

    Raises:
        TypeError: it is no path. ValueError: no folder can have it, a file is in its way, or its ~ is nobody's home.
    """
    whole, asked = given(path, asked), asked.format(_shown(path))
    for part in whole.parts:
        if (size := len(part.encode(errors="replace"))) > NAME_BYTES:
            has = f"{part[:20]}… has {size}"
            raise ValueError(f"{asked}: a folder's name has at most {NAME_BYTES} bytes, and {has}. Shorten it.")
    whole = whole.resolve()
    there = next(place for place in (whole, *whole.parents) if os.path.exists(place))
    if not os.path.isdir(there):
        raise ValueError(f"{asked}: {there} is a file, and no folder can lie there. Name another folder.")
    return whole


def _shown(path) -> str:
    words = repr(str(path))
    return words if len(words) <= SHOWN else f"{words[:SHOWN]} …"


@named
def short_path(path: Path | str) -> str:
    """A path as a reader wants it: from the project on where it lies inside, "~" for the home directory.

    Raises:
        TypeError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"short_path({as_typed(path)}): it takes a path, as a text or a pathlib.Path.")
    path = Path(path)
    if path.is_relative_to(PROJECT):
        return str(path.relative_to(PROJECT))
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)
