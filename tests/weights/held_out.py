"""A part of a corpus as one row of tokens, as `weights.evaluate` predicts it; and transformers' loss on it."""

import numpy as np

from helpers.corpus import data_split


def tokens(data, split: str, length: int, part: int) -> np.ndarray:
    """The ids of a part (0 train, 1 valid, 2 test) of a corpus, in the order of its documents."""
    documents = data_split.parts(data.open_index(), split, length)[part]
    sequences = [data.open_index().sequence(i) for i in range(documents["first"], documents["last"])]
    return np.concatenate(sequences).astype(np.int64)


def loss_of_transformers(folder, ids: np.ndarray, length: int) -> float:
    """Nats a token of the model in a folder: every token but the first is predicted once, in windows of `length`."""
    import torch
    from transformers import AutoModelForCausalLM

    model, nats = AutoModelForCausalLM.from_pretrained(folder).eval(), 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, length):
            window = torch.tensor(ids[start : start + length + 1])
            logits = model(window[None, :-1]).logits[0]
            nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return nats / (len(ids) - 1)
