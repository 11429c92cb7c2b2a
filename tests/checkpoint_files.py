"""Checkpoints as Megatron leaves them, but small: real `.metadata`, shards that hold nothing of use."""

import io
import json
import pickle
import zipfile
from pathlib import Path

from helpers.processes import checkpoints

COMMON = "common_state/shard_0_1"  # what is no tensor, as Megatron 0.19 names it


def write(
    directory: Path,
    iteration: int,
    whole: bool = True,
    bytes_: int = 1000,
    ranks: int = 2,
    torchs: bool = False,
    common: bool = True,
) -> Path:
    """`iter_<iteration>` under `directory`, one shard a rank; without `whole` the last files are missing.

    With `torchs` it is as torch writes it without Megatron (--ckpt-format torch_dcp, fsdp_dtensor), without `common` as
    an earlier Megatron did, which kept what is no tensor in a common.pt.
    """
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

    path = checkpoints.path_of(directory, iteration)
    path.mkdir(parents=True)
    stored = {}
    for rank in range(ranks):
        name = f"__{rank}_0.distcp"
        half = bytes_ // 2
        (path / name).write_bytes(_archive(half) + _archive(bytes_ - half))
        stored[MetadataIndex(f"weight.{rank}")] = _StorageInfo(name, 0, half)
        second = COMMON if common and not rank else f"bias.{rank}"
        stored[MetadataIndex(second)] = _StorageInfo(name, half, bytes_ - half)
    if whole:
        flattened = {"model.weight": ("model", "weight")} if torchs else None
        (path / ".metadata").write_bytes(pickle.dumps(Metadata({}, flattened, stored)))
        if not torchs:
            megatrons = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
            (path / "metadata.json").write_text(json.dumps(megatrons))
        (directory / checkpoints.TRACKER).write_text(str(iteration))
    return path


def _archive(bytes_: int) -> bytes:
    """A zip archive of that length, as a tensor lies in a shard: what it holds is not packed."""
    made, name = io.BytesIO(), "archive/data/0"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, b"x" * (bytes_ - 98 - 2 * len(name)))  # the frame takes the rest
    return made.getvalue()


def garble(path: Path, what: bytes, at: float = 0.5) -> None:
    """Write over a part of a file, from the given share of its length on; it stays as long as it was."""
    with open(path, "r+b") as file:
        file.seek(int(path.stat().st_size * at))
        file.write(what)


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
