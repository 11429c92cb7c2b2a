"""Checkpoints of ours as Hugging Face folders: transformers loads them without our code and computes the same."""

import json

import held_out
import pytest

from helpers import launch, recipes, weights
from helpers.machine import CPU
from helpers.recipes import Layout
from helpers.weights import exporting, families
from helpers.weights.checkpoint import Checkpoint

LLAMA = recipes.llama3_8b().scaled_to("cpu")
SMALL = {
    "num_layers": 2, "hidden_size": 64, "sequence_length": 64, "vocab_size": 512, "tokenizer": "bpe-512",
    "train_iters": 8, "lr_warmup_iters": 2, "eval_interval": 8, "eval_iters": 1, "save_interval": 4,
    "ffn_hidden_size": 96,
}  # fmt: skip


def logits_of(folder, ids):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0]


@pytest.mark.train
def test_a_gpt_becomes_gpt2(tiny_run, small_corpus, tmp_path):
    export = weights.to_hugging_face(tiny_run, tmp_path / "gpt")
    assert export.architecture == "GPT2LMHeadModel" and export.dtype == "fp32"
    assert 0 < export.largest_difference <= 2e-4 / 30 * max(export.scale, 1)
    assert sorted(path.name for path in (tmp_path / "gpt").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gpt")
    ids = tokenizer("The state of the union").input_ids
    assert tokenizer.decode(ids) == "The state of the union"
    assert logits_of(tmp_path / "gpt", ids).shape == (len(ids), 512)
    with pytest.raises(weights.WeightsError, match="is there already: name another folder"):
        weights.to_hugging_face(tiny_run, tmp_path / "gpt")

    found = weights.evaluate(tiny_run, small_corpus, part="test", machine=CPU)
    held = held_out.tokens(small_corpus, tiny_run.recipe.schedule.split, 64, part=2)
    assert found.loss == pytest.approx(held_out.loss_of_transformers(tmp_path / "gpt", held, 64), abs=2e-5)


@pytest.mark.train
def test_a_llama_trained_under_tensor_parallelism_in_bf16(small_corpus, tmp_path):
    """Heads wider than hidden / heads, untied, biases on queries, keys and values alone: that is a Qwen2; and the
    checkpoint of the step that is asked for, not the newest."""
    recipe = LLAMA.with_(
        **SMALL, name="tp2", kv_channels=16, qkv_bias=True, dtype="bf16", norm_epsilon=1e-6,
        layout=Layout(tensor_parallel=2, sequence_parallel=True),
    )  # fmt: skip
    run = launch.train(recipe, small_corpus, machine=CPU)
    export = weights.to_hugging_face(run, tmp_path / "out", step=4)
    assert export.architecture == "Qwen2ForCausalLM" and export.dtype == "bf16"
    assert export.largest_difference <= 0.03 * max(1, export.scale)  # bf16 has 8 bits
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["head_dim"], config["rms_norm_eps"], config["dtype"]) == (16, 1e-6, "bfloat16")
    with pytest.raises(weights.WeightsError, match="no checkpoint of that step. There are: 4, 8"):
        weights.to_hugging_face(run, tmp_path / "other", step=5)
    assert not (tmp_path / "other").exists()


@pytest.mark.train
def test_experts_trained_on_two_ranks_become_a_mixtral(small_corpus, tmp_path, monkeypatch):
    """And large weights are written as several files with an index."""
    monkeypatch.setattr(exporting, "SHARD_BYTES", 200_000)
    experts = {"num_experts": 4, "layout": Layout(processes=2, expert_parallel=2)}
    run = launch.train(LLAMA.with_(**SMALL, name="experts", **experts), small_corpus, machine=CPU)
    export = weights.to_hugging_face(run, tmp_path / "out")
    assert export.architecture == "MixtralForCausalLM"
    assert export.largest_difference <= 2e-4 / 30 * max(export.scale, 1)
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalization": "RMSNorm"}, "GPT2LMHeadModel, and it has normalization='LayerNorm'; this recipe has"),
        ({"num_experts": 4}, "num_experts=None"),
        ({"hidden_size": 60, "num_attention_heads": 7, "kv_channels": 8}, "hidden_size to be a multiple of the heads"),
    ],
)
def test_an_architecture_that_transformers_has_not(changes, words):
    with pytest.raises(weights.WeightsError, match=words):
        families.config_of(recipes.gpt3_345m().with_(**changes), 50257, None)


def test_a_config_says_what_the_recipe_does():
    config = families.config_of(recipes.llama3_8b().with_(rope_scaling_factor=8.0), 128000, 5)
    assert config["architectures"] == ["LlamaForCausalLM"] and config["vocab_size"] == 128000
    assert config["rope_parameters"]["rope_theta"] == 500000 and config["rope_parameters"]["factor"] == 8
    assert (config["eos_token_id"], config["num_key_value_heads"], config["head_dim"]) == (5, 8, 128)
    exact = recipes.gpt3_345m().with_(extra_flags=("--no-bias-gelu-fusion",))
    assert families.config_of(exact, 50257, None)["activation_function"] == "gelu"


def test_what_cannot_be_exported_is_told_before_anything_starts(tiny_recipe, tmp_path):
    with pytest.raises(weights.WeightsError, match="begins with random weights: train it first"):
        weights.to_hugging_face(tiny_recipe, tmp_path / "out")
    with pytest.raises(TypeError, match="it takes a run"):
        weights.to_hugging_face("runs/gpt", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**6}))
    with pytest.raises(weights.WeightsError, match="The export takes 5.0 GB, and 1.0 MB is free"):
        exporting._room(tmp_path / "out", 5 * 10**9)
    with pytest.raises(weights.WeightsError, match="There is no folder"):
        exporting._room(tmp_path / "nowhere" / "out", 1)


def test_the_tokens_that_end_texts_are_those_of_the_published_model(tmp_path):
    """A model of chats ends its answers with a token of its own, and the list of both must come back."""
    ids = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 601, **ids}))
    recipe = recipes.llama3_8b().scaled_to("cpu").with_(pretrained=tmp_path / "checkpoints")
    config = exporting.config_of(Checkpoint(recipe, tmp_path, 0, None), 601)
    assert {name: config[name] for name in ids} == ids
    own = exporting.config_of(Checkpoint(recipe.with_(pretrained=None), tmp_path, 0, None), 601)
    assert own["eos_token_id"] is None and "pad_token_id" not in own
