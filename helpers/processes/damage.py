"""What is wrong with the files of a checkpoint, seen without running anything that lies in it."""

import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

MEGATRONS_LAST = "metadata.json"  # written when all else is (megatron/core/dist_checkpointing/serialization.py, `save`)
LEGACY = "mp_rank_*/*.pt"
EARLIER = "common.pt"  # where an earlier Megatron kept what lies in a shard now
UNFINISHED = "it was never finished"
SMALL_BYTES, CHUNK_BYTES = 2**16, 2**20


def of(checkpoint: Path) -> str | None:
    """Why this checkpoint cannot be loaded, in words; None where it is whole as far as its files' sizes tell.

    The format torch_dist lists in `.metadata` which bytes of which file each tensor is
    (torch/distributed/checkpoint/filesystem.py, `_StorageInfo`); the legacy format is one zip archive a rank. A
    `common.pt` beside a state that lies in a shard is not Megatron's, which reads it first all the same
    (megatron/core/dist_checkpointing/serialization.py, `load_common_state_dict`).
    """
    checkpoint = Path(checkpoint)
    if legacy := sorted(checkpoint.glob(LEGACY)):
        return next((f"{path.parent.name}/{path.name} is cut off" for path in legacy if not _is_whole_zip(path)), None)
    if not was_finished(checkpoint):
        return UNFINISHED
    try:
        if (checkpoint / MEGATRONS_LAST).is_fifo():
            return f"{MEGATRONS_LAST} is a pipe"
        if not _is_torchs(checkpoint):
            json.loads((checkpoint / MEGATRONS_LAST).read_text())["sharded_backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MEGATRONS_LAST} cannot be read"
    try:
        needed = _needed_bytes(checkpoint / ".metadata")
        is_foreign = os.path.lexists(checkpoint / EARLIER) and _has_common_state(checkpoint / ".metadata")
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
    return f"{EARLIER} was not written with it, and Megatron would read it first" if is_foreign else None


def inside(checkpoint: Path, seconds: float) -> str | None:
    """What is wrong within files of the right length, in words; None where nothing is, as far as was looked.

    A checkpoint holds a zip archive for each tensor, as torch.save writes it, with a CRC-32 of every record, which
    torch.load does not look at. The frame of each archive is looked at (0.2 ms). Then records are read until `seconds`
    are over: first the small ones, which can keep a checkpoint from being loaded, then the numbers themselves.
    """
    deadline = time.monotonic() + seconds
    for large in (False, True):
        for path, start, length in sorted(_archives(Path(checkpoint))):
            if large and (length <= SMALL_BYTES or time.monotonic() > deadline):
                continue
            try:
                with open(path, "rb", buffering=0) as file, zipfile.ZipFile(_part(file, start, length)) as archive:
                    for record in archive.infolist():
                        if (record.file_size > SMALL_BYTES) is large:
                            _read(archive, record, deadline)
            except OSError as error:
                return f"{path.name} cannot be read: {error.strerror or error}"
            except Exception:  # like a damaged pickle, a damaged archive raises whatever it likes
                return f"{path.name} holds other bytes than were written to it"
    return None


def was_finished(checkpoint: Path) -> bool:
    """Whether Megatron came to the end of writing it."""
    return (checkpoint / MEGATRONS_LAST).exists() or any(checkpoint.glob(LEGACY)) or _is_torchs(checkpoint)


def _is_torchs(checkpoint: Path) -> bool:
    """Whether torch wrote it by itself (--ckpt-format torch_dcp, fsdp_dtensor): there `.metadata` is what comes last.

    Its planner notes in it how the state was flattened; Megatron's own does not.
    """
    try:
        with open(checkpoint / ".metadata", "rb") as file:
            return _Inert(file).load().planner_data is not None
    except Exception:  # a damaged pickle raises whatever it likes
        return False


def _is_whole_zip(path: Path) -> bool:
    """A zip archive's list of contents stands at its end: one that is cut off has none."""
    return zipfile.is_zipfile(path)


def _needed_bytes(metadata: Path) -> dict[str, int]:
    """File name → the bytes that it must have."""
    needed: dict[str, int] = {}
    for entry in _listed(metadata):
        needed[entry.relative_path] = max(needed.get(entry.relative_path, 0), entry.offset + entry.length)
    return needed


def _listed(metadata: Path) -> Iterator["_Bag"]:
    """What `.metadata` says of each tensor: relative_path, offset, length."""
    with open(metadata, "rb") as file:
        yield from _Inert(file).load().storage_data.values()


def _has_common_state(metadata: Path) -> bool:
    """Whether all that is no tensor lies in a shard, too."""
    with open(metadata, "rb") as file:
        return any(index.fqn.startswith("common_state/") for index in _Inert(file).load().storage_data)


def _archives(checkpoint: Path) -> Iterator[tuple[Path, int, int]]:
    """Every archive of a checkpoint whose files are long enough: its file, where it starts, its bytes."""
    legacy = list(checkpoint.glob(LEGACY))
    yield from ((path, 0, path.stat().st_size) for path in legacy)
    for entry in [] if legacy else _listed(checkpoint / ".metadata"):
        yield checkpoint / entry.relative_path, entry.offset, entry.length


def _read(archive: zipfile.ZipFile, record: zipfile.ZipInfo, deadline: float) -> None:
    """Raises zipfile.BadZipFile at the end of a record whose CRC-32 is another."""
    if time.monotonic() < deadline:
        with archive.open(record) as content:
            while time.monotonic() < deadline and content.read(CHUNK_BYTES):
                pass


def _part(file: io.FileIO, start: int, length: int) -> io.BufferedReader:
    return io.BufferedReader(_Part(file, start, length))


class _Part(io.RawIOBase):
    """`length` bytes of a file, from `start` on, as if they were a file."""

    def __init__(self, file: io.FileIO, start: int, length: int):
        self.file, self.start, self.length, self.position = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = (0, self.position, self.length)[whence] + offset
        return self.position

    def readinto(self, buffer) -> int:
        self.file.seek(self.start + self.position)
        read = self.file.readinto(memoryview(buffer)[: max(0, self.length - self.position)])
        self.position += read
        return read


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
