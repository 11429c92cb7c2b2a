"""Write a Megatron checkpoint, which any layout loads, of the weights in a Hugging Face folder. One rank does it.

    torchrun --nproc-per-node 1 helpers/ranks/import_weights.py asked.json <flags of the model, --save …>

`asked.json`: files (their paths, safetensors or pickled) and sizes (of `hugging_face.Sizes`). Pickled weights are read
with `weights_only`: nothing in them is run. transformers is not imported here: with a CPU in the place of a GPU it
leaves its rotation frequencies unset, in silence.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before Megatron is imported

from megatron.training import get_args
from megatron.training.checkpointing import save_checkpoint
from safetensors import safe_open

from helpers.ranks import checkpoint_model, hugging_face


class Weights(Mapping):
    """The tensors of several files by name; those of safetensors are read when they are asked for.

    GPT-2's published files leave "transformer." out of their names.
    """

    def __init__(self, files: list[str]):
        self._found = {}
        self.read: set[str] = set()
        for file in files:
            try:
                self._add(file)
            except Exception as error:
                raise SystemExit(f"REFUSED: {file} cannot be read: {error}") from None

    def _add(self, file: str) -> None:
        if file.endswith(".safetensors"):
            opened = safe_open(file, "pt")
            self._found |= {self._full(name): (opened, name) for name in opened.keys()}  # noqa: SIM118
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            self._found |= {self._full(name): (loaded, name) for name in loaded}

    @staticmethod
    def _full(name: str) -> str:
        return f"transformer.{name}" if name.split(".")[0] in ("wte", "wpe", "h", "ln_f") else name

    def __getitem__(self, name: str) -> torch.Tensor:
        source, own = self._found[name]
        self.read.add(name)
        return source[own] if isinstance(source, dict) else source.get_tensor(own)

    def __iter__(self):
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@torch.no_grad()
def fill(model: torch.nn.Module, weights: Weights, sizes: hugging_face.Sizes) -> None:
    """Put every tensor into its place.

    Raises:
        SystemExit: one is missing or of another shape than config.json says, or the files hold more.
    """
    for name, parameter in checkpoint_model.parameters(model).items():
        try:
            tensor = hugging_face.to_megatron(name, weights, sizes, get_args().padded_vocab_size)
        except KeyError as missing:
            why = f"the files hold no tensor {missing.args[0]}. {hugging_face.OF_TWO_MODELS}"
            raise SystemExit(f"REFUSED: {why}") from None
        if tensor.shape != parameter.shape:
            found, wanted = tuple(tensor.shape), tuple(parameter.shape)
            why = f"by config.json {name} is {wanted}, and the files have {found}. {hugging_face.OF_TWO_MODELS}"
            raise SystemExit(f"REFUSED: {why}")
        parameter.copy_(tensor)
    if why := hugging_face.why_unread(weights, weights.read):
        raise SystemExit(f"REFUSED: {why}")


def convert(asked: dict) -> None:
    """What was asked, with the model that the flags in sys.argv describe."""
    model = checkpoint_model.build()
    fill(model, Weights(asked["files"]), hugging_face.Sizes(**asked["sizes"]))
    with contextlib.redirect_stdout(sys.stderr):
        save_checkpoint(0, [model], None, None, 0)


@record
def main() -> None:
    convert(json.loads(Path(sys.argv.pop(1)).read_text()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
