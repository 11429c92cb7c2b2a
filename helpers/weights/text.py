"""Text ↔ token ids with a checkpoint's own tokenizer, as transformers reads it."""

from functools import cache
from pathlib import Path

from helpers.weights.checkpoint import Checkpoint
from helpers.weights.error import WeightsError

HALF_A_CHARACTER = "\ufffd"  # what decoding shows for bytes that are no whole character yet


def tokenizer_of(checkpoint: Checkpoint):
    """transformers' tokenizer of a checkpoint.

    Raises:
        WeightsError: it was trained on made-up tokens, or its tokenizer is gone or damaged.
    """
    if checkpoint.tokenizer is None:
        raise WeightsError("These weights were trained on made-up tokens: there is no text to read or to write.")
    if not checkpoint.tokenizer.is_dir():
        raise WeightsError(
            f"The tokenizer of these weights is gone: there is no folder {checkpoint.tokenizer}. corpus.prepare makes "
            "that of a corpus again."
        )
    try:
        return _load(checkpoint.tokenizer)
    except Exception as error:  # transformers raises whatever it likes
        raise WeightsError(
            f"transformers cannot load the tokenizer of these weights, {checkpoint.tokenizer}: {error}. corpus.prepare "
            "makes that of a corpus again."
        ) from error


@cache
def _load(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


class Growing:
    """A text that grows by token ids; each call gives what can be shown of it by now, whole characters only."""

    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.shown = tokenizer, [], ""

    def add(self, id: int) -> str:
        self.ids.append(id)
        text = self.tokenizer.decode(self.ids)
        if text.endswith(HALF_A_CHARACTER):
            return ""
        new, self.shown = text[len(self.shown) :], text
        return new


def text_bytes(tokenizer, ids) -> int:
    """UTF-8 bytes of the text of token ids; marks such as the end of a document are no text."""
    return len(tokenizer.decode(ids, skip_special_tokens=True).encode())
