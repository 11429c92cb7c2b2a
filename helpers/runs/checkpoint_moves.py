"""Which change of layout loads a checkpoint: the record of every pair that was tried on CPU ranks.

`tests/benchmarks/checkpoint_moves.py` makes it.
"""

from helpers.runs import records
from helpers.show import message, tables

RECORD = records.RECORDED / "cpu" / "checkpoint_moves.json"
LOADS = "✓"
REASONS = {  # words of what Megatron stops with → what stands in the way, and why (`training/checkpointing.py`)
    "distrib_optim_sharding_type": (
        "optimizer state",
        "the file does not say how the optimizer is split; with another TP or PP that is asked for first",
    ),
    "flattened_range": (
        "optimizer state",
        "the file does not say how the optimizer is split, so an old format of flat shares is assumed",
    ),
    "parameter group": ("optimizer state", "the optimizer's parameters were saved in other groups"),
    "KeyError: 'model'": ("format", "FSDP looks for names of its own format"),
    "has no attribute 'items'": ("format", "what the others look for is None in a file of FSDP's"),
    "entries in state dict": ("optimizer state", "with experts it has another number of entries"),
}


def read() -> dict[str, dict[str, dict]]:
    """Saved by → loaded by → `difference` of the losses in nats, or what Megatron `says`; {} where nothing is kept."""
    return records.if_there(RECORD, "tests/benchmarks/checkpoint_moves.py", lambda kept: kept["moves"])


def cell(move: dict, numbers: dict[str, int]) -> str:
    """ "✓ 5e-07" or "✗ format (2)": the number is that of `reasons`."""
    if "difference" in move:
        return f"{LOADS} {move['difference']:.0e}" if move["difference"] else f"{LOADS} same bits"
    return f"✗ {obstacle(move['says'])[0]} ({numbers[move['says']]})"


def obstacle(says: str) -> tuple[str, str]:
    """What stands in the way, and why, by what Megatron says."""
    return next((found for words, found in REASONS.items() if words in says), ("not understood", "–"))


def table():
    """A row for the layout that saved, a column for the one that loads (pandas); "–" where it was not tried."""
    import pandas as pd

    moves = read()
    if not moves:
        return message.nothing_recorded("change of layout")
    columns = list(dict.fromkeys(here for found in moves.values() for here in found))
    numbers = _numbers()
    rows = {
        there: {here: cell(found[here], numbers) if here in found else "–" for here in columns}
        for there, found in moves.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("saved by ↓, loaded by →")


def reasons():
    """What Megatron said where it did not load, each sentence once, by the numbers of `table` (pandas)."""
    import pandas as pd

    numbers = _numbers()
    if not numbers:
        return message.nothing_recorded("change of layout")
    rows = {
        number: {"Megatron stops with": says, "stands in the way": ": ".join(obstacle(says))}
        for says, number in numbers.items()
    }
    return tables.whole_sentences(pd.DataFrame.from_dict(rows, orient="index").rename_axis("✗"))


def _numbers() -> dict[str, int]:
    says = dict.fromkeys(move["says"] for found in read().values() for move in found.values() if "says" in move)
    return {sentence: number for number, sentence in enumerate(says, 1)}
