"""Which change of layout loads a checkpoint: the record of every pair that was tried on CPU ranks.

`tests/benchmarks/checkpoint_moves.py` makes it.
"""

from helpers.runs import records
from helpers.show import message

RECORD = records.RECORDED / "cpu" / "checkpoint_moves.json"
LOADS = "✓"
REASONS = {  # a word of what Megatron stops with, and what it trips over
    "flattened_range": "✗ optimizer state",
    "distrib_optim_sharding_type": "✗ optimizer state",
    "parameter group": "✗ optimizer state",
    "fsdp_dtensor": "✗ format",
    "KeyError: 'model'": "✗ format",
    "has no attribute 'items'": "✗ format",
    "entries in state dict": "✗ optimizer state",
    "starts from step 1": "✗ starts anew",
}


def read() -> dict[str, dict[str, dict]]:
    """Saved by → loaded by → `difference` of the losses in nats, or what Megatron `says`; {} where nothing is kept."""
    return records.if_there(RECORD, "tests/benchmarks/checkpoint_moves.py", lambda kept: kept["moves"])


def cell(move: dict) -> str:
    if "difference" in move:
        return f"{LOADS} {move['difference']:.0e}" if move["difference"] else f"{LOADS} same bits"
    return next((words for key, words in REASONS.items() if key in move["says"]), move["says"][:60])


def table():
    """A row for the layout that saved, a column for the one that loads (pandas); "–" where it was not tried."""
    import pandas as pd

    moves = read()
    if not moves:
        return message.nothing_recorded("change of layout")
    columns = list(dict.fromkeys(here for found in moves.values() for here in found))
    rows = {
        there: {here: cell(found[here]) if here in found else "–" for here in columns} for there, found in moves.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("saved by ↓, loaded by →")


def reasons() -> list[str]:
    """What Megatron said where it did not load, each sentence once."""
    return list(dict.fromkeys(m["says"] for found in read().values() for m in found.values() if "says" in m))
