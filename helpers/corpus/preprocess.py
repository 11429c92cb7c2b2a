"""Megatron-LM's own way from a .jsonl file to the two files: the command line of its tools/preprocess_data.py."""

import html
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from helpers.corpus import files
from helpers.corpus.corpus import Corpus
from helpers.machine import given, given_folder, short_path
from helpers.show import bounds
from helpers.show.arguments import checked
from helpers.show.tables import whole_sentences


@dataclass(frozen=True)
class PreprocessCommand:
    """A line to run in a clone of Megatron-LM: `flags` maps a flag to its value ("" for a switch) and its meaning."""

    flags: dict[str, tuple[str, str]]
    script: str = "tools/preprocess_data.py"

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command; it runs as it is."""
        words = [word for flag, (value, _) in self.flags.items() for word in (flag, value) if word]
        return ("python", self.script, *words)

    def table(self):
        """flag, value, what it means (pandas)."""
        import pandas as pd

        rows = [(flag, _shown(value), meaning) for flag, (value, meaning) in self.flags.items()]
        return whole_sentences(pd.DataFrame(rows, columns=["flag", "value", "what it means"]).set_index("flag"))

    def __repr__(self) -> str:
        lines = [f"{flag} {_quoted(value)}".rstrip() for flag, (value, _) in self.flags.items()]
        return " \\\n    ".join([f"python {self.script}", *lines])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _shown(value: str) -> str:
    return short_path(value) if value.startswith("/") else value


def _quoted(value: str) -> str:
    shown = _shown(value)
    if not shown:
        return ""
    return f"~/{shlex.quote(shown[2:])}" if shown.startswith("~/") else shlex.quote(shown)


@checked
def preprocess_data(
    jsonl: str | Path,
    data: Corpus,
    output_prefix: str | Path | None = None,
    text_key: Annotated[str, bounds.LINE] = "text",
    workers: Annotated[int, bounds.PROCESSES] = 1,
) -> PreprocessCommand:
    """The line with which a clone of Megatron-LM (core_v0.19.0) makes the same two files as `data` has, byte for byte.

    Args:
        jsonl: the text that `data` was prepared from, one JSON object a line.
        output_prefix: where the files go: <output_prefix>_<text_key>_document.bin and .idx; beside the text if None.

    Raises:
        ValueError: no key is so. files.SourceError: a folder, or a file that is no plain .jsonl: NVIDIA's tool opens
            one file of JSON lines.
    """
    jsonl = given(jsonl, "corpus.preprocess_data({})").resolve()
    require_json_lines(jsonl, data)
    if not text_key or "\0" in text_key:
        raise ValueError(f'corpus.preprocess_data(text_key={text_key!r}): the key of the text, such as "text".')
    prefix = jsonl.with_suffix("")
    if output_prefix is not None:
        prefix = given_folder(output_prefix, "corpus.preprocess_data(output_prefix={})")
    return PreprocessCommand(
        {
            "--input": (str(jsonl), "the text, one JSON object a line; each line becomes a document"),
            "--json-keys": (text_key, "the key with the text; several keys give a pair of files each"),
            "--tokenizer-type": ("HuggingFaceTokenizer", "the class that cuts text into tokens"),
            "--tokenizer-model": (str(data.tokenizer_path), "its vocabulary: a Hugging Face tokenizer directory"),
            "--append-eod": ("", "end each document with the end-of-document token; without it documents run together"),
            "--output-prefix": (str(prefix), f"makes <prefix>_{text_key}_document.bin and .idx"),
            "--workers": (str(workers), "processes that tokenize; the order of the lines stays"),
        }
    )


def require_json_lines(path: Path, data: Corpus) -> None:
    if not os.path.isdir(path) and path.suffix.lower() not in (".txt", ".parquet", *files.PACKED):
        return
    written = data.prefix.parents[2] / "text" / f"{data.name}-*" / f"{data.name}.jsonl"
    what = "a folder" if os.path.isdir(path) else f"a {path.suffix} file"
    raise files.SourceError(
        f"{path} is {what}, and Megatron's preprocess_data.py opens one .jsonl file, a JSON object a line. "
        f"corpus.prepare wrote such a file of this text: give its path, {short_path(written)}."
    )
