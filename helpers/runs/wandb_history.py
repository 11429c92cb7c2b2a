"""What an offline W&B run holds, read from its own file: proof that the project will not be empty."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from helpers.machine import given
from helpers.show.arguments import checked

# A .wandb file is a LevelDB log (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a 7-byte header.
BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@checked
def history(run_directory: Path | str, *metrics: str):
    """The rows that Megatron gave to W&B in offline mode: a DataFrame indexed by step, one column a metric.

    Megatron logs each metric of a step by itself; they are brought together here. `metrics` picks columns.

    Raises:
        FileNotFoundError: the run wrote nothing for W&B.
    """
    import pandas as pd
    from wandb.proto.wandb_internal_pb2 import Record

    folder = given(run_directory, "wandb_history.history({})")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb")) if os.path.isdir(folder) else []
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no offline W&B run: name a wandb_project in the recipe, with wandb_mode='offline'."
        )
    steps: dict[int, dict[str, float]] = {}
    for file in files:
        for data in records(file):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = record.history.step.num or row.get("_step", 0)
            steps.setdefault(step, {}).update(
                {
                    key: value
                    for key, value in row.items()
                    if not key.startswith("_") and isinstance(value, (int, float))
                }
            )
    table = pd.DataFrame.from_dict(steps, orient="index").sort_index().rename_axis("step")
    return table[list(metrics)] if metrics else table


def records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file, each a serialized `wandb_internal_pb2.Record`; a torn last one is left out."""
    data = file.read_bytes()
    at, parts = FILE_HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        body = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if len(body) < length:
            return
        parts = body if kind in (FULL, FIRST) else parts + body
        if kind in (FULL, LAST):
            yield parts
