"""What a first launch builds: Megatron's arrays, counted in their own files."""

import pytest

from helpers import corpus
from helpers.corpus import CorpusError


def test_a_corpus_gives_three_arrays(small_corpus):
    built = corpus.build_index(small_corpus, 64, split="8,1,1", count=5000)
    files = {name: entries for name, entries, _ in built.files}
    assert list(files) == ["document_index", "sample_index", "shuffle_index"]
    epochs, rest = divmod(files["document_index"], 64)  # 64 of 80 documents are for training
    assert rest == 0 and epochs > 1
    assert files["sample_index"] == files["shuffle_index"] + 1 and files["shuffle_index"] >= 5000
    assert built.build_seconds > 0 and "index of 5,000 samples" in repr(built)
    assert built._repr_html_().count("…-") == 3


def test_a_blend_gives_two_more(small_blend):
    built = corpus.build_index(small_blend, 64, split="8,1,1", count=500)
    names = [name for name, _, _ in built.files]
    assert sorted(set(names)) == [
        "dataset_index", "dataset_sample_index", "document_index", "sample_index", "shuffle_index",
    ]  # fmt: skip
    assert len(names) == 8 and ("dataset_index", 500) in [file[:2] for file in built.files]


def test_an_empty_part_is_refused(small_corpus):
    with pytest.raises(CorpusError, match="rounds to none"):
        corpus.build_index(small_corpus, 64, split="949,50,1", count=10)
