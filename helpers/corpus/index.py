"""Megatron's two data files: `<prefix>.bin` (token ids, nothing else) and `<prefix>.idx` (where each sequence lies).

The index, little endian, as `megatron/core/datasets/indexed_dataset.py` reads it:

    offset              bytes           field
    0                   9               magic "MMIDIDX" and two zero bytes
    9                   8               version, 1
    17                  1               dtype code of the tokens (4: int32, 8: uint16, see DTYPES)
    18                  8               number of sequences S
    26                  8               number of document indices D = documents + 1
    34                  4 × S           tokens in each sequence, int32
    34 + 4S             8 × S           byte at which each sequence starts in the .bin, int64
    34 + 12S            8 × D           sequence at which each document starts, and S at the end, int64

numpy only: preflight reads indices too, and it must not wait for torch.
"""

import os
import shutil
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from helpers.show.tables import whole_sentences

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_BYTES = 34
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float64", 7: "float32", 8: "uint16"}
CHUNK = 1 << 20


class InvalidIndex(ValueError):
    """The .bin/.idx pair cannot be what Megatron expects; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Index:
    """An opened `.idx`. The three arrays are memory-mapped."""

    prefix: Path
    dtype: str
    sequence_lengths: np.ndarray
    sequence_pointers: np.ndarray
    document_indices: np.ndarray

    @property
    def sequences(self) -> int:
        return len(self.sequence_lengths)

    @property
    def documents(self) -> int:
        return len(self.document_indices) - 1

    @property
    def itemsize(self) -> int:
        """Bytes per token in the .bin."""
        return np.dtype(self.dtype).itemsize

    @cached_property
    def tokens(self) -> int:
        if not self.sequences:
            return 0
        return int(self.sequence_pointers[-1]) // self.itemsize + int(self.sequence_lengths[-1])

    def token_ids(self) -> np.ndarray:
        """All token ids of the `.bin`, memory-mapped, shape [tokens]."""
        if not self.tokens:
            return np.empty(0, dtype=self.dtype)
        return np.memmap(bin_path(self.prefix), dtype=self.dtype, mode="r")

    def sequence(self, i: int) -> np.ndarray:
        """Token ids of sequence `i`, shape [sequence_lengths[i]]."""
        return self.tokens_of(i, i + 1)

    def tokens_of(self, first: int, last: int) -> np.ndarray:
        """Token ids of the sequences `first` … `last` - 1 one after the other, memory-mapped, shape [tokens]."""
        if first >= last:
            return np.empty(0, dtype=self.dtype)
        end = int(self.sequence_pointers[last - 1]) // self.itemsize + int(self.sequence_lengths[last - 1])
        return self.token_ids()[int(self.sequence_pointers[first]) // self.itemsize : end]

    def document_lengths(self) -> np.ndarray:
        """Tokens per document, end-of-document token included; int64, shape [documents]. An empty document counts 0."""
        ends = np.concatenate(([0], np.cumsum(self.sequence_lengths, dtype=np.int64)))
        return np.diff(ends[self.document_indices])

    def max_token_id(self) -> int:
        """The largest token id in the `.bin` (-1 when there is none). Reads the whole file, about 1 s per GB."""
        ids = self.token_ids()
        return max((int(ids[i : i + CHUNK].max()) for i in range(0, len(ids), CHUNK)), default=-1)

    def token_counts(self) -> np.ndarray:
        """How often each token id occurs in the `.bin`, int64, shape [max_token_id + 1]. Reads the whole file."""
        ids, counts = self.token_ids(), np.zeros(0, dtype=np.int64)
        for i in range(0, len(ids), CHUNK):
            block = np.bincount(ids[i : i + CHUNK], minlength=len(counts))
            block[: len(counts)] += counts
            counts = block
        return counts

    def distinct_token_ids(self) -> int:
        """How many different token ids occur in the `.bin`."""
        return int((self.token_counts() > 0).sum())


def bin_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.bin")


def idx_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.idx")


def optimal_dtype(vocab_size: int) -> str:
    """uint16 below 65,500 token ids, else int32: the rule of `DType.optimal_dtype` in Megatron's indexed_dataset.py."""
    return "uint16" if vocab_size < 65500 else "int32"


