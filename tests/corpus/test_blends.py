"""Several corpora by weight: what is refused, what Megatron is told, and what Megatron makes of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from helpers import corpus, launch
from helpers.corpus import CorpusError
from helpers.corpus.corpus import prepare
from helpers.machine import CPU
from helpers.recipes import preflight
from helpers.recipes.command import corpus_flags

SPLIT = "8,1,1"


@pytest.fixture(scope="module")
def members(small_blend):
    return small_blend.members


def test_a_blend_is_megatrons_data_path(small_blend, members, tmp_path):
    from megatron.core.datasets.utils import get_blend_from_list

    first, second = members
    assert small_blend.data_path == ("0.7", str(first.prefix), "0.3", str(second.prefix))
    flags = {flag.name: flag for flag in corpus_flags(small_blend, tmp_path)}
    assert flags["--data-path"].words == ["--data-path", *small_blend.data_path]
    assert get_blend_from_list(list(small_blend.data_path)) == ([str(first.prefix), str(second.prefix)], [0.7, 0.3])
    assert corpus.blend({first: 7, second: 1e-5}).data_path[::2] == ("7", "1e-05")
    assert corpus.blend({first: np.float64(2), second: np.int64(1)}).data_path[::2] == ("2", "1")


def test_a_recipe_takes_a_blend_wherever_it_takes_a_corpus(small_blend, members, tiny_recipe):
    first, second = members
    words = list(tiny_recipe.command(small_blend, CPU).argv)
    at = words.index("--data-path")
    assert words[at + 1 : at + 5] == ["0.7", str(first.prefix), "0.3", str(second.prefix)]
    shown = tiny_recipe.explain(small_blend, CPU, group="data").loc["--data-path", "value"]
    assert shown == " ".join(small_blend.data_path)
    same = corpus.blend({first: 7, second: 3})
    others = (corpus.blend({first: 6, second: 3}), corpus.blend({second: 0.3, first: 0.7}), first)
    assert tiny_recipe.fingerprint(same) == tiny_recipe.fingerprint(small_blend)
    assert len({tiny_recipe.fingerprint(data) for data in (small_blend, *others)}) == 4
    assert preflight.check(tiny_recipe, small_blend, CPU) == []


def test_a_blend_shows_itself(small_blend):
    assert small_blend.name == "0.7 small + 0.3 backwards"
    line = repr(small_blend).split("\n\n")[1].replace("~", str(Path.home())).replace("\\", "").split()
    assert "70.0%" in repr(small_blend) and line == ["--data-path", *small_blend.data_path]
    assert small_blend._repr_html_().count("<tr") == 3
    assert small_blend.members[1].tokenizer == "bpe-512 of small"
    assert small_blend.decode(small_blend.encode("the nation")) == "the nation"


def another(members, **changes):
    return dataclasses.replace(members[1], fingerprint="another", **changes)


BAD = {
    "no dict": (lambda a, b: [a, b], "a dict of corpora and their weights, not list"),
    "empty": (lambda a, b: {}, "this one has 0"),
    "one member": (lambda a, b: {a: 1.0}, "this one has 1"),
    "a path": (lambda a, b: {a: 0.7, str(b.prefix): 0.3}, "is no prepared corpus"),
    "a blend": (lambda a, b: {a: 0.5, corpus.blend({a: 1, b: 1}): 0.5}, "is a blend itself"),
    "zero": (lambda a, b: {a: 1, b: 0}, "backwards has the weight 0, .* Leave a corpus out"),
    "below zero": (lambda a, b: {a: 1, b: -0.3}, "backwards has the weight -0.3"),
    "not a number": (lambda a, b: {a: "0.7", b: 0.3}, "small has the weight '0.7', which is no positive number"),
    "nan": (lambda a, b: {a: float("nan"), b: 0.3}, "small has the weight nan"),
    "infinite": (lambda a, b: {a: 1, b: float("inf")}, "backwards has the weight inf"),
    "a switch": (lambda a, b: {a: True, b: 0.3}, "small has the weight True"),
    "dots": (lambda a, b: {a: ..., b: 0.3}, "small has the weight Ellipsis"),
    "too far apart": (lambda a, b: {a: 1e308, b: 1e308}, "too far apart"),
    "twice": (lambda a, b: {a: 0.7, dataclasses.replace(a, source_note="again"): 0.3}, "small is in the blend twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_blend_is_refused_in_words(case, members):
    make, said = BAD[case]
    with pytest.raises(CorpusError, match=said):
        corpus.blend(make(*members))


def test_two_tokenizers_are_refused_and_the_words_work(members, small_jsonl, small_texts, tmp_path):
    first, second = members
    gpt2 = prepare(str(small_jsonl), cache=tmp_path)
    with pytest.raises(CorpusError, match="is cut with bpe-512 and .* with another gpt2: a token id means"):
        corpus.blend({first: 1, gpt2: 1})
    text = tmp_path / "fewer.jsonl"
    text.write_text("".join(json.dumps({"text": text.upper()}) + "\n" for text in small_texts[:40]))
    own = prepare(str(text), tokenizer="bpe-512", cache=tmp_path)
    with pytest.raises(CorpusError, match=r"each corpus trains a bpe-N of its own.*tokenizer=first.tokenizer_path"):
        corpus.blend({first: 1, own: 1})
    mended = prepare(str(text), tokenizer=first.tokenizer_path, cache=tmp_path)
    assert corpus.blend({first: 1, mended: 1}).vocab_size == 512


def test_a_blend_of_which_nothing_is_held_out_is_told_before_megatron_stops(small_blend, members, tiny_recipe):
    """`assert self.total_samples > 0` (megatron/training/datasets/data_samplers.py), in a blend alone."""
    never = tiny_recipe.with_(eval_iters=0)
    (problem,) = preflight.check(never, small_blend, CPU)
    assert problem.asked.startswith("eval_iters=0 with ") and "no sample to consume" in problem.why
    assert preflight.check(never.with_(split="100,0,0"), small_blend, CPU) == []
    assert preflight.check(never, members[0], CPU) == []


def test_each_member_passes_preflight_by_itself(small_blend, members, tiny_recipe):
    problems = preflight.check(tiny_recipe.with_(split="96,3,1"), small_blend, CPU)
    assert [problem.asked for problem in problems] == ['split="96,3,1" of 20 documents of backwards']
    assert "rounds to 0 documents" in problems[0].why
    (problem,) = preflight.check(tiny_recipe.with_(split="no"), small_blend, CPU)
    assert "no" in problem.asked
    gone = dataclasses.replace(members[1], prefix=members[1].prefix.with_name("gone"))
    (problem,) = preflight.check(tiny_recipe, dataclasses.replace(small_blend, members=(members[0], gone)), CPU)
    assert problem.asked == "corpus backwards" and "does not exist" in problem.why
    with pytest.raises(CorpusError, match="test 1.00% of 20 documents of backwards"):
        corpus.order(small_blend, 64, split="96,3,1")


@pytest.mark.parametrize("data", [{"a": 1}, "speeches", 5])
def test_what_is_no_corpus_is_told_before_anything_starts(data, tiny_recipe):
    (problem,) = preflight.check(tiny_recipe, data, CPU)
    assert problem.severity == "error" and "prepared corpus" in problem.why


@pytest.fixture(scope="module")
def order(small_blend):
    return corpus.order(small_blend, 64, split=SPLIT, count=1000)


def test_the_drawn_shares_are_megatrons(order, small_blend):
    """What BlendedDataset itself counts, and never further from 0.7 and 0.3 than one sample."""
    assert order.counts == (700, 300) and len(order.members) == 1000
    of_first = np.cumsum(order.members == 0)
    assert np.abs(of_first - 0.7 * np.arange(1, 1001)).max() <= 1
    for member in (0, 1):
        assert order.numbers[order.members == member].tolist() == list(range(order.counts[member]))
    table = order.table()
    assert table["share drawn"].tolist() == ["70.00%", "30.00%"] and list(table.index) == ["small", "backwards"]
    tokens = small_blend.members[1].document_lengths()[:16].sum()
    assert order.samples_an_epoch[1] == (tokens - 1) // 64
    assert order.epochs[1] == 300 / order.samples_an_epoch[1]
    assert "1,000 samples of 0.7 small" in repr(order) and order._repr_html_().count("<tr") == 3


def test_a_drawn_sample_is_its_members_text(order, small_blend):
    drawn = corpus.draw(small_blend, 64, split=SPLIT, count=10)
    from_member = drawn.parts.groupby("sample")["corpus"].first()
    assert from_member.tolist() == [small_blend.names[member] for member in order.members[:10]]
    for i, rows in drawn.parts.groupby("sample"):
        opened = small_blend.members[order.members[i]].open_index()
        pieces = [opened.sequence(r.document)[r.first_token : r.first_token + r.tokens] for r in rows.itertuples()]
        assert np.concatenate(pieces).tolist() == drawn.tokens[i].tolist()
    assert repr(drawn).startswith("10 samples of 64 tokens of 0.7 small + 0.3 backwards")


def test_the_order_of_one_corpus_is_refused(members):
    with pytest.raises(CorpusError, match="give a blend"):
        corpus.order(members[0], 64, split=SPLIT)


@pytest.mark.train
def test_a_run_reads_the_blend_by_its_weights(small_blend, tiny_recipe):
    """A real launch: its own index says which member each sample came from, and the small one was read again."""
    recipe = tiny_recipe.with_(name="blended", split=SPLIT, train_iters=100)
    run = launch.train(recipe, small_blend, machine=CPU)
    assert run.state == "finished" and run.losses.iloc[-1] < run.losses.iloc[0] - 1
    (built,) = (run.path / "index_cache").glob("*-BlendedDataset-train-dataset_index.npy")
    drawn, samples = np.load(built), 100 * recipe.batch.global_batch_size
    expected = corpus.order(small_blend, 64, split=SPLIT, count=samples)
    assert drawn[:samples].tolist() == expected.members.tolist()
    assert abs((drawn == 1).sum() / len(drawn) - 0.3) <= 1 / len(drawn) + 1e-9
    assert json.loads((run.path / "recipe.json").read_text())["corpus"] == small_blend.name
    assert f"--data-path {' '.join(small_blend.data_path)}" in (run.path / "command.sh").read_text()


def test_a_blend_and_a_corpus_differ_in_one_flag(small_blend, members, tiny_recipe):
    table = tiny_recipe.diff(tiny_recipe.with_(name="other", lr=1e-3, min_lr=1e-4), small_blend, CPU)
    assert not any("--data-path" in str(row) for row in table.index)
