"""The order of samples that Megatron keeps with a run (`--data-cache-path`), mended before each start.

    python -m helpers.ranks.index_cache runs/gpt3_345m/20260301-101500/index_cache

Every `command.sh` runs this before torchrun. It only needs Python's own library, so it takes a twentieth of a second.
"""

import ast
import math
import sys
from pathlib import Path

CACHED = ("document_index.npy", "sample_index.npy", "shuffle_index.npy")
CACHED_OF_A_BLEND = ("dataset_index.npy", "dataset_sample_index.npy")


def mend(directory: str | Path) -> list[str]:
    """Remove from a `--data-cache-path` what a killed start left half-written, so that Megatron builds it again.

    Megatron takes a cached index for whole when its files exist (`_build_document_sample_shuffle_indices` in
    gpt_dataset.py, `_build_indices` in blended_dataset.py): a truncated one fails each later run. Call it before a
    launch, while no run uses the directory. Each host of a run does.

    Returns:
        The names of the removed files; empty when all was whole or the directory is not there.
    """
    removed = []
    for name in {path.name.rsplit("-", 1)[0] for path in Path(directory).glob("*-*-*-*")}:
        cached = CACHED_OF_A_BLEND if "-BlendedDataset-" in name else CACHED
        files = [Path(directory) / f"{name}-{ending}" for ending in ("description.txt", *cached)]
        if not all(_whole(file) for file in files):
            for file in files:
                if file.exists():
                    file.unlink(missing_ok=True)  # another host may mend the same
                    removed.append(file.name)
    return sorted(removed)


def _whole(file: Path) -> bool:
    """Whether the file is there and, if it is one of numpy's, as long as its own header says.

    An .npy file is six fixed bytes, two of the version, the header's length, the header, and the numbers.
    """
    if file.suffix != ".npy":
        return file.is_file()
    try:
        with open(file, "rb") as opened:
            version = opened.read(8)[6:7]
            length = int.from_bytes(opened.read(2 if version == b"\1" else 4), "little")
            header = ast.literal_eval(opened.read(length).decode())
            numbers = math.prod(header["shape"]) * int(header["descr"][2:])  # "<i4": four bytes each
            return file.stat().st_size == opened.tell() + numbers
    except (OSError, ValueError, SyntaxError):
        return False


if __name__ == "__main__":
    for name in mend(sys.argv[1]):
        print(f"removed the half-written {name}: Megatron builds it again")
