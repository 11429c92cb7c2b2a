"""Exercises on a split and a blend: tried out with Megatron's own rules."""

import pytest

from helpers import corpus
from helpers.lessons import corpora


@pytest.mark.parametrize(
    ("split", "kind", "said"),
    [
        ("949,50,1", "wrong", "train 76, valid 4, test 0. Not yet: valid and test should get 8 or more"),
        ("60,20,20", "wrong", "train 48, valid 16, test 16. Not yet: train should keep 75% of them"),
        ("80,10,10", "right", "train 64, valid 8, test 8. That will do"),
        ("many", "wrong", "give up to three numbers"),
        (None, "asked", "where the … is"),
        (..., "asked", "where the … is"),
        ((949, 50, 1), "wrong", "three numbers in a text, such as"),
    ],
)
def test_a_split_is_tried_out(split, kind, said, small_corpus):
    message = corpora.check_split(small_corpus, split, training=0.75)
    assert message.kind == kind and said in message.text


def test_the_split_of_a_blend_is_tried_out_member_by_member(small_blend):
    message = corpora.check_split(small_blend, "80,10,10")
    assert message.kind == "wrong" and "check small and backwards one by one" in message.text


def test_what_is_no_blend_is_told(small_corpus):
    assert corpora.check_blend(...).kind == corpora.check_blend(None).kind == "asked"
    for thing in (small_corpus, "sotu", 5):
        message = corpora.check_blend(thing)
        assert message.kind == "wrong" and "A blend is corpus.blend(" in message.text


def test_a_blend_is_tried_out(small_blend):
    first, second = small_blend.members
    unequal = corpora.check_blend(small_blend, count=400, split="8,1,1")
    assert unequal.kind == "wrong" and "backwards is read" in unequal.text
    by_size = corpus.order(small_blend, 1024, split="8,1,1", count=400).samples_an_epoch
    equal = corpus.blend(dict(zip((first, second), by_size, strict=True)))
    assert corpora.check_blend(equal, count=400, split="8,1,1").kind == "right"
