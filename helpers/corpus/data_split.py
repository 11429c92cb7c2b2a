"""Megatron's `--split`: which documents of a corpus are for training, validation and test."""

import re
from pathlib import Path

import numpy as np

from helpers.corpus.index import Index, inspect

PARTS = ("train", "valid", "test")


def parts(prefix: str | Path | Index, split: str, sequence_length: int) -> list[dict]:
    """How Megatron cuts a corpus into train, valid and test for `--split`: by whole sequences, rounded, never shuffled.

    Follows `parse_and_normalize_split` (blended_megatron_dataset_config.py) and `_build_megatron_dataset_splits`
    (blended_megatron_dataset_builder.py), the same floating-point sums included.

    Returns:
        One dict per part: part, weight (share of 1), first, last (documents [first, last)), documents, tokens,
        samples (full samples of sequence_length + 1 tokens that one pass gives), problem ("" | "empty" | "too short").
        "documents" are the index's sequences: one per document, unless documents were given as lists of strings.
        A part of weight 0 is not built and is never a problem. An empty part makes Megatron loop forever
        (`GPTDataset._get_num_epochs`); one too short for a sample makes it repeat the same few tokens in each sample.

    Raises:
        InvalidIndex: see index.inspect.
        ValueError: the split is not up to three non-negative numbers with a positive sum.
    """
    opened = prefix if isinstance(prefix, Index) else inspect(prefix)
    weights = parse(split)
    edges = [0.0]
    for weight in weights:
        edges.append(edges[-1] + weight)
    found = []
    for name, weight, begin, end in zip(PARTS, weights, edges[:-1], edges[1:], strict=True):
        wanted = end > begin
        first = int(round(begin * float(opened.sequences)))
        last = int(round(end * float(opened.sequences))) if wanted else first
        tokens = int(opened.sequence_lengths[first:last].sum(dtype=np.int64))
        samples = max(0, tokens - 1) // sequence_length
        problem = "" if samples or not wanted else "too short" if tokens else "empty"
        found.append(
            {
                "part": name,
                "weight": weight,
                "first": first,
                "last": last,
                "documents": last - first,
                "tokens": tokens,
                "samples": samples,
                "problem": problem,
            }
        )
    return found


def index_bytes(part: dict, count: int, sequence_length: int) -> int:
    """What Megatron's index of `count` samples of a part takes in memory while it is built (`gpt_dataset.py`): for each
    document and epoch two int64 and an int32, for each sample two int32 and twice an uint32."""
    epochs = -(-(count * sequence_length + 1) // max(1, part["tokens"]))
    return 20 * epochs * part["documents"] + 16 * count


def parse(split: str) -> list[float]:
    """`--split` as three shares that sum to 1. Missing ones are 0, as in Megatron."""
    words = re.findall(r"[.0-9]+", split)
    try:
        numbers_only = re.fullmatch(r"[.0-9]+(,[.0-9]+)*", re.sub(r"\s", "", split))
        weights = [float(word) for word in words] if numbers_only else []
    except ValueError:
        weights = []
    if not 1 <= len(weights) <= len(PARTS) or sum(weights) == 0:
        raise ValueError(f"--split {split!r}: give up to three numbers for train,valid,test, such as 949,50,1.")
    shares = np.array(weights + [0.0] * (len(PARTS) - len(weights)), dtype=np.float64)
    return (shares / shares.sum()).tolist()
