"""Exercises on a corpus of one's own: a split, a blend. Each is tried out with the real thing and told what came."""

from helpers import corpus
from helpers.corpus import data_split
from helpers.lessons.exercises import told
from helpers.show.message import Message

UNANSWERED = "Put your answer where the … is and run the cell again."


@told
def check_split(data: corpus.Corpus | corpus.Blend, split, held_out: int = 8, training: float = 0.9) -> Message:
    """Whether a `--split` leaves `held_out` documents or more to validate and to test on, and most to train on."""
    if isinstance(data, corpus.Blend):
        return Message(
            "wrong",
            "This is a blend, and Megatron cuts each member of a blend by --split for itself: "
            f"check {' and '.join(data.names)} one by one.",
        )
    if split is None or split is ...:
        return Message("asked", UNANSWERED)
    if not isinstance(split, str):
        return Message("wrong", f'A split is three numbers in a text, such as "949,50,1", not {type(split).__name__}.')
    try:
        parts = data_split.parts(data.open_index(), split, sequence_length=1)
    except ValueError as refusal:
        return Message("wrong", str(refusal))
    counted = ", ".join(f"{part['part']} {part['documents']:,}" for part in parts)
    found = f"--split {split} of {data.documents:,} documents: {counted}."
    short = [part["part"] for part in parts[1:] if part["documents"] < held_out]
    if short:
        return Message("wrong", f"{found} Not yet: {' and '.join(short)} should get {held_out} or more.")
    if parts[0]["documents"] < training * data.documents:
        return Message("wrong", f"{found} Not yet: train should keep {training:.0%} of them.")
    return Message("right", f"{found} That will do.")


@told
def check_blend(mix, count: int = 4000, split: str = "90,5,5", tolerance: float = 0.02) -> Message:
    """Whether a run of `count` samples of 1,024 tokens reads each member as often as the others (within 2 %)."""
    if mix is None or mix is ...:
        return Message("asked", UNANSWERED)
    if not isinstance(mix, corpus.Blend):
        return Message("wrong", f"A blend is corpus.blend({{a: 0.7, b: 0.3}}), not {type(mix).__name__}.")
    order = corpus.order(mix, 1024, split=split, count=count)
    told = zip(mix.names, order.epochs, strict=True)
    found = f"In {count:,} samples: " + ", ".join(f"{name} is read {epochs:.2f} times" for name, epochs in told) + "."
    if max(order.epochs) > (1 + tolerance) * min(order.epochs):
        return Message("wrong", f"{found} Not yet: give more weight to what is read less often.")
    return Message("right", f"{found} Both are read equally often.")
