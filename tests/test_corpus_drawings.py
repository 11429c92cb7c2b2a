"""Pictures of a corpus say in words what they show, and the corpus's own helpers for pages."""

from pathlib import Path

import numpy as np
import pytest

from helpers import corpus, plots
from helpers.corpus.corpus import short


def test_pieces_lists_each_tokenizers_tokens(small_corpus):
    picture = plots.pieces("To be, or not.", small_corpus)
    tokens = [small_corpus.decode([i]) for i in small_corpus.encode("To be, or not.")]
    assert f"bpe-512 cuts it into {len(tokens)}: {' | '.join(tokens)}" in picture.alt
    assert picture.png.startswith(b"\x89PNG")
    drawn = [text.get_text() for text in picture.figure.axes[0].texts]
    assert [token.replace(" ", "·") for token in tokens] == drawn[1:]


def test_token_bytes_shows_what_lies_in_the_file(small_corpus):
    picture = plots.token_bytes(small_corpus, 5)
    drawn = [text.get_text() for text in picture.figure.axes[0].texts]
    raw = Path(f"{small_corpus.prefix}.bin").read_bytes()[:10]
    assert [raw[i : i + 2].hex(" ") for i in range(0, 10, 2)] == [code for code in drawn if len(code) == 5][1:]
    ids = np.frombuffer(raw, dtype="<u2")
    assert all(f"{i}" in drawn for i in ids)


def test_token_bytes_stays_as_wide_as_a_page(small_corpus):
    picture = plots.token_bytes(small_corpus, 40)
    assert picture.figure.get_figwidth() < 9.5, "wider, and its letters are too small where the page scales it down"
    assert [text.get_text() for text in picture.figure.axes[0].texts].count("token id") >= 5


def test_split_names_the_empty_part(small_corpus):
    picture = plots.split_parts(small_corpus, "949,50,1", "90,5,5", sequence_length=64)
    assert "--split 949,50,1: train 76 documents, valid 4 documents, test 0 documents (empty!)" in picture.alt
    assert "--split 90,5,5: train 72 documents, valid 4 documents, test 4 documents" in picture.alt
    assert picture.png.startswith(b"\x89PNG")


def test_compare_counts_what_is_in_the_files(small_corpus):
    table = corpus.compare(small_corpus)
    row = table.loc["bpe-512"]
    used = len(np.unique(np.fromfile(f"{small_corpus.prefix}.bin", dtype="<u2")))
    assert row["tokens_used"] == f"{used / 512:.0%}"
    assert small_corpus.open_index().distinct_token_ids() == used
    assert (row["tokens"], row["vocabulary"], row["documents"]) == (small_corpus.tokens, 512, 80)


def test_home_is_written_as_a_tilde():
    assert short(Path.home() / "a" / "b") == "~/a/b"
    assert short(Path("/elsewhere/b")) == "/elsewhere/b"


@pytest.mark.parametrize(("reset", "after_the_end"), [(False, 1), (True, None)])
def test_around_a_document_end(small_corpus, reset, after_the_end):
    drawn = corpus.draw(small_corpus, 2048, split="100,0,0", count=6, reset_position_ids=reset, eod_mask_loss=reset)
    table = drawn.around_document_end(before=2, after=3)
    assert len(table) == 6
    assert table["id"].iloc[2] == small_corpus.eod_id
    end = table["position_id"].iloc[2]
    assert table["position_id"].iloc[3] == (0 if reset else end + after_the_end)
    assert table["loss"].iloc[2] == (0 if reset else 1)
    assert len(drawn.around_document_end(before=2, after=4000)) == 0
