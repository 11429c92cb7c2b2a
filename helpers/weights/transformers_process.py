"""What transformers is asked, in a process of its own: run as a program by the wing's modules, never imported.

    python transformers_process.py compare FOLDER     the logits in FOLDER/probe.safetensors, against the model there
    python transformers_process.py gguf FILE FOLDER   the weights of a GGUF file as a plain Hugging Face folder

Of its own because a process that has a CPU in the place of a GPU leaves transformers' rotation frequencies unset, in
silence. The last line on stdout is a JSON object.
"""

import json
import sys
from pathlib import Path


def compare(folder: str) -> dict:
    """The largest difference of any logit, and the largest logit; `missing`: tensors that the files lack."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    probe = load_file(Path(folder) / "probe.safetensors")
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    with torch.no_grad():
        logits = model.eval()(probe["tokens"]).logits.float()
    return {
        "largest_difference": (logits - probe["logits"]).abs().max().item(),
        "scale": logits.abs().max().item(),
        "missing": sorted(map(str, told["missing_keys"])),
        "unexpected": sorted(map(str, told["unexpected_keys"])),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def gguf(file: str, folder: str) -> dict:
    """Dequantised, as a model that never was quantised: the one that was transformers will not save."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory, name = str(Path(file).parent), Path(file).name
    model = AutoModelForCausalLM.from_pretrained(directory, gguf_file=name, dtype=torch.float32)
    config = model.config.to_dict()
    for field in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(field, None)
    config["rms_norm_eps"] = float(f"{config['rms_norm_eps']:.5g}")  # GGUF keeps 1e-05 as 9.9999997e-06
    plain = type(model.config)(**config | {"architectures": [type(model).__name__], "dtype": "float32"})
    plain.save_pretrained(folder)
    tensors = model.state_dict()
    if plain.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(directory, gguf_file=name).save_pretrained(folder)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


if __name__ == "__main__":
    asked, *arguments = sys.argv[1:]
    print(json.dumps({"compare": compare, "gguf": gguf}[asked](*arguments)))
