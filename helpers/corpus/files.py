"""Text files of the learner's: found, and read as they were when they were found.

A file that somebody is still writing counts as far as it went at the first look, up to its last whole line or
character. Whatever else is wrong with a file is said with its own name.
"""

import contextlib
import gzip
import hashlib
import os
import stat
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.corpus.encoding_process import UnreadableText, wide_encoding

KINDS = {  # ending -> kind; one kind a folder
    ".txt": ".txt",
    ".jsonl": ".jsonl",
    ".jsonl.gz": ".jsonl",
    ".parquet": ".parquet",
}
ACCEPTED = "a .jsonl, .jsonl.gz, .txt or .parquet file, or a folder of one kind of them"
PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip", ".tar", ".tgz", ".7z")
BLOCK_BYTES = 1 << 19


class SourceError(ValueError):
    """The text asked for cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class TextFile:
    """A file as it was when it was found: of one that grows only the first `size` bytes count."""

    path: Path
    size: int
    changed_ns: int
    inode: int

    def read(self) -> bytes:
        with reading(self.path), self.path.open("rb") as stream:
            return stream.read(self.size)

    @property
    def grew(self) -> bool:
        with reading(self.path):
            return self.path.stat().st_size > self.size


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Raises SourceError, which names the file, for an OSError in here."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror or error}.") from error


def kind(path: Path) -> str | None:
    """The ending that says how to read a file; None for files that are no text."""
    return next((kind for ending, kind in KINDS.items() if path.name.lower().endswith(ending)), None)


def found(path: Path) -> TextFile:
    """Raises SourceError for what is no file, such as a pipe, which could be read only once and may never end."""
    with reading(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a device or socket"
            raise SourceError(f"{path} is {what}, not a file: write what comes out of it to a file first.")
        with path.open("rb"):
            pass
    return TextFile(path, status.st_size, status.st_mtime_ns, status.st_ino)


def in_folder(folder: Path) -> tuple[list[TextFile], str]:
    """The text files of a folder and its subfolders, in the order of their paths, and a sentence on what is left out.

    Raises:
        SourceError: text of two kinds, none at all, or a subfolder that cannot be read.
    """
    texts: list[Path] = []
    others, linked = 0, 0

    def refuse(error: OSError):
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}. Its text would be left out.") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        here = [path for name in sorted(names) if kind(path := Path(place, name))]
        texts += here
        others += len(names) - len(here)
        linked += sum(Path(place, name).is_symlink() for name in folders)
        if other := next((path for path in here if kind(path) != kind(texts[0])), None):
            two = f"{texts[0].relative_to(folder)} and {other.relative_to(folder)}"
            raise SourceError(f"{folder} holds text of several kinds ({two}): give each kind a folder of its own.")
    if not texts:
        raise SourceError(f"{folder}: no text in it. A corpus is {ACCEPTED}.")
    left_out = [f"{others:,} files of other kinds"] * bool(others) + [f"{linked:,} linked folders"] * bool(linked)
    words = f"{len(texts):,} {kind(texts[0])} file{'s' * (len(texts) > 1)} in it"
    words += f"; not read: {' and '.join(left_out)}" if left_out else ""
    return [found(path) for path in sorted(texts)], words


def text(file: TextFile) -> str:
    """The text of a .txt file."""
    data = file.read()
    if wide := wide_encoding(data):
        raise SourceError(f"{file.path} is {wide}: {how_to_convert(file.path, wide)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and file.grew:
            return data[: error.start].decode("utf-8-sig")
        raise SourceError(
            f"{file.path} is not UTF-8 ({error.reason}, byte {error.start}): convert it first, with iconv -f latin1 "
            "-t utf-8, say."
        ) from error


def how_to_convert(path: Path, encoding: str) -> str:
    return f"convert it first, iconv -f {encoding} -t UTF-8 {path.name} > utf8{''.join(path.suffixes[-1:])}."


def line_blocks(file: TextFile) -> Iterator[tuple[int, bytes]]:
    """A file of lines in blocks of whole lines, each with its first line's number; .gz is unpacked on the way."""
    line, rest = 1, [b""]  # pieces of a line whose end is still to come: joined once, however long it is
    for data in _pieces(file):
        whole, newline, rest_of_it = data.rpartition(b"\n")
        if newline:
            block, rest = b"".join([*rest, whole, newline]), [rest_of_it]
            yield line, block
            line += block.count(b"\n")
        else:
            rest.append(data)
    if (last := b"".join(rest)) and not file.grew:
        yield line, last