def inspect(prefix: str | Path, dtype: str | None = None) -> Index:
    """Open an index and check that it is whole and belongs to its `.bin`: milliseconds for a million documents.

    Args:
        prefix: path without `.bin`/`.idx`, as in `--data-path`.
        dtype: refuse any other token dtype ("uint16" or "int32"); None accepts both.

    Raises:
        InvalidIndex: a file is missing or truncated, the magic, version or dtype is wrong, the arrays fit neither the
            files' sizes nor each other. The message is for the learner.
    """
    idx, data = idx_path(prefix), bin_path(prefix)
    for path in (idx, data):
        if not os.path.isfile(path):
            raise InvalidIndex(
                f"{path} does not exist. --data-path takes the prefix of two files, <prefix>.bin and <prefix>.idx: "
                "give the path without the ending, or prepare the corpus with corpus.prepare(...)."
            )
    size = idx.stat().st_size
    with idx.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header[: len(MAGIC)] != MAGIC:
        raise InvalidIndex(
            f"{idx} does not start with {MAGIC!r} but with {header[: len(MAGIC)]!r}: it is not a Megatron index. "
            "Prepare the corpus again with corpus.prepare(...) or Megatron-LM's tools/preprocess_data.py."
        )
    if size < HEADER_BYTES:
        raise InvalidIndex(f"{idx} ends inside its {HEADER_BYTES}-byte header, at {size}. Prepare the corpus again.")
    version, code, sequences, document_entries = struct.unpack("<QBQQ", header[len(MAGIC) :])
    if version != VERSION:
        raise InvalidIndex(f"{idx} has version {version}; Megatron reads version {VERSION}. Prepare the corpus again.")
    if DTYPES.get(code) not in ("uint16", "int32"):
        raise InvalidIndex(
            f"{idx} has dtype code {code} ({DTYPES.get(code, 'unknown')}); token ids are uint16 (8) or int32 (4). "
            "Prepare the corpus again."
        )
    found = DTYPES[code]
    if dtype is not None and found != dtype:
        raise InvalidIndex(
            f"{idx} holds {found} tokens, but this tokenizer needs {dtype}: it was prepared with another tokenizer. "
            "Prepare the corpus again with the tokenizer you train with."
        )
    wanted = HEADER_BYTES + 12 * sequences + 8 * document_entries
    if size != wanted:
        raise InvalidIndex(
            f"{idx} has {size:,} bytes, but its header announces {sequences:,} sequences and {document_entries:,} "
            f"document indices, which take {wanted:,}: it is truncated or damaged. Prepare the corpus again."
        )
    index = _map(Path(prefix), found, sequences, document_entries)
    if document_entries == 0 or int(index.document_indices[-1]) != sequences:
        raise InvalidIndex(f"{idx}: the last document index is not the number of sequences. Prepare the corpus again.")
    if why := _odd_entry(index):
        raise InvalidIndex(f"{idx} is damaged: {why}. Prepare the corpus again.")
    bin_size, bin_wanted = data.stat().st_size, index.tokens * index.itemsize
    if bin_size != bin_wanted:
        raise InvalidIndex(
            f"{data} has {bin_size:,} bytes, but {idx.name} describes {index.tokens:,} tokens of {index.itemsize} "
            f"bytes, {bin_wanted:,} in all: the data file is truncated or belongs to another index. "
            "Prepare the corpus again."
        )
    return index


def _odd_entry(index: Index) -> str | None:
    """The first entry that cannot be: sequences follow each other in the `.bin`, and documents count upwards."""
    end = 0
    for first in range(0, index.sequences, CHUNK):
        lengths = index.sequence_lengths[first : first + CHUNK].astype(np.int64)
        if (lengths < 0).any():
            i = int((lengths < 0).argmax())
            return f"sequence {first + i:,} has {lengths[i]:,} tokens"
        ends = end + np.cumsum(lengths) * index.itemsize
        odd = index.sequence_pointers[first : first + CHUNK] != ends - lengths * index.itemsize
        if odd.any():
            return f"sequence {first + int(odd.argmax()):,} does not start where the one before it ends"
        end = int(ends[-1])
    documents = index.document_indices
    if documents[0] != 0 or (documents[1:] < documents[:-1]).any():
        return "its document indices do not count upwards from 0"
    return None


def _map(prefix: Path, dtype: str, sequences: int, document_entries: int) -> Index:
    raw = np.memmap(idx_path(prefix), mode="r", dtype=np.uint8)
    bounds = np.cumsum([HEADER_BYTES, 4 * sequences, 8 * sequences, 8 * document_entries])
    lengths, pointers, documents = (
        raw[start:end].view(kind)
        for start, end, kind in zip(bounds[:-1], bounds[1:], ("<i4", "<i8", "<i8"), strict=True)
    )
    return Index(prefix, dtype, lengths, pointers, documents)


