"""One Megatron flag with its reason."""

from typing import NamedTuple


class Flag(NamedTuple):
    """One Megatron flag; `value` is None for a switch. `why` is one short sentence for a learner."""

    name: str
    value: str | None
    why: str

    @property
    def words(self) -> list[str]:
        return [self.name] if self.value is None else [self.name, self.value]
