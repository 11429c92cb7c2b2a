"""What Megatron builds at the first launch, before the first step, and keeps under `--data-cache-path`."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from helpers.corpus import samples
from helpers.corpus.blends import Blend
from helpers.corpus.corpus import Corpus
from helpers.show import bounds, frames
from helpers.show.arguments import checked
from helpers.show.tables import whole_sentences

MEANINGS = {
    "document_index": "the documents in the order in which they are read, once for each epoch",
    "sample_index": "where each sample begins: a place in the document index, and a token of that document",
    "shuffle_index": "the order in which the samples are shown",
    "dataset_index": "of each sample of a blend, the member it comes from",
    "dataset_sample_index": "of each sample of a blend, which of that member's samples it is",
}


@dataclass(frozen=True)
class BuiltIndex:
    """The arrays of the training part as they lie in the cache: `files` holds (name, entries, bytes) of each.

    `open_seconds` is what opening the corpus itself took, `build_seconds` what building all parts' indices took.
    """

    samples: int
    files: tuple[tuple[str, int, int], ...]
    open_seconds: float
    build_seconds: float

    def table(self):
        """file (its name's ending), entries, kilobytes, what it holds."""
        import pandas as pd

        rows = [(f"…-{name}.npy", entries, round(size / 1e3, 1), MEANINGS[name]) for name, entries, size in self.files]
        columns = ["file", "entries", "kilobytes", "what it holds"]
        return whole_sentences(pd.DataFrame(rows, columns=columns).set_index("file"))

    def _words(self) -> str:
        return (
            f"Opening the corpus took {self.open_seconds * 1e3:.1f} ms. Building the index of {self.samples:,} samples "
            f"took {self.build_seconds * 1e3:,.0f} ms."
        )

    def __repr__(self) -> str:
        return f"{self.table().to_string()}\n{self._words()}"

    def _repr_html_(self) -> str:
        return f"{frames.to_html(self.table())}<p>{self._words()}</p>"


@checked
def build_index(
    data: Corpus | Blend,
    sequence_length: Annotated[int, bounds.TOKENS],
    *,
    split: str,
    count: Annotated[int, bounds.SAMPLES],
) -> BuiltIndex:
    """Let Megatron build, in a folder that is thrown away, what a run of `count` samples builds at its first launch.

    Raises:
        CorpusError: a part of the split has no document, or the index would fill the memory.
    """
    samples.require_part(data, split, "train", sequence_length, count)
    start = time.perf_counter()
    for member in data.members:
        member.open_index()
    opened = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as cache:
        asked = {"split": split, "part": "train"}
        samples.megatron_dataset(data, sequence_length, count=1, index_cache=warm, **asked)  # imports
        start = time.perf_counter()
        samples.megatron_dataset(data, sequence_length, count=count, index_cache=cache, **asked)
        built = time.perf_counter() - start
        files = [
            (path.stem.rsplit("-", 1)[1], len(np.load(path, mmap_mode="r")), path.stat().st_size)
            for path in sorted(Path(cache).glob("*-train-*.npy"))
        ]
    return BuiltIndex(count, tuple(files), opened, built)
