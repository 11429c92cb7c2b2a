"""What a learner may type by mistake, on every face: told in a sentence, at once, and nothing is left behind."""

import math

import pytest

from helpers import corpus
from helpers.recipes import preflight

NAN = math.nan
TELLING = (TypeError, ValueError, RuntimeError, LookupError, OSError)


def told(call) -> str:
    """What a call that is refused says."""
    with pytest.raises(TELLING) as refused:
        call()
    words = str(refused.value)
    assert len(words) > 25 and " " in words, f"{type(refused.value).__name__}({words!r}) tells nothing"
    return words


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: corpus.draw(c, 10**12), "a whole number from 1 to 16,777,216"),
        (lambda c: corpus.draw(c, 64, count=10**10), "a whole number from 1 to 100,000,000"),
        (lambda c: corpus.draw(c, 64, split="8,1,1", count=10**8), "count=524,288 would do"),
        (lambda c: corpus.draw(c, 64, part="tests"), "'train' or 'valid' or 'test'"),
        (lambda c: corpus.draw(c, 64, seed=-1), "from 0 to 2,147,483,647"),
        (lambda c: corpus.draw(c, 64, seed=2**70), "from 0 to 2,147,483,647"),
        (lambda c: corpus.build_index(c, 64, split="8,1,1", count=10**13), "from 1 to 100,000,000"),
        (lambda c: corpus.build_index(c, 64, split="8,1,1", count=1e13), "not a float"),
        (lambda c: corpus.build_index(c, 2**24, split="8,1,1", count=10**8), "of memory, and this machine has"),
        (lambda c: corpus.build_index("5", 64, split="8,1,1", count=5), "a corpus, such as corpus.prepare()"),
        (lambda c: corpus.build_index(c, None, split="8,1,1", count=5), "not None"),
        (lambda c: corpus.build_index(c, 64, split=None, count=5), "a text, not None"),
        (lambda c: corpus.order(c, 0), "from 1 to 16,777,216"),
        (lambda c: corpus.order(c, 64), "give a blend"),
        (lambda c: corpus.watch_build(c, "8,1,1", 64, seconds=NAN), "a number above 0"),
        (lambda c: corpus.watch_build(c, "8,1,1", 64, seconds=-1), "a number above 0"),
        (lambda c: corpus.watch_build("sotu", "8,1,1", 64), "a corpus, such as"),
        (lambda c: corpus.written_by_megatron("a.jsonl", 5), "a corpus, such as"),
        (lambda c: corpus.written_by_megatron("no such.jsonl", c), "no such.jsonl"),
        (lambda c: corpus.preprocess_data(5, c), "a text, or a path, not an int"),
        (lambda c: corpus.preprocess_data("a.jsonl", c, workers=0), "from 1 to 256"),
        (lambda c: c.pieces("x" * 10**6), "of up to 100,000 characters"),
        (lambda c: c.pieces("\ud800"), "half a character"),
        (lambda c: c.encode("\ud800"), "half a character"),
    ],
)
def test_of_a_corpus(small_corpus, call, words):
    assert words in told(lambda: call(small_corpus))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_iters": 2**60}, "train_iters=1000000000 or less"),
        ({"global_batch_size": 10**60}, "global_batch_size=about 10**60"),
        ({"hidden_size": 10**400}, "about 10**400"),
        ({"num_layers": 10**9}, "from 1 to 10,000"),
        ({"seed": 2**31}, "The seed is a whole number from 0 to 2,147,483,647"),
        ({"seed": -1}, "seed=0 or more"),
        ({"lr": 1e300}, "from 0 to 1e+30"),
        ({"rotary_base": 0}, "from 1 to"),
        ({"train_iters": 10**9, "global_batch_size": 10**8}, "samples of the run takes"),
    ],
)
def test_of_a_recipe(tiny_recipe, small_corpus, changes, words):
    found = preflight.check(tiny_recipe.with_(**changes), small_corpus)
    assert any(words in str(problem) for problem in found), found
    assert all(len(line) < 300 for problem in found for line in str(problem).splitlines())
