"""What a learner may type by mistake, on every face: told in a sentence, at once, and nothing is left behind."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from machines import EIGHT_H200

from helpers import corpus, environment, formats, launch, machine, planner, plots, recipes, runs, weights
from helpers.formats.layer_tensors import Linear
from helpers.lessons import (
    catalogue,
    exercises,
    experiments,
    layer_cost,
    layouts,
    napkin,
    pipelines,
    sharding,
    source,
    sums,
)
from helpers.plots import layer, widgets
from helpers.recipes import Layout, preflight
from helpers.recipes.layout import rank_groups
from helpers.runs import timeline

NAN = math.nan
TELLING = (TypeError, ValueError, RuntimeError, LookupError, OSError, ImportError, AttributeError)


class Rude:
    """A class of somebody's own, which cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no")


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
        (lambda c: corpus.draw(c, 64, split="8,1,1", count=10**8), "count=10,000 would do"),
        (lambda c: corpus.draw(c, 10**6, split="8,1,1", count=8), "count=4 would do"),
        (lambda c: corpus.draw(c, 10**7, split="8,1,1"), "sequence_length=4,194,304 would do, with count=1"),
        (lambda c: corpus.draw(c, 64, part="tests"), "'train' or 'valid' or 'test'"),
        (lambda c: corpus.draw(c, 64, seed=-1), "from 0 to 2,147,483,647"),
        (lambda c: corpus.draw(c, 64, seed=2**70), "from 0 to 2,147,483,647"),
        (lambda c: corpus.build_index(c, 64, split="8,1,1", count=10**13), "from 1 to 100,000,000"),
        (lambda c: corpus.build_index(c, 64, split="8,1,1", count=1e13), "not a float"),
        (lambda c: corpus.build_index(c, 2**24, split="8,1,1", count=10**8), "of memory, and this machine has"),
        (lambda c: corpus.build_index("5", 64, split="8,1,1", count=5), "a corpus, such as corpus.prepare()"),
        (lambda c: corpus.build_index(c, None, split="8,1,1", count=5), "not None"),
        (lambda c: corpus.build_index(c, 64, split=None, count=5), "a text, not None"),
        (lambda c: plots.split_parts(c), "there is no split"),
        (lambda c: plots.split_parts(c, "8,1,1", sequence_length=0), "from 1 to 16,777,216"),
        (lambda c: corpus.draw(c, 64, sed=1), "corpus.draw: it takes no 'sed'. Did you mean seed?"),
        (
            lambda c: corpus.prepare(tokeniser="gpt2"),
            "corpus.prepare: it takes no 'tokeniser'. Did you mean tokenizer?",
        ),
        (lambda c: corpus.prepare(Rude()), "corpus.prepare(name=<Rude>): it takes a name, or a path"),
        (lambda c: corpus.prepare("sotu", workers=Rude()), "workers=<Rude>"),
        (lambda c: corpus.prepare("sotu", text_key=" "), "the key or column with the text"),
        (lambda c: corpus.blend({c: 10**400, replace(c, fingerprint="x"): 1}), "the weight about 10**400, which is no"),
        (lambda c: corpus.blend({Rude(): 1, c: 1}), "<Rude> is no prepared corpus"),
        (lambda c: c.token, "Corpus has no 'token'. Did you mean tokens?"),
        (lambda c: recipes.gpt3_345m().command(c, entry_script=""), "entry_script='': an empty path names nothing"),
        (lambda c: recipes.gpt3_345m().command(c, run_directory="a\0b"), "no path has a NUL character"),
        (lambda c: corpus.order(c, 0), "from 1 to 16,777,216"),
        (lambda c: corpus.order(c, 64), "give a blend"),
        (lambda c: corpus.watch_build(c, "8,1,1", 64, seconds=NAN), "a number above 0"),
        (lambda c: corpus.watch_build(c, "8,1,1", 64, seconds=-1), "a number above 0"),
        (lambda c: corpus.watch_build("sotu", "8,1,1", 64), "a corpus, such as"),
        (lambda c: corpus.written_by_megatron("a.jsonl", 5), "a corpus, such as"),
        (lambda c: corpus.written_by_megatron("no such.jsonl", c), "no such.jsonl"),
        (lambda c: corpus.written_by_megatron("", c), "an empty path names nothing"),
        (lambda c: corpus.written_by_megatron("/", c), "a folder"),
        (lambda c: corpus.written_by_megatron("a\0b", c), "NUL character"),
        (lambda c: corpus.preprocess_data("a\0b", c), "NUL character"),
        (lambda c: corpus.preprocess_data("a.jsonl", c, output_prefix="a\0b"), "NUL character"),
        (lambda c: corpus.prepare("sotu", text_key="\ud800"), "the key or column with the text"),
        (lambda c: corpus.prepare("sotu", cache="\ud800"), "half a character"),
        (lambda c: corpus.preprocess_data("a.jsonl", c, text_key=""), "the key of the text"),
        (lambda c: corpus.written_by_megatron("x" * 1000, c), "xxx"),
        (lambda c: corpus.preprocess_data(5, c), "a text, or a path, not an int"),
        (lambda c: corpus.preprocess_data("a.jsonl", c, workers=0), "from 1 to 256"),
        (lambda c: c.pieces("x" * 10**6), "of up to 100,000 characters"),
        (lambda c: c.pieces("\ud800"), "half a character"),
        (lambda c: c.encode("\ud800"), "half a character"),
        (lambda c: c.decode([5, 10**6]), "bpe-512 has no token 1000000. It has 0 to 511"),
        (lambda c: c.decode(["a"]), "whole numbers from 0"),
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
        ({"lr": Rude()}, "lr=<Rude>"),
        ({"tensor_parallel": Rude()}, "tensor_parallel=<Rude>"),
        ({"name": Rude()}, "name=<Rude>"),
        ({"scaled_for": 3}, "scaled_for=3"),
        ({"extra_flags": (None, "--bf16")}, "extra_flags=('--bf16',)"),
        ({"train_iters": 10**9, "global_batch_size": 10**8}, "samples of the run takes"),
    ],
)
def test_of_a_recipe(tiny_recipe, small_corpus, changes, words):
    found = preflight.check(tiny_recipe.with_(**changes), small_corpus)
    assert any(words in str(problem) for problem in found), found
    assert all(len(line) < 300 for problem in found for line in str(problem).splitlines())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: launch.ranks("probe", 10**6), "from 1 to 256"),
        (lambda: launch.ranks("probe", 0), "from 1 to 256"),
        (lambda: launch.ranks("probe", 1, timeout_seconds=NAN), "a number above 0"),
        (lambda: launch.ranks("probe", 1, "a\0b"), "'a\\x00b' is handed to the script. No word of a command line"),
        (lambda: launch.ranks("probe", 1, "\ud800"), "half a character"),
        (lambda: launch.ranks("probe", 1, hear="x"), "it takes a function"),
        (lambda: layer.collectives([], Layout(0)), "The number of ranks"),
        (lambda: launch.ranks("a\0b.py", 1), "no path has a NUL character"),
        (lambda: runs.load("/tmp"), "/tmp is no run directory"),
        (lambda: runs.write_result("/tmp"), "/tmp is no run directory"),
        (lambda: runs.load("a\0b"), "no path has a NUL character"),
        (lambda: timeline.read("/dev/null"), "There is no file /dev/null"),
        (lambda: timeline.read(__file__), "holds something else"),
        (lambda: timeline.read(None), "it takes a path"),
        (lambda: formats.of_run(None), "a run, such as"),
        (lambda: formats.cast_errors(None), "a layer's tensors"),
        (lambda: formats.product_errors("x"), "a layer's tensors"),
        (lambda: formats.decides(None), "DataFrame"),
        (lambda: formats.decides(pd.DataFrame({"a": [1]})), "takes the table of formats.cast_errors"),
        (lambda: formats.accumulation_errors(seed=2**70), "from 0 to 2,147,483,647"),
        (lambda: planner.with_ranks_alone(None), "a text, not None"),
        (lambda: sums.in_percent(None), "DataFrame"),
        (lambda: source.megatron(""), "has no file"),
        (lambda: napkin.step(recipes.gpt3_345m().scaled_to("cpu"), EIGHT_H200), 'with_(dtype="bf16")'),
        (lambda: timeline.write(None, "x.json"), "the timeline of a step"),
        (lambda: timeline.reduce(None), "a path, or a text"),
        (lambda: layouts.beside(None, None), "the timeline of a step"),
        (lambda: plots.narrow_wire({"layouts": {"TP2": {"step_ms": {"free": NAN}, "sent_bytes": 1}}}), "lessons.wires"),
        (lambda: plots.narrow_wire({"layouts": {"TP2": {}}}), "lessons.wires.measure"),
        (lambda: plots.signed_differences({"a": (None,)}), "tuple in it is a tuple of 1"),
        (lambda: plots.data_parallel_cost(one for one in [None, 5]), "5 in it is an int"),
        (lambda: planner.with_others(one for one in [5]), "5 in it is an int"),
        (lambda: Layout(tp=2), "Layout: it takes no 'tp'. Did you mean tensor_parallel?"),
        (lambda: recipes.Nodes(2, 8, adress="a"), "Nodes: it takes no 'adress'. Did you mean address?"),
        (lambda: recipes.gpt3_345m().train_iter, "Recipe has no 'train_iter'. Did you mean schedule.train_iters?"),
        (lambda: setattr(recipes.gpt3_345m(), "name", "x"), "with_(name=…) makes another one"),
        (lambda: recipes.gpt3_345m().with_(model=Rude()), "model=<Rude>"),
        (lambda: machine.Machine.from_json("{}"), "machine.from_json(described='{}'): it takes a dict"),
        (lambda: machine.Machine.from_json({"gpus": 5}), "Machine(gpus=5): it takes a tuple, each of it a GPU"),
        (lambda: machine.Machine.from_json({"gpus": [{}]}), "GPU(name=None): it takes a text"),
        (lambda: recipes.Recipe.from_json(None), "the recipe is None, where a dict of its fields belongs"),
        (lambda: recipes.Recipe.from_json({"name": "x", "model": 5}), "model is 5"),
        (lambda: runs.recorded("h200", "gpt3_345m_300_bf16").los, "Recorded has no 'los'. Did you mean loss"),
        (lambda: plots.layers_on_stages(8, 2, ()), "there is no number of chunks"),
        (lambda: plots.held(recipes.gpt3_345m(), {"DDP": {"held": [{"weights": NAN}]}}), "'DDP' has no held"),
        (lambda: plots.data_parallel_steps({"DDP": {"phases": [{}]}}), "'DDP' has no phases"),
        (lambda: Layout(2, pipeline_parallel=2).require_stage("1"), "has no pipeline stage '1'"),
        (lambda: environment.all_reduce(sizes=[]), "there is no size"),
        (lambda: plots.step_parts([]), "there is no plan to draw"),
        (lambda: plots.predicted_and_measured(), "there is no timed run"),
        (lambda: plots.rank_grid(Layout(3, tensor_parallel=2)), "3 is not a multiple of it. processes=4"),
        (lambda: plots.rank_grid(Layout(10**6)), "from 1 to 100,000"),
        (lambda: plots.rank_grid(Layout(4096, tensor_parallel=4096)), "a figure shows 128"),
        (lambda: layer.shards([{"rank": 0}]), "these are no findings"),
        (lambda: layer.collectives([{"rank": 0}]), "these are no findings"),
        (lambda: planner.calibrate(force="no"), "True or False"),
        (lambda: planner.calibrate("cpu"), "a machine"),
        (lambda: planner.with_others(["999"]), "There is no table '999': there are 101"),
        (lambda: planner.with_others(["101"]).table(["999"]), "There is no table '999': there are 101."),
        (lambda: planner.with_others(["101"]).table("101"), "One alone is put in brackets"),
        (lambda: planner.with_others(["101"]).order("999"), "no table '999' was timed. There are: 101."),
        (lambda: planner.with_others(["101"]).regret("999"), "no table '999' was timed. There are: 101."),
        (lambda: planner.with_ranks_alone("cpu").worst, "One rank of many: none of it was timed"),
        (lambda: planner.search(recipes.gpt3_345m(), EIGHT_H200).table(rows=0), "from 1 to"),
        (lambda: recipes.costs.of("h100"), "it takes a machine"),
        (lambda: recipes.costs.of(None), "it takes a machine"),
        (lambda: recipes.costs.step(None, EIGHT_H200), "it takes a recipe"),
        (lambda: recipes.gpt3_345m().with_({"lr": 1}), "with_(**changes)"),
        (lambda: recipes.gpt3_345m().with_(3), "fields by their names, and 3 has none"),
        (lambda: preflight.require(None), "it takes a recipe"),
        (lambda: environment.all_reduce(sizes=[0]), "0 in it is an int"),
        (lambda: environment.all_reduce(sizes=[-5]), "from 4 to 1,073,741,824"),
        (lambda: environment.all_reduce(sizes=[1e15]), "is a float"),
        (lambda: environment.all_reduce(sizes=[4]), "8 bytes or more"),
        (lambda: environment.all_reduce(0), "from 1 to 256"),
        (lambda: formats.outlier_errors(Linear("fc2", *3 * [torch.ones(4, 3)]), column=3), "the activation has 3"),
        (lambda: formats.outlier_errors(Linear("fc2", *3 * [torch.ones(4, 1)])), "there must be another"),
        (lambda: formats.accumulation.add_up(torch.ones(4, 3), torch.ones(3, 4)), "k is 3 in a and 4 in b"),
        (lambda: experiments.fp8_against_bf16(recipes.gpt3_345m().with_(name=None), None), "name=None"),
        (lambda: timeline.reduce("no such trace"), "There is no file no such trace"),
        (lambda: timeline.reduce(__file__), "is no trace of PyTorch's profiler"),
        (lambda: runs.micro_batches.from_output("", "cpu", recipes.gpt3_345m()), "no line MICRO_BATCHES"),
        (lambda: runs.micro_batches.from_output("MICRO_BATCHES 5", "cpu", recipes.gpt3_345m()), "JSON behind it"),
        (lambda: runs.one_rank.from_output("x"), "What the program printed has no line"),
        (lambda: machine.short_path(None), "it takes a path"),
        (lambda: machine.megatron_source(None), "it takes a file of Megatron's"),
        (lambda: machine.for_ranks("2"), "'2' ranks: a whole number from 1"),
        (lambda: catalogue.of(None, True), "a machine"),
        (lambda: catalogue.of(EIGHT_H200, 1), "True or False"),
        (lambda: catalogue.duration("x", EIGHT_H200), "a path"),
        (lambda: planner.across(recipes.gpt3_345m(), []), "there is no machine"),
        (lambda: recipes.accounting.memory(recipes.gpt3_345m(), None, 7), "has no pipeline stage 7: they are 0 to 0"),
        (lambda: recipes.costs.computing(recipes.gpt3_345m(), EIGHT_H200, -1), "has no pipeline stage -1"),
        (lambda: recipes.costs.nearest(None), "it takes a machine"),
        (lambda: formats.number_formats.cast([1.0], formats.number_formats.E4M3), "not a list"),
        (lambda: formats.number_formats.cast(torch.ones(2), "E4M3"), "not a str"),
        (lambda: plots.number_line(torch.zeros(0)), "has no element"),
        (lambda: plots.number_line(name="x" * 1000), "of up to 300 characters"),
        (lambda: plots.blend_order(None, first=0), "an order of samples"),
        (lambda: plots.held(recipes.gpt3_345m(), {"DDP": {"a": 1}}), "'DDP' has no held"),
        (lambda: plots.data_parallel_steps({"DDP": {"held": [1]}}), "'DDP' has no phases"),
        (lambda: sharding.recorded("gpt2"), "gpt2_xl"),
        (lambda: sharding.zero_stages(7e9, 0), "ranks"),
        (lambda: sharding.zero_stages(NAN, 8), "parameters"),
        (lambda: sharding.zero_stages(7e9, 8, (0,)), "micro_batches"),
        (lambda: sharding.even(recipes.llama3_8b().model, (1,)), "2 or more ranks"),
        (lambda: plots.parameters(recipes.gpt3_345m().with_(name=None)), "name=None"),
        (lambda: plots.index_bytes("x" * 1000), "does not exist"),
        (lambda: widgets.rank_grid(Layout(2), rank=5), "has ranks 0 to 1: there is no rank 5"),
        (lambda: machine.megatron_source("../.."), "has no package '..'"),
        (lambda: runs.load("x" * 1000), "There is no run directory"),
        (lambda: planner.calibrate(EIGHT_H200), "is another: call it there"),
        (lambda: weights.from_hugging_face("a\0b"), "no path has a NUL character"),
        (lambda: recipes.gpt3_345m().diff("/dev/zero"), "/dev/zero is no file"),
        (lambda: corpus.prepare("sotu", cache="/proc/x"), "another folder with cache=…"),
    ],
)
def test_of_what_stands_alone(call, words):
    assert words in told(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda recipe, data: planner.predict(recipe),
        lambda recipe, data: planner.search(recipe),
        lambda recipe, data: planner.best(recipe),
        lambda recipe, data: planner.across(recipe, [EIGHT_H200]),
        lambda recipe, data: napkin.step(recipe, EIGHT_H200),
        lambda recipe, data: sums.epochs(recipe, data),
        lambda recipe, data: sums.output_layer(recipe),
        lambda recipe, data: sharding.planned(recipe, {"DDP": {}}),
        lambda recipe, data: sums.memory_plan(recipe, {}),
        lambda recipe, data: recipes.accounting.memory(recipe),
        lambda recipe, data: recipes.accounting.checkpoint_bytes(recipe),
        lambda recipe, data: recipes.accounting.megatron_memory(recipe),
        lambda recipe, data: recipes.costs.step(recipe, EIGHT_H200),
        lambda recipe, data: recipes.costs.sent_bytes(recipe),
    ],
)
@pytest.mark.parametrize("size", ["hidden_size", "global_batch_size"])
def test_of_sizes_that_are_none(tiny_recipe, small_corpus, call, size):
    assert f"{size}=nan" in told(lambda: call(tiny_recipe.with_(**{size: NAN}), small_corpus))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tensor_parallel": 3}, "16 heads do not go into 3 equal shares"),
        ({"pipeline_parallel": 5}, "24 / 5 is not whole"),
        ({"processes": 3, "tensor_parallel": 2}, "3 is not a multiple of it"),
        ({"processes": 0}, "The number of ranks is counted in whole numbers from 1"),
        ({"processes": "2"}, "processes='2'"),
        ({"tensor_parallel": 0}, "tensor_parallel=0"),
        ({"tensor_parallel": NAN}, "tensor_parallel=nan"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda recipe: napkin.step(recipe, EIGHT_H200),
        lambda recipe: pipelines.stages(recipe, EIGHT_H200),
        lambda recipe: layer_cost.layer_cost(recipe, EIGHT_H200),
        lambda recipe: layer_cost.ratio(recipe, EIGHT_H200),
        lambda recipe: sums.memory_plan(recipe, {}),
        lambda recipe: sharding.planned(recipe, {"DDP": {}}),
        lambda recipe: planner.predict(recipe, EIGHT_H200),
        lambda recipe: plots.memory(recipe),
        lambda recipe: widgets.parameter_counter(recipe),
    ],
)
def test_of_a_division_that_is_uneven(call, changes, words):
    """In preflight's own words, wherever a figure would be made of it."""
    assert words in told(lambda: call(recipes.gpt3_345m().with_(**changes)))


