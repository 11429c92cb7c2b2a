"""What is wrong with the files of a checkpoint, seen without running anything that lies in it."""

import json
import pickle
import zipfile
from pathlib import Path

MEGATRONS_LAST = "metadata.json"  # written when all else is (megatron/core/dist_checkpointing/serialization.py, `save`)
LEGACY = "mp_rank_*/*.pt"


def of(checkpoint: Path) -> str | None:
    """Why this checkpoint cannot be loaded, in words; None where it is whole as far as its files' sizes tell.

    The format torch_dist lists in `.metadata` which bytes of which file each tensor is
    (torch/distributed/checkpoint/filesystem.py, `_StorageInfo`); the legacy format is one zip archive a rank.
    """
    checkpoint = Path(checkpoint)
    if legacy := sorted(checkpoint.glob(LEGACY)):
        return next((f"{path.parent.name}/{path.name} is cut off" for path in legacy if not _is_whole_zip(path)), None)
    try:
        json.loads((checkpoint / MEGATRONS_LAST).read_text())["sharded_backend"]
    except FileNotFoundError:
        return "it was never finished"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MEGATRONS_LAST} cannot be read"
    try:
        needed = _needed_bytes(checkpoint / ".metadata")
    except FileNotFoundError:
        return ".metadata, the list of what lies where, is missing"
    except Exception:  # a damaged pickle raises whatever it likes
        return ".metadata, the list of what lies where, cannot be read"
    for name, size in sorted(needed.items()):
        try:
            there = (checkpoint / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if there < size:
            return f"{name} has {there:,} of {size:,} bytes"
    return None


def was_finished(checkpoint: Path) -> bool:
    """Whether Megatron came to the end of writing it."""
    return (checkpoint / MEGATRONS_LAST).exists() or any(checkpoint.glob(LEGACY))


def _is_whole_zip(path: Path) -> bool:
    """A zip archive's list of contents stands at its end: one that is cut off has none."""
    return zipfile.is_zipfile(path)


def _needed_bytes(metadata: Path) -> dict[str, int]:
    """File name → the bytes that it must have."""
    needed: dict[str, int] = {}
    with open(metadata, "rb") as file:
        listed = _Inert(file).load().storage_data
    for entry in listed.values():
        needed[entry.relative_path] = max(needed.get(entry.relative_path, 0), entry.offset + entry.length)
    return needed


class _Inert(pickle.Unpickler):
    """Reads a pickle's numbers and names. Whatever class or function it asks for, it gets a bag without behaviour."""

    def find_class(self, module: str, name: str) -> type:
        return _Bag


class _Bag(dict):
    """Takes any arguments, items and attributes, and does nothing with them."""

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        super().__init__()

    def __setstate__(self, state) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    __hash__ = object.__hash__

    def __eq__(self, other) -> bool:
        return self is other

    def append(self, _) -> None: ...

    def extend(self, _) -> None: ...
