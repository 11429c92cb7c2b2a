"""Checkpoints as Megatron leaves them, but small: real `.metadata`, shards that hold nothing of use."""

import json
import pickle
from pathlib import Path

from helpers.processes import checkpoints


def write(directory: Path, iteration: int, whole: bool = True, bytes_: int = 1000, ranks: int = 2) -> Path:
    """`iter_<iteration>` under `directory`, one shard a rank; without `whole` the last files are missing."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

    path = checkpoints.path_of(directory, iteration)
    path.mkdir(parents=True)
    stored = {}
    for rank in range(ranks):
        name = f"__{rank}_0.distcp"
        (path / name).write_bytes(b"x" * bytes_)
        half = bytes_ // 2
        stored[MetadataIndex(f"weight.{rank}")] = _StorageInfo(name, 0, half)
        stored[MetadataIndex(f"bias.{rank}")] = _StorageInfo(name, half, bytes_ - half)
    if whole:
        (path / ".metadata").write_bytes(pickle.dumps(Metadata({}, storage_data=stored)))
        (path / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))
        (directory / checkpoints.TRACKER).write_text(str(iteration))
    return path


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
