"""Pictures of a corpus say in words what they show."""

from pathlib import Path

import numpy as np
import pytest

from helpers import corpus, plots


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


def test_the_length_of_a_sample_stands_among_the_documents(small_corpus):
    picture = plots.document_lengths(small_corpus, sequence_length=700)
    shorter = int((small_corpus.document_lengths() < 700).sum())
    assert f"A sample has 700: {shorter} documents are shorter" in picture.alt
    (axes,) = picture.figure.axes
    assert " one sample: 700" in [text.get_text() for text in axes.texts]
    assert "logarithmic" in axes.get_xlabel()


def test_a_blends_samples_are_drawn_one_by_one(small_blend):
    members = np.array([0, 1, 0, 0, 1] * 8)
    order = corpus.Order(small_blend, "train", members, np.arange(40), (100, 20))
    picture = plots.blend_order(order, first=30)
    cells = [patch for patch in picture.figure.axes[0].patches if patch.get_width() == pytest.approx(0.29)]
    colours = [cell.get_facecolor() for cell in cells]
    assert len(cells) == 30 and len(set(colours)) == 2 and colours[1] == colours[4] != colours[0]
    assert "small: 24 of 40 samples, 60.0% (asked for: 70.0%)" in picture.alt


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda data: plots.token_bytes(data, 0), "(count=0): it takes a whole number from 1 to 200."),
        (lambda data: plots.index_bytes(data.prefix, 10**9), "it takes a whole number from 0 to 100."),
        (lambda data: plots.pieces("", data), "there is nothing to cut"),
        (lambda data: plots.document_lengths("text"), "it takes a corpus"),
        (lambda data: data.sample(-1), "corpus.sample(n=-1): it takes a whole number from 0"),
        (lambda data: data.encode(5), "corpus.encode(text=5): it takes a text"),
        (lambda data: data.decode("text"), "takes token ids"),
        (lambda data: data.decode([-1]), "takes token ids"),
        (
            lambda data: corpus.draw(data, 0),
            "(sequence_length=0): it takes a whole number from 1 to 16,777,216.",
        ),
        (lambda data: corpus.compare("text"), "it takes a corpus"),
    ],
)
def test_what_cannot_be_drawn_of_a_corpus_is_told(call, words, small_corpus):
    with pytest.raises((TypeError, ValueError)) as refused:
        call(small_corpus)
    assert words in str(refused.value)