@pytest.mark.parametrize("size", [0, "2", NAN, -1, 2.5])
def test_of_a_layout_of_odd_sizes(size):
    for field in ("processes", "tensor_parallel", "pipeline_parallel"):
        layout = Layout(**{field: size})
        for call in (lambda one: one.name, rank_groups, plots.rank_grid, widgets.rank_grid):
            assert f"{field}={size!r}" in told(lambda call=call, layout=layout: call(layout))


def test_of_ranks_that_are_too_many_or_too_few_for_a_grid():
    for draw in (plots.rank_grid, widgets.rank_grid):
        assert "16,384 at most" in told(lambda draw=draw: draw(Layout(10**5, tensor_parallel=8)))
        assert "processes=4, say" in told(lambda draw=draw: draw(Layout(3, tensor_parallel=2)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r, c: launch.one_of_many(r, c, timeout_seconds=NAN), "a number above 0"),
        (lambda r, c: launch.one_of_many(r, c, stage=-1), "from 0 to"),
        (lambda r, c: launch.one_of_many(r, c, steps=0), "from 1 to"),
        (lambda r, c: launch.train(r, c, predict={(1, 2): 3}), "tuple in it is a tuple"),
        (lambda r, c: launch.train(r, c, predict={"loss": [3]}), "list in it is a list"),
        (lambda r, c: launch.train(r, c, hang_timeout_seconds=-1), "hang_timeout_seconds=600, say"),
        (lambda r, c: launch.train(r.with_(extra_flags=("--wandb-entity", "a\0b")), c), "NUL character"),
        (lambda r, c: experiments.pull_the_plug(r, c, step=0), "from 1 to"),
        (lambda r, c: experiments.layouts(r, c, {"tensor_parallel": "2"}), "tensor_parallel='2'"),
        (lambda r, c: experiments.look_inside(r, c, {"tensor_parallel": 3}), "tensor_parallel=1, 2 or 4"),
        (lambda r, c: experiments.look_inside(r, c, {}, {"tensor_parallel": 2}), "not on [1, 2]"),
        (lambda r, c: weights.generate(r, "\ud800"), "half a character"),
    ],
)
def test_of_a_launch(tiny_recipe, small_corpus, call, words):
    assert words in told(lambda: call(tiny_recipe, small_corpus))


