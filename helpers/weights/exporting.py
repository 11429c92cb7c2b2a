"""A checkpoint of ours → a Hugging Face folder that transformers loads without our code."""

import dataclasses
import json
import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.machine import CPU, given, short_path
from helpers.recipes import Layout, Recipe, accounting
from helpers.runs import Run
from helpers.show import numbers
from helpers.show.arguments import checked
from helpers.weights import checkpoint, families, folders
from helpers.weights.error import WeightsError

SHARD_BYTES = 5 * 10**9
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
PROBE = (2, 64)  # sequences and tokens whose logits are compared
ALIKE = {"fp32": 1e-4, "bf16": 0.06, "fp16": 0.02}  # of the largest logit: rounding, and nothing else


@dataclass(frozen=True)
class Export:
    """A Hugging Face folder, and how far transformers' logits there are from Megatron's.

    `largest_difference` is that of any logit of a probe of 128 random tokens, `scale` the largest logit.
    """

    folder: Path
    architecture: str
    dtype: str
    parameters: int
    bytes: int
    largest_difference: float
    scale: float

    def __repr__(self) -> str:
        return (
            f"{short_path(self.folder)}: {self.architecture}, {self.parameters:,} parameters in {self.dtype}, "
            f"{numbers.decimal_bytes(self.bytes)}. transformers' logits differ from Megatron's by at most "
            f"{self.largest_difference:.1e}, where the largest is {self.scale:.1f}."
        )


@checked
def to_hugging_face(source: Run | Recipe, folder: Path | str, step: int | None = None) -> Export:
    """Write a checkpoint as a folder for `AutoModelForCausalLM.from_pretrained`: safetensors, config.json, tokenizer.

    The checkpoint may have been saved at any layout. The embedding's padding is cut. Before the folder gets its name,
    transformers loads it and its logits are held against Megatron's.

    Args:
        source: a run, or a recipe with pretrained weights.
        folder: where it goes; it must not exist yet, or be empty.
        step: of which checkpoint; the newest if not given.

    Raises:
        WeightsError: transformers has no such model, there is no such checkpoint, no room, or the logits differ.
        launch.TrainingFailed: Megatron could not load the checkpoint.
    """
    folder = given(folder, "weights.to_hugging_face(folder={})").resolve()
    saved = checkpoint.of(source, step)
    recipe = saved.recipe
    vocabulary = checkpoint.vocabulary(saved)
    config = config_of(saved, vocabulary)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} is there already: name another folder, or empty it.")
    size = sum(accounting.parameters(recipe.model)["parameters"]) * BYTES[recipe.precision.dtype]
    _room(folder, size)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if saved.tokenizer:
            folders.copy_tokenizer(saved.tokenizer, unfinished)
        family = config["model_type"]
        asked = {
            "folder": str(unfinished),
            "sizes": families.sizes_of(recipe.model, family, vocabulary),
            "shard_bytes": SHARD_BYTES,
            "probe": _probe(vocabulary, recipe.model.positions),
        }
        question = unfinished / "asked.json"
        question.write_text(json.dumps(asked))
        flags = saved.flags(Layout(), CPU)
        checkpoint.ranks("export_weights", Layout(), question, *flags, machine=CPU, recipe=recipe)
        question.unlink()
        export = _judged(unfinished, config, recipe)
        unfinished.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return dataclasses.replace(export, folder=folder)


def config_of(saved: checkpoint.Checkpoint, vocabulary: int) -> dict:
    """config.json of the export. The tokens that begin, end and pad texts are those of the published model, where
    training began with one: several may end a text, as in chats."""
    end = folders.end_of_text(saved.tokenizer) if saved.tokenizer else None
    published = checkpoint.published_config(saved.recipe) or {}
    named = {name: published[name] for name in SPECIAL_TOKENS if name in published}
    return families.config_of(saved.recipe, vocabulary, end) | named


def _room(folder: Path, size: int) -> None:
    if not folder.parent.is_dir():
        raise WeightsError(f"There is no folder {folder.parent} for {folder.name} to go into: make it first.")
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        needs, has = numbers.decimal_bytes(size), numbers.decimal_bytes(free)
        raise WeightsError(f"The export takes {needs}, and {has} is free under {folder.parent}: name another disk.")


def _probe(vocabulary: int, positions: int) -> list[list[int]]:
    drawn, (sequences, tokens) = random.Random(0), PROBE
    return [[drawn.randrange(vocabulary) for _ in range(min(tokens, positions))] for _ in range(sequences)]


def _judged(folder: Path, config: dict, recipe) -> Export:
    """What transformers makes of the folder.

    Raises:
        WeightsError: it misses tensors, or its logits are others than Megatron's.
    """
    told = folders.ask_transformers("compare", folder)
    (folder / "probe.safetensors").unlink()
    architecture, dtype = config["architectures"][0], recipe.precision.dtype
    if told["missing"] or told["unexpected"]:
        odd = ", ".join((told["missing"] + told["unexpected"])[:3])
        raise WeightsError(f"transformers' {architecture} and this model have other tensors: {odd}.")
    allowed = ALIKE[dtype] * max(1.0, told["scale"])
    if not told["largest_difference"] <= allowed:
        flags = " ".join(recipe.extra_flags)
        because = f" Flags of your own that it may have no counterpart for: {flags}." if flags else ""
        raise WeightsError(
            f"transformers' {architecture} computes other logits than Megatron: they differ by up to "
            f"{told['largest_difference']:.2g}, the largest being {told['scale']:.1f}.{because} Nothing was written."
        )
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Export(folder, architecture, dtype, told["parameters"], size, told["largest_difference"], told["scale"])
