"""One Megatron flag with its reason, and the groups of a recipe's flags."""

from typing import NamedTuple

from helpers.show.names import nearest
from helpers.show.numbers import as_typed

GROUPS = (
    "model", "parallelism", "precision", "batch and schedule", "data", "device", "logging and checkpoints", "speed",
    "your own",
)  # fmt: skip


class Flag(NamedTuple):
    """One Megatron flag; `value` is None for a switch, a tuple for a flag that takes several words. `why` is one short
    sentence for a learner."""

    name: str
    value: str | tuple[str, ...] | None
    why: str

    @property
    def values(self) -> tuple[str, ...]:
        """The words after the name."""
        if self.value is None:
            return ()
        return (self.value,) if isinstance(self.value, str) else self.value

    @property
    def words(self) -> list[str]:
        return [self.name, *self.values]


def require_group(group) -> None:
    """Nothing for a group of a recipe's flags, and for None.

    Raises:
        ValueError: there is no such group.
    """
    if group is None or group in GROUPS:
        return
    meant = nearest(group, GROUPS) if isinstance(group, str) else None
    change = f"Did you mean {meant!r}?" if meant else f"There are: {', '.join(GROUPS)}."
    raise ValueError(f"group={as_typed(group)}: a recipe's flags have no such group. {change}")
