"""A published model trained on and handed over: what it gained on GPUs, and whether weights survived the way."""

from pathlib import Path

from helpers import weights
from helpers.lessons.exercises import told
from helpers.machine import given_folder
from helpers.runs import records
from helpers.show import message
from helpers.show.message import Message

JUDGED = "generation/smollm2_judged.json"  # beside the recorded runs of a machine


def judged():
    """SmolLM2 before and after its recorded steps on a GPU, on held-out samples of both texts (pandas); a sentence
    where nothing is recorded. `tests/benchmarks/after_training.py` records it."""
    writer = "tests/benchmarks/after_training.py smollm2"
    if (file := records.anywhere(JUDGED)) is None:
        return message.nothing_recorded(f"judgement of SmolLM2 on a GPU ({writer})")
    kept = records.of_file(file, dict, "{}", writer)
    both = [[weights.Evaluation(**one) for one in kept[when]["losses"]] for when in ("before", "after")]
    return weights.compare(*both).rename_axis(f"recorded on {kept['machine']}")


@told
def same_weights(before, after) -> Message:
    """Whether two Hugging Face folders hold the same tensors: names, types, shapes and every bit."""
    if before is ... or after is ...:
        return Message("asked", "Put the two folders where the … are and run the cell again.")
    try:
        old, new = (_tensors(Path(given_folder(folder, "same_weights({})"))) for folder in (before, after))
    except (OSError, ValueError, TypeError) as error:
        return Message("wrong", str(error))
    if odd := sorted(old.keys() ^ new.keys()):
        return Message("wrong", f"{len(odd)} tensors are in one folder alone, {odd[0]} among them.")
    for name, tensor in old.items():
        other = new[name]
        if tensor.shape != other.shape:
            return Message("wrong", f"{name} is {tuple(tensor.shape)} in one and {tuple(other.shape)} in the other.")
        if tensor.dtype != other.dtype:
            return Message("wrong", f"{name} is {tensor.dtype} in one and {other.dtype} in the other.")
        if not tensor.equal(other):
            return Message("wrong", f"{name} has other numbers in the two.")
    return Message("right", f"All {len(old)} tensors are equal, bit by bit.")


def _tensors(folder: Path) -> dict:
    from safetensors.torch import load_file

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no model.safetensors.")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
