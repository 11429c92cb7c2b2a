"""The same token ids sooner: each distinct word is tokenized once, by the `tokenizers` library, and remembered.

A byte-level BPE (GPT-2's kind) first cuts text into words with a fixed pattern, then tokenizes each word by itself. So
the ids of a text are the ids of its words, one after the other, and a language has few distinct words. The library
remembers words too, but spends most of its time on cutting, and on character offsets that training never reads.

The pattern here names characters and not Unicode properties, so it means the same everywhere. It knows Latin letters
and common punctuation; a text with any other character goes to the library whole, and so does every text when the
tokenizer is of another kind.
"""

import json
import re
from pathlib import Path

import numpy as np

LETTER = "A-Za-zªµºÀ-ÖØ-öø-ſ"
NUMBER = "0-9²³¹¼-¾"
SPACE = "\t-\r \x85\xa0\u2000-\u200a\u2028\u2029\u202f"
KNOWN = "\x00-\u017f\u2000-\u205e€™"
WORD = re.compile(
    f"'(?:[sdmt]|ll|ve|re)| ?[{LETTER}]+| ?[{NUMBER}]+| ?[^{SPACE}{LETTER}{NUMBER}]+"
    f"|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
)
UNKNOWN = re.compile(f"[^{KNOWN}]")
REMEMBERED_WORDS = 500_000


class WordEncoder:
    """Texts to token ids, exactly as `tokenizers.Tokenizer.from_file(backend).encode_batch(texts)` has them."""

    def __init__(self, backend: str | Path, dtype: str):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(backend))
        self.dtype = np.dtype(dtype)
        self.added = _added_tokens(json.loads(Path(backend).read_text(encoding="utf-8")))
        self.words: dict[str, bytes] = {}

    def encode(self, texts: list[str]) -> list[bytes]:
        """The token ids of each text, as the bytes of `dtype` numbers."""
        by_words = [self._by_words(text) for text in texts]
        whole = [text for text, yes in zip(texts, by_words, strict=True) if not yes]
        encoded = iter(self._library(whole))
        return [self._join(text) if yes else next(encoded) for text, yes in zip(texts, by_words, strict=True)]

    def _by_words(self, text: str) -> bool:
        return self.added is not None and not UNKNOWN.search(text) and not any(token in text for token in self.added)

    def _join(self, text: str) -> bytes:
        words = WORD.findall(text)
        known = self.words
        new = [word for word in set(words) if word not in known]
        if new:
            if len(known) > REMEMBERED_WORDS:
                known.clear()
                new = list(set(words))
            known.update(zip(new, self._library(new), strict=True))
        return b"".join([known[word] for word in words])

    def _library(self, texts: list[str]) -> list[bytes]:
        if not texts:
            return []
        return [np.array(e.ids, dtype=self.dtype).tobytes() for e in self.tokenizer.encode_batch_fast(texts)]


def _added_tokens(tokenizer: dict) -> list[str] | None:
    """The tokens that a byte-level BPE finds before it cuts words; None when the tokenizer is not one that cuts and
    tokenizes word by word."""
    cut, end = tokenizer["pre_tokenizer"] or {}, tokenizer["post_processor"] or {"type": "ByteLevel"}
    added = [token["content"] for token in tokenizer["added_tokens"]]
    word_by_word = (
        not any(tokenizer[step] for step in ("normalizer", "truncation", "padding"))
        and [cut.get(key) for key in ("type", "add_prefix_space", "use_regex")] == ["ByteLevel", False, True]
        and end["type"] == "ByteLevel"
        and tokenizer["model"]["type"] == "BPE"
        and not tokenizer["model"].get("dropout")
        and len(added) <= 16
    )
    return added if word_by_word else None
