"""Random models of every family that can be taken, small and of odd shapes, as transformers saves them."""

import json
import shutil
from pathlib import Path

SCALED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
SHARED = {"num_hidden_layers": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "llama": {  # three key and value heads, wide ones, scaled rotations, untied, an odd vocabulary
        "model_type": "llama", "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16,
        "intermediate_size": 80, "vocab_size": 601, "rope_parameters": SCALED, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, **SHARED,
    },
    "biased_llama": {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
        "intermediate_size": 96, "vocab_size": 512, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": True, **SHARED,
    },
    "qwen2": {
        "model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "vocab_size": 640, "tie_word_embeddings": True, "dtype": "bfloat16", **SHARED,
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 60, "n_head": 5, "n_layer": 3, "n_positions": 48, "vocab_size": 1001,
        "bos_token_id": 0, "eos_token_id": 0,
    },
    "mixtral": {
        "model_type": "mixtral", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 512, "num_local_experts": 4, "num_experts_per_tok": 2,
        "tie_word_embeddings": False, **SHARED,
    },
}  # fmt: skip


def build(name: str):
    """The model of `CONFIGS[name]`, every tensor of it random, norms and biases too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(CONFIGS[name])
    dtype = getattr(torch, settings.get("dtype", "float32"))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(dtype).eval()


def save(name: str, folder: Path, tokenizer: Path) -> Path:
    """The model's folder; GPT-2's weights pickled and without "transformer.", as they were published once."""
    import torch

    model = build(name)
    model.save_pretrained(folder)
    if name == "gpt2":
        (folder / "model.safetensors").unlink()
        pickled = {key.removeprefix("transformer."): value for key, value in model.state_dict().items()}
        torch.save(pickled, folder / "pytorch_model.bin")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(tokenizer) / file, folder / file)
    return folder


def set_in_config(folder: Path, **settings) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
