import shutil

import pytest
from notebook_pages import runs_whole


@pytest.fixture
def small_in_its_place(small_corpus, tmp_path, monkeypatch):
    """A cache in which a small Llama of random weights lies where SmolLM2 would: the real one is in test_smollm2.py."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "cache" / "weights" / "published" / "smollm2_135m"
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"num_hidden_layers": 2, "vocab_size": 512, "max_position_embeddings": 1024}
    LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(small_corpus.tokenizer_path / file, folder / file)
    monkeypatch.setenv("MEGATRON_TOUR_CACHE", str(tmp_path / "cache"))


@pytest.mark.train
def test_notebook_10_runs_whole(small_in_its_place, tmp_path):
    runs_whole(__file__, tmp_path / "runs", trains="smollm2_135m")