def test_a_window_is_no_longer_than_what_two_runs_have():
    two = [runs.recorded("h200", f"gpt3_345m_300_{name}") for name in ("bf16", "tensorwise")]
    assert "300 steps in common" in told(lambda: plots.signed_differences({"x": tuple(two)}, window=10**6))
    assert "from 1 to" in told(lambda: plots.signed_differences({"x": tuple(two)}, window=0))


def test_an_answer_of_any_size_is_answered():
    assert "it takes a text, not None" in str(exercises.number(None))
    assert "about 10**400 is far too large" in str(exercises.check("x", 10**400, 5))


@pytest.mark.parametrize(
    "call",
    [
        runs.recorded,
        runs.baselines.table,
        runs.generation_speeds.table,
        runs.one_rank.recorded,
        planner.with_ranks_alone,
        lambda label: runs.pipeline.recorded(label, "x"),
        lambda label: runs.micro_batches.recorded(label, "x"),
        lambda label: timeline.recorded(label, "x"),
    ],
)
def test_a_label_under_which_nothing_is_recorded_is_told(call):
    for label in ("h100", "", "..", "/etc", "broken"):
        assert "There are: cpu, h100-80gb-hbm3, h200." in told(lambda label=label: call(label))
    assert "Did you mean 'h100-80gb-hbm3'?" in told(lambda: call("h100"))
    assert "Did you mean 'h200/twins'? There are: h200/" in told(lambda: call("h200/twin"))


def test_a_comparison_of_nothing_says_so():
    assert "none of it was timed" in repr(planner.with_ranks_alone("cpu"))
