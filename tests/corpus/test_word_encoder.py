"""Word by word or whole: the ids are the library's."""

import json
import random

import numpy as np
import pytest

from helpers.corpus import tokenizer, word_encoder
from helpers.corpus.word_encoder import WordEncoder

ALPHABET = "aaabcdeES't.,;:!?\"-—’  \n\n\t0123é½\xa0\u2003\x1c\x00€ſ$ll ve 're"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer") / "gpt2"
    tokenizer.make("gpt2", directory, ())
    return tokenizer.backend_file(directory)


def library(backend, texts, dtype="uint16"):
    from tokenizers import Tokenizer

    return [np.array(e.ids, dtype=dtype).tobytes() for e in Tokenizer.from_file(str(backend)).encode_batch(texts)]


def test_each_known_character_is_cut_as_the_library_cuts_it(gpt2):
    """Every character after and before a letter, a digit, a mark, a space and a line break."""
    from tokenizers import Tokenizer

    cut = Tokenizer.from_file(str(gpt2)).pre_tokenizer.pre_tokenize_str
    known = [chr(i) for i in range(0x10000) if not word_encoder.UNKNOWN.match(chr(i)) and not 0xD800 <= i < 0xE000]
    assert len(known) == 0x180 + 0x5F + 2
    for c in known:
        text = f"a{c}a1{c}1!{c}! {c} \n{c}\n{c}{c}  {c}x"
        spans = [end for _, (_, end) in cut(text)]
        assert np.cumsum([len(word) for word in word_encoder.WORD.findall(text)]).tolist() == spans, hex(ord(c))


def test_texts_give_the_ids_of_the_library(gpt2, small_texts):
    rng = random.Random(0)
    made = ["".join(rng.choices(ALPHABET, k=rng.randrange(60))) for _ in range(3000)]
    odd = ["", " ", "\n", "<|endoftext|>", "a<|endoftext|>b", "日本語 text", "🤖", "don't DON'T we'll'd", "x" * 5000]
    texts = made + odd + small_texts
    encoder = WordEncoder(gpt2, "uint16")
    assert encoder.encode(texts) == library(gpt2, texts)
    assert sum(encoder._by_words(text) for text in texts) == len(texts) - 4


def test_forgetting_words_changes_nothing(gpt2, small_texts, monkeypatch):
    monkeypatch.setattr(word_encoder, "REMEMBERED_WORDS", 100)
    encoder = WordEncoder(gpt2, "uint16")
    assert [encoder.encode([text])[0] for text in small_texts] == library(gpt2, small_texts)
    assert len(encoder.words) < 2000


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "<|endoftext|>": {"id": "<|endoftext|>", "ids": [50256], "tokens": ["<|endoftext|>"]}
                },
            }
        },
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
    ],
    ids=["normalizer", "prefix space", "no pattern", "other pattern", "begins with a token", "truncates"],
)
def test_other_tokenizers_are_left_to_the_library(gpt2, tmp_path, change):
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(json.loads(gpt2.read_text()) | change))
    texts = ["The State of the Union", "is strong\n\nand good."]
    encoder = WordEncoder(other, "int32")
    assert not encoder._by_words(texts[0])
    assert encoder.encode(texts) == library(other, texts, "int32") != WordEncoder(gpt2, "int32").encode(texts)
