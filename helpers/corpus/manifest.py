"""`corpus.json` of a prepared corpus: what it is, and what its files were when they were written."""

import json
import os
from pathlib import Path

from helpers.corpus import files, index

NAME = "corpus.json"
FACTS = {
    "name", "documents", "tokens", "bytes", "token_dtype", "vocab_size", "max_token_id", "eod_id", "tokenizer",
    "fingerprint",
}  # fmt: skip


def write(directory: Path, facts: dict, cache: Path) -> None:
    """Write down the facts, with bytes and sha256 of every other file of the directory."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    listed = {str(path.relative_to(directory)): (path.stat().st_size, _digest(path, cache)) for path in found}
    (directory / NAME).write_text(json.dumps(facts | {"files": listed}, indent=2))


def read(directory: Path) -> dict:
    """The facts; empty where there are none, or something else stands in their place."""
    return {name: value for name, value in _content(directory).items() if name in FACTS}


def what_is_wrong(prefix: Path, cache: Path) -> str | None:
    """What of a prepared corpus is not as it was written, in words; None where all is.

    A file whose time is the same costs a stat. One prepared before files were listed has its index looked at alone.
    """
    if not (content := _content(prefix.parent)):
        return f"{NAME}, which says what it is, cannot be read"
    for name, (size, digest) in content.get("files", {}).items():
        path = prefix.parent / name
        if not os.path.isfile(path):
            return f"{name} is gone"
        if (there := path.stat().st_size) != size:
            return f"{name} has {there:,} of {size:,} bytes"
        if _digest(path, cache) != digest:
            return f"{name} holds other bytes than were written to it"
    try:
        index.inspect(prefix)
    except index.InvalidIndex:
        return f"{prefix.name}.bin and .idx do not belong together"
    return None


def _content(directory: Path) -> dict:
    path = directory / NAME
    try:
        content = json.loads(path.read_text()) if path.is_file() else {}  # of a pipe there might be no end
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.keys() >= FACTS else {}


def _digest(path: Path, cache: Path) -> str:
    return files.content_digest([files.found(path)], cache)
