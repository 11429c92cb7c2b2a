"""Texts that a checkpoint goes on with: transformers' own, whatever the layout, however they are drawn."""

import os
import shutil

import pytest
import tiny_models

from helpers import recipes, weights
from helpers.machine import CPU
from helpers.recipes import Layout
from helpers.weights import checkpoint, text
from helpers.weights.checkpoint import Checkpoint
from helpers.weights.generation import Generation, Token

PROMPTS = ["The state of the union", "My fellow citizens, the economy of this great country", "Peace"]


@pytest.fixture(scope="module")
def transformers_say(small_corpus, tmp_path_factory):
    """A tiny Llama from transformers, and what it says greedily: text → the ids that follow."""
    import torch
    from transformers import AutoTokenizer

    folder = tiny_models.save("biased_llama", tmp_path_factory.mktemp("said") / "tiny", small_corpus.tokenizer_path)
    model, tokenizer = tiny_models.build("biased_llama"), AutoTokenizer.from_pretrained(folder)

    def say(prompt, count):
        ids = tokenizer(prompt).input_ids
        for _ in range(count):
            with torch.no_grad():
                ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
        return ids[-count:]

    return folder, say


@pytest.mark.train
def test_greedy_is_what_transformers_says(transformers_say, capsys):
    """Three prompts of different lengths at once, with a KV cache, at another layout than it was saved with.

    On one rank: test_smollm2.py."""
    folder, say = transformers_say
    recipe = weights.from_hugging_face(folder)
    split = Layout(tensor_parallel=2, pipeline_parallel=2)
    found = weights.generate(recipe, PROMPTS, tokens=12, layout=split, machine=CPU)
    for prompt, one in zip(PROMPTS, found, strict=True):
        assert [token.id for token in one.tokens] == say(prompt, 12)[: len(one.tokens)]
        assert len(one.tokens) == 12 or one.tokens[-1].id == 0  # where it ended the text
        assert all(token.likeliest[0][1] == token.probability for token in one.tokens)
    assert found[0].tokens_per_second > 0


@pytest.mark.train
def test_a_trained_run_speaks(tiny_run, capsys):
    """Streamed as it grows; what was drawn depends on the seed alone; the table and the page show probabilities."""
    said = weights.generate(tiny_run, "The state", tokens=10, temperature=0.8, top_k=50, top_p=0.9, seed=3, step=20)
    shown = capsys.readouterr().out
    assert shown == f"The state{said.text}\n" and repr(said) == f"The state{said.text}"
    again = weights.generate(tiny_run, "The state", tokens=10, temperature=0.8, top_k=50, top_p=0.9, seed=3, step=20)
    assert again.text == said.text
    assert list(said.table().columns) == ["token", "probability", "likeliest"] and len(said.table()) == 10
    assert said._repr_html_().count("<span") == 10 and "likeliest" in said._repr_html_()


@pytest.mark.train
def test_experts_on_two_ranks_say_what_one_says(small_corpus, tmp_path):
    folder = tiny_models.save("mixtral", tmp_path / "experts", small_corpus.tokenizer_path)
    recipe = weights.from_hugging_face(folder)
    alone = weights.generate(recipe, "Peace", tokens=6, machine=CPU)
    shared = weights.generate(recipe, "Peace", tokens=6, machine=CPU, layout=Layout(processes=2, expert_parallel=2))
    assert alone.text == shared.text


def test_half_a_character_waits_for_its_other_half():
    from helpers.weights.text import Growing

    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode(errors="replace")

    growing = Growing(Bytes())
    assert [growing.add(one) for one in "aé!".encode()] == ["a", "", "é", "!"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": []}, "give a text, or a list"),
        ({"tokens": 0}, "tokens=0: how many to add"),
        ({"temperature": 0}, "temperature=0: the logits are divided by it"),
        ({"temperature": -1.5}, "temperature=-1.5"),
        ({"temperature": 1e-300}, "it is 0.001 or more"),
        ({"temperature": 1, "top_k": 0}, "top_k=0"),
        ({"temperature": 1, "top_p": 1.5}, "top_p=1.5: a share"),
        ({"temperature": 1, "top_p": 0}, "top_p=0: a share"),
        ({"top_k": 5}, "without a temperature none is done"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_draw_nothing(settings, words):
    asked = {"prompt": "a", "tokens": 5, "temperature": None, "top_k": None, "top_p": None, "seed": 1} | settings
    with pytest.raises(weights.WeightsError, match=words):
        weights.generate(recipes.gpt3_345m(), asked.pop("prompt"), **asked)


def test_a_prompt_that_is_no_text():
    with pytest.raises(TypeError, match="it takes a text, or a list, each of it a text"):
        weights.generate(recipes.gpt3_345m(), [3])


@pytest.mark.train
def test_a_prompt_that_is_too_long(tiny_run):
    with pytest.raises(weights.WeightsError, match=r"longer than the 64 that the model can place: tokens=\d+"):
        weights.generate(tiny_run, "The state of the union", tokens=60)


@pytest.mark.parametrize(
    ("model", "layout", "words"),
    [
        ({}, Layout(context_parallel=2), "a text that grows token by token is read whole by each rank"),
        ({"num_experts": 4}, Layout(tensor_parallel=2, sequence_parallel=True), "one new token cannot be"),
        ({}, Layout(tensor_parallel=3), "4 heads do not go into 3 equal shares"),
    ],
)
def test_a_layout_that_cannot_read(tiny_recipe, model, layout, words):
    with pytest.raises(weights.WeightsError, match=words):
        checkpoint.for_inference(layout, tiny_recipe.with_(**model))


def test_a_layout_is_taken_without_what_only_training_needs(tiny_recipe):
    given = Layout(processes=8, tensor_parallel=2, sequence_parallel=True, distributed_optimizer=True)
    assert checkpoint.for_inference(given, tiny_recipe) == Layout(processes=2, tensor_parallel=2)


def test_a_page_shows_text_as_text():
    token = Token("<b>", 1, 0.25, (("<b>", 0.25), ('"', 0.2)))
    shown = Generation("a & b", "<b>", (token,), None)._repr_html_()
    assert "<b>" not in shown and "a &amp; b" in shown and "25.0%" in shown


def test_a_tokenizer_that_is_cut_off_is_told(small_corpus, tmp_path):
    folder = shutil.copytree(small_corpus.tokenizer_path, tmp_path / "tokenizer")
    os.truncate(folder / "tokenizer.json", 100)
    saved = Checkpoint(recipes.gpt3_345m(), tmp_path, 10, folder)
    with pytest.raises(weights.WeightsError, match="cannot load the tokenizer of these weights.*corpus.prepare makes"):
        text.tokenizer_of(saved)
    with pytest.raises(weights.WeightsError, match="tokenizer.json describes no tokenizer"):
        checkpoint.vocabulary(saved)
