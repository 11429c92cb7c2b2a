"""The loss on held-out text: what training printed, what transformers computes, at any layout."""

import math
import re

import held_out
import pytest

from helpers import corpus, weights
from helpers.machine import CPU
from helpers.recipes import Layout
from helpers.weights import checkpoint, evaluation
from helpers.weights.evaluation import Evaluation

PRINTED = re.compile(r"validation loss at iteration (\d+) \| lm loss value: (\S+) \|")


@pytest.fixture(scope="module")
def looked(tiny_recipe, small_corpus, tmp_path_factory):
    """A run that looked at its validation part three times and kept a checkpoint of each."""
    from helpers import launch

    recipe = tiny_recipe.with_(name="looked", train_iters=12, eval_interval=4, save_interval=4, eval_iters=2, keep=3)
    return launch.train(recipe, small_corpus, machine=CPU, runs_dir=tmp_path_factory.mktemp("looked"))


@pytest.mark.train
def test_the_loss_is_the_one_that_training_printed(looked):
    """Of a step that is asked for, not the newest, and at another layout than it was saved with."""
    printed = {int(at): float(loss) for at, loss in PRINTED.findall(looked.log_text)}
    found = weights.evaluate(looked, step=8, layout=Layout(tensor_parallel=2, pipeline_parallel=2), machine=CPU)
    assert found.loss == pytest.approx(printed[8], abs=2e-6)  # it prints seven digits
    assert found.tokens == 2 * 8 * 64 and 0 < found.bytes < 6 * found.tokens


@pytest.mark.train
def test_a_whole_part_is_predicted_token_by_token(looked, small_corpus):
    """Every token but the first, once, in the order of the documents; transformers' loss is test_exporting.py's."""
    alone, found = weights.evaluate_each(looked, [small_corpus] * 2, part="test", machine=CPU)  # one start for both
    assert alone == found
    ids = held_out.tokens(small_corpus, looked.recipe.schedule.split, 64, part=2)
    assert found.tokens == len(ids) - 1
    text = small_corpus.decode(ids[1:]).replace("<|endoftext|>", "")
    assert found.bytes == len(text.encode())
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2) * found.tokens / found.bytes)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


@pytest.mark.train
def test_another_tokenizers_corpus_is_refused(looked, small_jsonl):
    other = corpus.prepare(str(small_jsonl), tokenizer="bpe-400")
    with pytest.raises(weights.WeightsError, match="was cut with another tokenizer"):
        weights.evaluate(looked, other)


def test_samples_are_in_order_and_few_of_them_spread_over_the_part(small_corpus, tiny_recipe, tmp_path):
    saved = checkpoint.Checkpoint(tiny_recipe, tmp_path, 1, small_corpus.tokenizer_path)
    whole = evaluation._in_order(saved, small_corpus, "all", None)
    assert whole["loss_mask"].sum() == small_corpus.tokens - 1
    assert (whole["labels"][:, :-1] == whole["tokens"][:, 1:]).all()
    few = evaluation._in_order(saved, small_corpus, "all", 3)
    assert few["tokens"].shape == (3, 64) and few["loss_mask"].all()
    full = int(whole["loss_mask"].all(1).sum())
    assert (few["tokens"] == whole["tokens"][[0, round((full - 1) / 2), full - 1]]).all()
    assert (evaluation._in_order(saved, small_corpus, "all", full)["tokens"] == whole["tokens"][:full]).all()


def test_what_cannot_be_evaluated(tiny_recipe):
    with pytest.raises(TypeError, match="it takes 'train' or 'valid' or 'test' or 'all'"):
        weights.evaluate(tiny_recipe, part="held-out")
    with pytest.raises(weights.WeightsError, match="samples=0: how many"):
        weights.evaluate(tiny_recipe, samples=0)
    with pytest.raises(weights.WeightsError, match="part='train' chooses from a corpus"):
        weights.evaluate(tiny_recipe, part="train")
    with pytest.raises(weights.WeightsError, match="samples=2 chooses from a corpus"):
        weights.evaluate(tiny_recipe, samples=2)
    with pytest.raises(weights.WeightsError, match="corpora=\\[\\]"):
        weights.evaluate_each(tiny_recipe, [])


def test_bits_per_byte_by_hand():
    found = Evaluation("text", loss=math.log(2) * 4, tokens=100, bytes=200)
    assert found.bits_per_byte == pytest.approx(2) and found.perplexity == pytest.approx(16)
    assert "2.000 bits per byte" in repr(found) and "<table" in found._repr_html_()


def test_two_models_on_the_same_texts():
    before = [Evaluation("speeches", 3.0, 100, 400), Evaluation("python", 2.0, 100, 300)]
    after = [Evaluation("speeches", 2.5, 100, 400), Evaluation("python", 2.1, 100, 300)]
    table = weights.compare(before, after)
    assert list(table.index) == ["speeches", "python"] and list(table["change"]) == ["-0.500", "+0.100"]
    assert table["perplexity after"].tolist() == [12.2, 8.2]
    sampled = [Evaluation("speeches", 3.0, 100, 400, (2.0, 4.0)), Evaluation("speeches", 2.5, 100, 400, (1.6, 3.4))]
    assert list(weights.compare(sampled[:1], sampled[1:])["change"]) == ["-0.500 ± 0.100"]
    with pytest.raises(weights.WeightsError, match="are of different texts"):
        weights.compare(before, after[::-1])
