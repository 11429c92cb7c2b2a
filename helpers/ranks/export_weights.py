"""Write the weights of a checkpoint as Hugging Face's safetensors, from one rank, whatever layout it was saved with.

    torchrun --nproc-per-node 1 helpers/ranks/export_weights.py asked.json <flags of the model, --load …>

`asked.json`: folder (to write into), sizes (of `hugging_face.Sizes`), shard_bytes, and probe: token ids [batch, tokens]
whose logits go to `probe.safetensors`, to be compared with what transformers says. Each tensor is written under the
name that transformers gives it: `model.safetensors`, or several files with an index beside them.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before Megatron is imported

from safetensors.torch import save_file

from helpers.ranks import checkpoint_model, hugging_face

PROBE = "probe.safetensors"


def write_shards(named, folder: Path, shard_bytes: int) -> None:
    """(name, tensor) pairs → one file, or several of about `shard_bytes` with `model.safetensors.index.json`."""
    shards, held, size, total = [], {}, 0, 0

    def close():
        path = folder / f".shard-{len(shards)}"
        save_file(held, path, metadata={"format": "pt"})
        shards.append((path, list(held)))

    for name, tensor in named:
        if held and size + tensor.nbytes > shard_bytes:
            close()
            held, size = {}, 0
        held[name] = tensor.contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    close()
    if len(shards) == 1:
        shards[0][0].rename(folder / "model.safetensors")
        return
    places = {}
    for number, (path, names) in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        path.rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


@torch.no_grad()
def write(asked: dict) -> None:
    """What was asked, of the checkpoint that the flags in sys.argv name."""
    folder, sizes = Path(asked["folder"]), hugging_face.Sizes(**asked["sizes"])
    model = checkpoint_model.build()
    parameters = checkpoint_model.parameters(model)
    unknown = []
    for name in parameters:
        try:
            hugging_face.to_hugging_face(name, parameters[name], sizes)
        except KeyError:
            unknown.append(name)
    if unknown:
        raise SystemExit(f"REFUSED: transformers has no place for {', '.join(unknown[:3])} in such a model")
    pairs = (
        pair
        for name, parameter in parameters.items()
        for pair in hugging_face.to_hugging_face(name, parameter.detach(), sizes).items()
    )
    write_shards(pairs, folder, asked["shard_bytes"])
    tokens = torch.tensor(asked["probe"])
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    logits = checkpoint_model.forward(model, tokens, positions)[..., : sizes.vocabulary]
    save_file({"tokens": tokens, "logits": logits.float().contiguous()}, folder / PROBE)


@record
def main() -> None:
    write(json.loads(Path(sys.argv.pop(1)).read_text()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