def located(path: Path, first_line: int, error: UnreadableText) -> UnreadableText:
    """The error of a block of lines, with the file's name and the line's number in it."""
    offset, message = str(error).split(" ", 1)
    line = first_line + int(offset)
    if line > 1:  # the key was in those before it
        message = message.replace("Name the key", f"Mend line {line}, or name the key")
    return UnreadableText(f"{path}, line {line}: {message}")


def _pieces(file: TextFile) -> Iterator[bytes]:
    left = file.size
    try:
        if file.path.suffix == ".gz":
            with gzip.open(file.path) as stream:
                while data := stream.read(BLOCK_BYTES):
                    yield data
            return
        with file.path.open("rb") as stream:
            while left and (data := stream.read(min(BLOCK_BYTES, left))):
                left -= len(data)
                yield data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{file.path} cannot be unpacked, it is damaged or cut off: {error}.") from error
    except OSError as error:
        raise UnreadableText(f"{file.path} cannot be read: {error.strerror or error}.") from error


def parquet_texts(files: Iterable[TextFile], column: str) -> Iterator[str]:
    """The texts of a column of parquet files; rows without one pass."""
    import pyarrow
    import pyarrow.parquet as parquet

    for file in files:
        try:
            with reading(file.path):
                table = parquet.ParquetFile(file.path)
                fields = {field.name: field.type for field in table.schema_arrow}
                _require_text(file.path, fields, column)
                for batch in table.iter_batches(batch_size=1024, columns=[column]):
                    yield from (text for text in batch.column(0).to_pylist() if text is not None)
        except pyarrow.ArrowException as error:
            what = str(error).splitlines()[0]
            raise SourceError(f"{file.path} cannot be read as parquet: {what}") from error


def _require_text(path: Path, fields: dict, column: str) -> None:
    with_text = [name for name, kind in fields.items() if _holds_text(kind)]
    if column not in fields:
        raise SourceError(f"{path} has no column {column!r}, only {', '.join(fields)}. Name the column: text_key=...")
    if column not in with_text:
        others = f"Text is in: {', '.join(with_text)}." if with_text else "No column of it holds text."
        raise SourceError(f"{path}: column {column!r} holds {fields[column]}, not text. {others}")


def _holds_text(kind) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def content_digest(files: list[TextFile], cache: Path) -> str:
    """sha256 over names and contents, remembered by each file's size, time and inode so that asking again costs a stat.

    A file changed in the last two seconds is not remembered: it could change again within the clock's tick.
    """
    stats = [(str(file.path), file.size, file.changed_ns, file.inode) for file in files]
    memory = cache / "digests" / hashlib.sha256(repr(stats).encode()).hexdigest()
    with contextlib.suppress(OSError):
        return memory.read_text()
    whole = hashlib.sha256()
    for file in files:
        whole.update(os.fsencode(file.path.name) + b"\0" + _sha256(file))
    if all(time.time_ns() - file.changed_ns > 2 * 10**9 for file in files):
        with contextlib.suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            unfinished = memory.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            unfinished.write_text(whole.hexdigest())
            os.replace(unfinished, memory)
    return whole.hexdigest()


def _sha256(file: TextFile) -> bytes:
    digest, left = hashlib.sha256(), file.size
    with reading(file.path), file.path.open("rb") as stream:
        while left and (data := stream.read(min(1 << 20, left))):
            left -= len(data)
            digest.update(data)
    return digest.digest()
