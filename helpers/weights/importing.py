"""A Hugging Face model → a recipe and the Megatron checkpoint that it begins with, made once and kept."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from helpers.corpus import sources
from helpers.corpus import tokenizer as tokenizers
from helpers.machine import CPU, cache_root, given, short_path
from helpers.processes import checkpoints, trust
from helpers.recipes import Layout, Recipe, accounting
from helpers.recipes.changes import stock_asked
from helpers.show import numbers
from helpers.show.arguments import checked
from helpers.weights import checkpoint, families, folders, hub, smollm2
from helpers.weights.error import WeightsError

FORMAT = 1
OF_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@checked
def from_hugging_face(name: Path | str) -> Recipe:
    """A published model as a recipe: its sizes, its tokenizer, and its weights to begin with (`recipe.pretrained`).

    The recipe trains (`launch.train(recipe, corpus.prepare(tokenizer=recipe.tokenizer))`), generates and is evaluated
    at any layout. The weights are converted once, on the CPU, and kept in the cache; the second call finds them.

    Args:
        name: the path of a Hugging Face folder, `owner/name` on the hub, or "smollm2": SmolLM2-135M-Instruct from the
            extra `huggingface`, which needs no network.

    Raises:
        WeightsError: there is no such model, or none that Megatron's GPT can be; the message says what stands in the
            way.
        launch.TrainingFailed: Megatron could not write the checkpoint.
    """
    folder, called = _folder(name)
    files = folders.weight_files(folder)
    raw = _json(folder / "config.json")
    stamps = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    key = json.dumps([FORMAT, raw, stamps, tokenizers.content(folder)], sort_keys=True)
    kept = cache_root() / "weights" / f"{called}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def valid() -> bool:
        return (kept / "recipe.json").is_file() and bool(checkpoints.saved(kept / "checkpoints"))

    sources.build_once(kept, valid, lambda unfinished: _convert(folder, files, called, unfinished, kept))
    if not trust.is_trusted(kept):
        trust.written_here(kept)
    described = json.loads((kept / "recipe.json").read_text())
    return Recipe.from_json(described | {"stock": stock_asked()})


@checked
def fetch(name: Path | str) -> Path:
    """The Hugging Face folder of a model: config.json, safetensors, tokenizer.

    Args:
        name: as `from_hugging_face` takes it; what lies on the hub or in the package is fetched once.

    Raises:
        WeightsError: there is no such model, or the hub is silent.
    """
    return _folder(name)[0]


def _folder(name) -> tuple[Path, str]:
    """Where the model lies, and what it is called."""
    path = given(name, "weights.from_hugging_face({})")
    if str(name) == smollm2.NAME and not os.path.isdir(path):
        return smollm2.folder(), smollm2.CALLED
    if os.path.isdir(path):
        return path.resolve(), _named(path.resolve().name)
    if os.path.exists(path):
        raise WeightsError(f"{path} is a file: give the folder that it lies in, with config.json beside it.")
    if OF_THE_HUB.fullmatch(str(name)):
        return hub.fetch(str(name)), _named(str(name).split("/")[1])
    raise WeightsError(f"There is no folder {path}, the hub's names are owner/name, and 'smollm2' needs neither.")


def _named(word: str) -> str:
    return re.sub(r"[^\w.+-]", "_", word)[:80].lstrip(".+-") or "model"


def _json(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None  # told by folders.published


def _convert(folder: Path, files: list[Path], called: str, unfinished: Path, kept: Path) -> None:
    """Fill `unfinished`, which will be called `kept`."""
    published = folders.published(folder)
    recipe = families.recipe_of(published, called, str(kept / "tokenizer"))
    _same_vocabulary(folder, published.vocabulary)
    size = sum(accounting.parameters(recipe.model)["parameters"]) * BYTES[recipe.precision.dtype]
    free = shutil.disk_usage(unfinished).free
    if size > free:
        needs, has = numbers.decimal_bytes(size), numbers.decimal_bytes(free)
        raise WeightsError(
            f"The converted weights take {needs}, and {has} is free under {kept.parent}. Name another folder with the "
            "environment variable MEGATRON_TOUR_CACHE."
        )
    print(f"Converting {called} for Megatron, once: {numbers.decimal_bytes(size)}, {short_path(kept)}.")
    folders.copy_tokenizer(folder, unfinished / "tokenizer")
    shutil.copyfile(folder / "config.json", unfinished / "config.json")
    question = unfinished / "asked.json"
    question.write_text(json.dumps({"files": list(map(str, files)), "sizes": published.sizes}))
    flags = checkpoint.model_flags(recipe, Layout(), CPU)
    flags += ["--save", str(unfinished / "checkpoints"), "--save-interval", "1", "--no-save-optim", "--no-save-rng"]
    try:
        checkpoint.ranks("import_weights", Layout(), question, *flags, machine=CPU, recipe=recipe)
    except WeightsError as refusal:
        raise WeightsError(f"{folder}: {refusal}") from None
    question.unlink()
    recipe = dataclasses.replace(recipe, pretrained=str(kept / "checkpoints"))
    (unfinished / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1))


def _same_vocabulary(folder: Path, vocabulary: int) -> None:
    known = folders.tokenizer_size(folder)
    if known is None:
        raise WeightsError(f"{folder} has no tokenizer.json: put the model's tokenizer beside its weights.")
    if known > vocabulary:
        raise WeightsError(
            f"The tokenizer in {folder} knows {known:,} tokens, and the model has {vocabulary:,}: they do not belong "
            "together. Put the model's own there."
        )
