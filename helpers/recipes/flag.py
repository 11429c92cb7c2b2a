"""One Megatron flag with its reason."""

from typing import NamedTuple


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
