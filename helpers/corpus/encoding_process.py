"""One of the processes that cut text into tokens: blocks of JSON lines on stdin, tokens on stdout.

python helpers/corpus/encoding_process.py tokenizer.json uint16 50256 text
"""

import codecs
import json
import re
import struct
import sys
from collections.abc import Iterator

import numpy as np

from helpers.corpus.word_encoder import WordEncoder

REPLY = struct.Struct("<QQQQqQ")
EXAMPLE = '{"text": "…"}'
KINDS = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
HALF_A_PAIR = re.compile("[\ud800-\udfff]")


class UnreadableText(ValueError):
    """A file that cannot be read, or a line that is not a JSON object with the text asked for; the message names it."""


def wide_encoding(data: bytes) -> str | None:
    """ "UTF-16" or "UTF-32" for text that looks like it, by its byte order mark or by where it has zero bytes."""
    start = data[:64]
    if start[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "UTF-32"
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "UTF-16"
    if b"\0" not in start:
        return None
    fours = start[: len(start) // 4 * 4]
    for little in (fours, fours[::-1]):  # four bytes a character, of which two tell its plane, most often 0
        if any(little) and not any(little[3::4]) and max(little[2::4]) <= 3:
            return "UTF-32"
    return "UTF-16" if any(fours[:4]) and (not any(fours[:4:2]) or not any(fours[1:4:2])) else None


def documents(block: bytes, text_key: str) -> Iterator[list[str]]:
    """The texts of each document in a block of JSON lines: a value is a string or a list of them. Blank lines pass.

    Raises:
        UnreadableText: its message starts with the line's offset in the block.
    """
    for offset, line in enumerate(block.split(b"\n")):
        if not line.strip():
            continue
        if wide := wide_encoding(line):  # json would read it, line for line, until a line break falls apart
            raise UnreadableText(f"{offset} not UTF-8 but {wide}: convert it first, with iconv -f {wide} -t UTF-8.")
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            why = f"{error.reason}, byte {error.start} of the line"
            raise UnreadableText(
                f"{offset} not UTF-8 ({why}): convert it first, with iconv -f latin1 -t utf-8, say."
            ) from error
        except RecursionError:
            raise UnreadableText(f"{offset} JSON nested too deeply; a document is one flat JSON object.") from None
        except ValueError as error:
            raise UnreadableText(f"{offset} not JSON ({error}); each line must be one JSON object.") from error
        if not isinstance(value, dict) or text_key not in value:
            if not isinstance(value, dict):
                raise UnreadableText(f"{offset} it is {_json_kind(value)}, and each line is an object: {EXAMPLE}.")
            keys = f"only {', '.join(value)}. Name the key: text_key=..." if value else f"it is empty: {EXAMPLE}, say."
            raise UnreadableText(f"{offset} no {text_key!r} in it, {keys}")
        texts = value[text_key] if isinstance(value[text_key], list) else [value[text_key]]
        for text in texts:
            if not isinstance(text, str):
                of_text = [key for key, one in value.items() if isinstance(one, str)]
                hint = f"text_key={of_text[0]!r} takes another key." if of_text else f"A text has quotes: {EXAMPLE}."
                raise UnreadableText(f"{offset} {text_key!r} is {_json_kind(text)}, not text. {hint}")
            if HALF_A_PAIR.search(text):
                raise UnreadableText(f"{offset} {text_key!r} has half a surrogate pair, which is no character.")
        yield texts


def _json_kind(value) -> str:
    return KINDS.get(type(value), f"the number {value}"[:60])


def encode_block(words: WordEncoder, block: bytes, eod_id: int, text_key: str) -> tuple[bytes, list, list, int]:
    """Tokens as bytes, sequence lengths, sequences per document, UTF-8 bytes of text, in the order and form of
    Megatron-LM's `tools/preprocess_data.py --append-eod`: an empty text is no sequence, an empty document has none."""
    of_document = list(documents(block, text_key))
    texts = [text for texts in of_document for text in texts]
    encoded = iter(words.encode(texts))
    end = np.array([eod_id], dtype=words.dtype).tobytes()
    tokens: list[bytes] = []
    lengths: list[int] = []
    counts: list[int] = []
    for texts_here in of_document:
        sequences = [ids for _ in texts_here if (ids := next(encoded))]
        if sequences:
            sequences[-1] += end
        tokens += sequences
        lengths += [len(ids) // words.dtype.itemsize for ids in sequences]
        counts.append(len(sequences))
    text_bytes = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    return b"".join(tokens), lengths, counts, text_bytes


def serve(backend: str, dtype: str, eod_id: int, text_key: str) -> None:
    """Answer blocks from stdin on stdout until stdin ends."""
    words = WordEncoder(backend, dtype)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while size := stdin.read(8):
        block = stdin.read(struct.unpack("<Q", size)[0])
        error = b""
        try:
            tokens, lengths, counts, text_bytes = encode_block(words, block, eod_id, text_key)
        except UnreadableText as unreadable:
            tokens, lengths, counts, text_bytes, error = b"", [], [], 0, str(unreadable).encode()
        largest = int(np.frombuffer(tokens, dtype=dtype).max()) if tokens else -1
        lengths_data = np.array(lengths, dtype=np.int32).tobytes()
        counts_data = np.array(counts, dtype=np.int64).tobytes()
        head = REPLY.pack(len(tokens), len(lengths_data), len(counts_data), text_bytes, largest, len(error))
        stdout.write(head + tokens + lengths_data + counts_data + error)
        stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
