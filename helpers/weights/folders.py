"""A Hugging Face folder: its config, its weight files, its tokenizer, each looked at before anything is made of it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from helpers.weights.error import WeightsError
from helpers.weights.families import ARCHITECTURES, Published

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


def published(folder: Path) -> Published:
    """The config.json of a folder.

    Raises:
        WeightsError: there is none, it is damaged, of an unknown family, or of quantised weights.
    """
    try:
        raw = json.loads((folder / "config.json").read_text())
        family = raw["model_type"]
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no config.json, which says what its weights are of.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"{folder / 'config.json'} is damaged: it names no model_type.") from None
    if family not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise WeightsError(f"{folder} is of the family {family!r}, and those that can be taken are {known}.")
    if quantised := raw.get("quantization_config"):
        kind = str(quantised.get("quant_method", "some way")).upper() if isinstance(quantised, dict) else "some way"
        raise WeightsError(
            f"The weights in {folder} are quantised ({kind}), and training needs them as they were before: take the "
            "repository that they were made from."
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).to_dict()
    except Exception as error:
        raise WeightsError(f"transformers cannot read {folder / 'config.json'}: {error}") from error
    return Published(raw, config)


def weight_files(folder: Path) -> list[Path]:
    """Every file with weights, whole as far as its length tells.

    Raises:
        WeightsError: there is none, or one is missing or cut off.
    """
    for name in (SAFETENSORS, PICKLED):
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                files = [folder / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
            except (ValueError, KeyError, AttributeError):
                raise WeightsError(f"{index} is damaged: it lists no weight_map.") from None
        elif (folder / name).is_file():
            files = [folder / name]
        else:
            continue
        if missing := [file.name for file in files if not file.is_file()]:
            raise WeightsError(f"{folder} lacks {', '.join(missing[:3])}, which {index.name} lists: fetch it again.")
        for file in files:
            if file.suffix == ".safetensors":
                _whole(file)
            elif _begins(file) == b"PK" and not zipfile.is_zipfile(file):  # its list of contents is at its end
                raise WeightsError(f"{file} is cut off: its list of contents is missing. Fetch it again.")
        return files
    if lone := sorted(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has {lone[0].name}, and no {SAFETENSORS}.index.json, which says what lies in which file: fetch "
            "that file, too."
        )
    raise WeightsError(f"{folder} has no weights: neither {SAFETENSORS} nor {PICKLED}, in one file or several.")


def _begins(file: Path) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(2)


def _whole(file: Path) -> None:
    """A .safetensors file begins with the length of its list of contents, and that says where each tensor ends."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            header_bytes = int.from_bytes(opened.read(8), "little")
            listed = json.loads(opened.read(header_bytes)) if header_bytes < size else None
        ends = [entry["data_offsets"][1] for name, entry in listed.items() if name != "__metadata__"]
        wanted = 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{file} is damaged: its list of tensors cannot be read. Fetch it again.") from None
    if size < wanted:
        raise WeightsError(f"{file} is cut off: it has {size:,} of {wanted:,} bytes. Fetch it again.")


def tokenizer_size(folder: Path) -> int | None:
    """How many token ids the tokenizer in a folder knows; None where it has no tokenizer.json.

    Raises:
        WeightsError: that file is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file)).get_vocab_size(with_added_tokens=True) if file.is_file() else None
    except Exception as error:  # the library raises nothing narrower
        raise WeightsError(f"{file} describes no tokenizer: {error}.") from error


def end_of_text(folder: Path) -> int | None:
    """The id of the token that ends a text, as the tokenizer in a folder names it; None where it names none."""
    from tokenizers import Tokenizer

    try:
        named = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
        word = named["content"] if isinstance(named, dict) else named
        return Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(word)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def copy_tokenizer(folder: Path, to: Path) -> None:
    to.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, to / name)


def ask_transformers(*words) -> dict:
    """What `transformers_process.py` says.

    Raises:
        WeightsError: it failed; its last line is told.
    """
    program = Path(__file__).with_name("transformers_process.py")
    done = subprocess.run(
        [sys.executable, "-P", str(program), *map(str, words)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise WeightsError(f"transformers failed on {words[-1]}: {last}")
    return json.loads(done.stdout.splitlines()[-1])
