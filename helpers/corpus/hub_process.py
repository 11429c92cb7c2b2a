"""Fetch a dataset from the Hugging Face hub into a .jsonl file. Run as a program by `sources`, never imported.

It is a process of its own because the hub's client may retry for minutes and can be given up only by ending it.
Each line on stdout is a JSON object: {"answered": true}, {"rows": 1000, "of": 10000}, {"done": true}, {"error": "..."}.
"""

import json
import os
import sys


def say(**fact) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def fetch(dataset: str, text_key: str, path: str) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if not constants.HF_HUB_OFFLINE:
        try:
            HfApi().dataset_info(dataset)
        except RepositoryNotFoundError:
            say(answered=True)
            raise ValueError("there is no such dataset, or it is private and needs `hf auth login`.") from None
    say(answered=True)

    from datasets import load_dataset

    rows = load_dataset(dataset, split="train")
    if text_key not in rows.column_names:
        raise ValueError(f"no column {text_key!r}, only {', '.join(rows.column_names)}. Name the column: text_key=...")
    with open(path, "w", encoding="utf-8") as out:
        for n, text in enumerate((row[text_key] for row in rows.select_columns([text_key])), start=1):
            if text is not None:
                out.write(json.dumps({text_key: text}, ensure_ascii=False) + "\n")
            if n % 1000 == 0:
                say(rows=n, of=len(rows))
        out.flush()
        os.fsync(out.fileno())
    say(done=True)


if __name__ == "__main__":
    try:
        fetch(*sys.argv[1:])
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        say(error=f"{type(error).__name__}: {words[0]}")
        sys.exit(1)
