"""Megatron's own data code beside ours: the files it writes for the same text, and what it makes of a split."""

import faulthandler
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

from helpers.corpus import encoder, files, index, samples
from helpers.corpus.corpus import Corpus
from helpers.corpus.preprocess import require_json_lines
from helpers.machine import given, quietly
from helpers.machine.variables import python_path
from helpers.show import bounds
from helpers.show.arguments import checked

TRAINING_SAMPLES = 100
START_SECONDS = 180  # at most, to import Megatron on a busy machine


@checked
def written_by_megatron(jsonl: str | Path, data: Corpus, text_key: str = "text"):
    """Write a .jsonl file's corpus with Megatron's tokenizer and IndexedDatasetBuilder, and compare it with `data`.

    The steps are those of `Encoder.encode` and `Partition.process_json_file` in Megatron-LM's
    tools/preprocess_data.py with --append-eod, in one process: for small files.

    Returns:
        A table, one row per file: file, bytes, sha256 (the first 16 digits), sha256_megatron, identical.

    Raises:
        files.SourceError, UnreadableText: there is no such file, or another kind of text in it.
    """
    import pandas as pd

    jsonl = given(jsonl, "corpus.written_by_megatron({})")
    require_json_lines(jsonl, data)
    with quietly(), tempfile.TemporaryDirectory() as directory:
        from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
        from megatron.core.tokenizers import MegatronTokenizer

        tokenizer = MegatronTokenizer.from_pretrained(str(data.tokenizer_path), {"library": "huggingface"})
        prefix = Path(directory) / "theirs"
        builder = IndexedDatasetBuilder(str(index.bin_path(prefix)), dtype=DType.optimal_dtype(tokenizer.vocab_size))
        for text in encoder.texts(files.found(jsonl), text_key):
            ids = tokenizer.tokenize(text)
            ids = [*ids, tokenizer.eod] if ids else []
            builder.add_document(ids, [len(ids)] if ids else [])
        builder.finalize(str(index.idx_path(prefix)))
        rows = []
        for path_of in (index.bin_path, index.idx_path):
            ours, theirs = path_of(data.prefix), path_of(prefix)
            digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (ours, theirs)]
            rows.append((ours.name, ours.stat().st_size, *digests, digests[0] == digests[1]))
    return pd.DataFrame(rows, columns=["file", "bytes", "sha256", "sha256_megatron", "identical"])


@dataclass(frozen=True)
class Build:
    """How Megatron's building of the three parts went: `seconds` until it was done, or was stopped at `stack`.

    `stack` lists the innermost calls, outermost first, as "file, line N, in function"; empty when it came to an end.
    """

    split: str
    seconds: float
    finished: bool
    stack: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if self.finished:
            return f"--split {self.split}: Megatron built the three parts in {self.seconds:.2f} s."
        calls = "\n".join(f"  {call}" for call in self.stack)
        return f"--split {self.split}: stopped after {self.seconds:.0f} s. Megatron was still here:\n{calls}"


@checked
def watch_build(
    data: Corpus,
    split: str,
    sequence_length: Annotated[int, bounds.TOKENS],
    seconds: Annotated[float, bounds.SECONDS] = 5,
) -> Build:
    """Let Megatron build its datasets for a split in a process of its own, and stop it when it takes too long.

    Args:
        seconds: what the building gets; importing Megatron does not count.

    Raises:
        RuntimeError: the process failed for another reason; its last lines.
    """
    asked = json.dumps([data.data_path, str(data.tokenizer_path), sequence_length, split, seconds])
    child = subprocess.run(
        [sys.executable, "-P", __file__, asked],
        env=os.environ | python_path() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS + seconds,
    )
    if child.returncode == 0:
        return Build(split, float(child.stdout.split()[-1]), True)
    if "Timeout (" not in child.stderr:
        raise RuntimeError("Megatron could not build the parts:\n" + "\n".join(child.stderr.splitlines()[-5:]))
    return Build(split, seconds, False, _innermost(child.stderr))


def _innermost(dump: str, calls: int = 4) -> tuple[str, ...]:
    """The last calls inside Megatron of a faulthandler dump (which lists the innermost first)."""
    found = re.findall(r'File ".*?/(megatron/[^"]+)", line (\d+) in (\w+)', dump)
    return tuple(f"{file}, line {line}, in {name}" for file, line, name in reversed(found[:calls]))


def _build_or_stop(data_path: list[str], tokenizer: str, sequence_length: int, split: str, seconds: float) -> None:
    """What the process of `watch_build` does. faulthandler's own thread ends it, whatever the main thread is at."""
    data = SimpleNamespace(data_path=data_path, tokenizer_path=tokenizer)
    asked = {"part": "train", "count": TRAINING_SAMPLES}
    with tempfile.TemporaryDirectory() as index_cache:
        samples.megatron_dataset(data, sequence_length, split="1,0,0", index_cache=index_cache, **asked)  # imports
    with tempfile.TemporaryDirectory() as index_cache:
        faulthandler.dump_traceback_later(seconds, exit=True)
        start = time.monotonic()
        samples.megatron_dataset(data, sequence_length, split=split, index_cache=index_cache, **asked)
        faulthandler.cancel_dump_traceback_later()
    print(time.monotonic() - start)


def main(arguments: Sequence[str]) -> None:
    _build_or_stop(*json.loads(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