def fields(prefix: str | Path, first: int = 3):
    """The index, field by field, as read from the file: a DataFrame of offset, bytes, field, type, value, meaning.

    Args:
        first: how many entries of each of the three arrays to show as rows of their own.
    """
    import pandas as pd

    index = inspect(prefix)
    raw = idx_path(prefix).read_bytes()[:HEADER_BYTES]
    s, d = index.sequences, len(index.document_indices)
    rows = [
        (0, 9, "magic", "bytes", raw[:9].hex(" "), 'says "this is a Megatron index": MMIDIDX and two zero bytes'),
        (9, 8, "version", "uint64", VERSION, "the only one there is"),
        (17, 1, "dtype code", "uint8", raw[17], f"the .bin holds {index.dtype}: {index.itemsize} bytes per token"),
        (18, 8, "sequences", "uint64", s, "entries in each of the next two arrays"),
        (26, 8, "document indices", "uint64", d, f"{d - 1:,} documents, and one entry more for the end"),
    ]
    arrays = (
        ("sequence length", "int32", index.sequence_lengths, "tokens in sequence {i}, its end-of-document included"),
        ("sequence pointer", "int64", index.sequence_pointers, "byte of the .bin at which sequence {i} starts"),
        ("document index", "int64", index.document_indices, "document {i} starts with this sequence"),
    )
    offset = HEADER_BYTES
    for name, kind, values, meaning in arrays:
        width, shown = values.itemsize, [*range(min(first, len(values)))]
        if len(values) > first:
            shown.append(len(values) - 1)
        for i in shown:
            if name == "document index" and i == d - 1:
                meaning = "the end: one past the last sequence"
            row = (offset + i * width, width, f"{name} [{i}]", kind, int(values[i]), meaning.format(i=i))
            rows.append(row)
        offset += len(values) * width
    return whole_sentences(pd.DataFrame(rows, columns=["offset", "bytes", "field", "type", "value", "meaning"]))


class Writer:
    """Writes `.bin` and `.idx` in one streaming pass: memory does not grow with the corpus.

    with Writer(prefix, "uint16") as writer:
        writer.add(token_bytes, sequence_lengths, sequences_per_document)

    Leaving the `with` block writes the index; leaving it by an exception writes none.
    """

    def __init__(self, prefix: str | Path, dtype: str):
        self.prefix, self.dtype = Path(prefix), dtype
        self.sequences = self.documents = 0

    def __enter__(self) -> "Writer":
        self._bin = bin_path(self.prefix).open("wb")
        self._lengths = Path(f"{self.prefix}.lengths").open("w+b")
        self._documents = Path(f"{self.prefix}.documents").open("w+b")
        self._documents.write(np.int64(0).tobytes())
        return self

    def add(self, tokens: bytes, sequence_lengths: np.ndarray, sequences_per_document: np.ndarray) -> None:
        """Append whole documents: their token ids as bytes of dtype, tokens per sequence, sequences per document."""
        self._bin.write(tokens)
        self._lengths.write(np.asarray(sequence_lengths, dtype="<i4").tobytes())
        ends = self.sequences + np.cumsum(sequences_per_document, dtype="<i8")
        self._documents.write(ends.tobytes())
        self.sequences += len(sequence_lengths)
        self.documents += len(sequences_per_document)

    def __exit__(self, kind, *_) -> None:
        self._bin.close()
        with self._lengths, self._documents:
            if kind is None:
                self._write_index()
        os.unlink(self._lengths.name)
        os.unlink(self._documents.name)

    def _write_index(self) -> None:
        code = next(code for code, name in DTYPES.items() if name == self.dtype)
        itemsize = np.dtype(self.dtype).itemsize
        with idx_path(self.prefix).open("wb") as out:
            out.write(MAGIC + struct.pack("<QBQQ", VERSION, code, self.sequences, self.documents + 1))
            self._lengths.seek(0)
            shutil.copyfileobj(self._lengths, out)
            self._lengths.seek(0)
            pointer = 0
            while block := self._lengths.read(4 * CHUNK):
                lengths = np.frombuffer(block, dtype="<i4").astype("<i8")
                ends = pointer + np.cumsum(lengths) * itemsize
                out.write((ends - lengths * itemsize).tobytes())
                pointer = int(ends[-1])
            self._documents.seek(0)
            shutil.copyfileobj(self._documents, out)
