"""Fetch a model from the Hugging Face hub into its own cache. Run as a program by `hub`, never imported.

It is a process of its own because the hub's client may retry for minutes and can be given up only by ending it.
Each line on stdout is a JSON object: {"answered": true}, {"folder": "..."}, {"error": "..."}.
"""

import json
import sys

SMALL_FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model"]


def say(**fact) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def fetch(name: str) -> None:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        say(folder=snapshot_download(name, local_files_only=True))
        return
    try:
        info = HfApi().model_info(name)
        say(answered=True)
        files = [sibling.rfilename for sibling in info.siblings]
        kinds = ["*.safetensors"] if any(file.endswith(".safetensors") for file in files) else ["pytorch_model*.bin"]
        say(folder=snapshot_download(name, allow_patterns=SMALL_FILES + kinds, ignore_patterns=["*/*"]))
    except GatedRepoError:
        say(answered=True)
        raise ValueError(
            "its owner gives it to those who ask: accept its terms on the hub's page, then run `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        say(answered=True)
        raise ValueError("there is no such model, or it is private and needs `hf auth login`.") from None


if __name__ == "__main__":
    try:
        fetch(sys.argv[1])
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        say(error=words[0] if type(error) is ValueError else f"{type(error).__name__}: {words[0]}")
        sys.exit(1)
