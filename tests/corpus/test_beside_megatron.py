"""Megatron's own data code, really run: the files it writes are ours, and a split it never finishes is seen as such."""

import pytest
from patience import HANG_SECONDS

from helpers import corpus


def test_megatrons_builder_writes_the_same_bytes(small_jsonl, small_corpus):
    table = corpus.written_by_megatron(small_jsonl, small_corpus)
    assert list(table["file"]) == ["small_text_document.bin", "small_text_document.idx"]
    assert table["identical"].all()
    assert table["bytes"].tolist() == [2 * small_corpus.tokens, 34 + 12 * 80 + 8 * 81]


def test_another_text_gives_other_bytes(tmp_path, small_jsonl, small_corpus):
    lines = small_jsonl.read_text().splitlines(keepends=True)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(lines[:-1]))
    assert not corpus.written_by_megatron(fewer, small_corpus)["identical"].any()


def test_a_file_without_the_key_is_told(small_jsonl, small_corpus):
    with pytest.raises(ValueError, match="no 'words' in it, only text"):
        corpus.written_by_megatron(small_jsonl, small_corpus, text_key="words")


def test_an_empty_part_is_never_built(small_corpus):
    build = corpus.watch_build(small_corpus, "949,50,1", 64, seconds=4)
    assert not build.finished
    assert build.stack[-1].startswith("megatron/core/datasets/gpt_dataset.py")
    assert build.stack[-1].endswith("in _get_num_epochs")
    assert "stopped after 4 s" in repr(build)


def test_a_split_with_documents_in_each_part_is_built(small_corpus):
    build = corpus.watch_build(small_corpus, "90,5,5", 64, seconds=HANG_SECONDS)
    assert build.finished
    assert 0 < build.seconds < HANG_SECONDS
    assert "built the three parts" in repr(build)


def test_another_failure_is_told(small_corpus):
    with pytest.raises(RuntimeError, match="could not build"):
        corpus.watch_build(small_corpus, "1,2,3,4", 64, seconds=HANG_SECONDS)
