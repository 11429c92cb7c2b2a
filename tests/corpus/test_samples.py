"""Samples through Megatron's GPTDataset."""

import numpy as np
import pytest

from helpers import corpus
from helpers.corpus import CorpusError, data_split

SPLIT = "8,1,1"


@pytest.fixture(scope="module")
def drawn(small_corpus):
    return corpus.draw(small_corpus, 64, split=SPLIT, count=40)


def test_a_sample_is_a_piece_of_the_packed_documents(drawn, small_corpus):
    assert drawn.tokens.shape == drawn.labels.shape == drawn.loss_mask.shape == drawn.position_ids.shape == (40, 64)
    opened = small_corpus.open_index()
    train = data_split.parts(opened, SPLIT, 64)[0]
    for i, rows in drawn.parts.groupby("sample"):
        pieces = [opened.sequence(r.document)[r.first_token : r.first_token + r.tokens] for r in rows.itertuples()]
        assert np.concatenate(pieces).tolist() == drawn.tokens[i].tolist()
        assert rows.position.tolist() == [0, *rows.tokens.cumsum().tolist()[:-1]]
        assert rows.document.between(train["first"], train["last"] - 1).all()
    assert (drawn.labels[:, :-1] == drawn.tokens[:, 1:]).all()


def test_where_a_document_ends_the_sample_runs_on(drawn, small_corpus):
    ending = int(drawn.parts["sample"][drawn.parts["sample"].duplicated()].iloc[0])
    (row,) = drawn.parts[(drawn.parts["sample"] == ending) & (drawn.parts.position > 0)].itertuples()
    assert drawn.document_ends(ending) == [row.position - 1]
    assert drawn.text(ending).count("<|endoftext|>") == 1
    assert (drawn.position_ids == np.arange(64)).all() and (drawn.loss_mask == 1).all()
    table = drawn.table(ending, row.position - 1, 2)
    assert table.token.iloc[0] == "<|endoftext|>" and table.position_id.tolist() == [row.position - 1, row.position]

    reset = corpus.draw(small_corpus, 64, split=SPLIT, count=40, reset_position_ids=True, eod_mask_loss=True)
    assert (reset.tokens == drawn.tokens).all()
    assert reset.position_ids[ending, row.position] == 0
    assert reset.loss_mask[ending].tolist() == [float(i != row.position - 1) for i in range(64)]


def test_samples_show_themselves(drawn):
    assert repr(drawn).startswith("40 samples of 64 tokens of small, with ")
    assert drawn._repr_html_().count("<tr") > 40


def test_a_split_with_an_empty_part_is_refused_and_not_waited_for(small_corpus):
    with pytest.raises(CorpusError, match=r"gives test 0\.10% of 80 documents of small, which rounds to none"):
        corpus.draw(small_corpus, 64, split="949,50,1")
    with pytest.raises(CorpusError, match="leaves nothing for test"):
        corpus.draw(small_corpus, 64, split="9,1,0", part="test")


def test_nothing_asks_for_a_gpu(drawn):
    import torch

    assert not torch.cuda.is_initialized()


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
