"""Outcome: what one step of a core asks for. First keep `save`, then, and only then, do `do`."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

RecordT = TypeVar("RecordT")
EffectT = TypeVar("EffectT")


class Outcome(NamedTuple, Generic[RecordT, EffectT]):
    """Records to keep, and effects to perform once they are kept."""

    save: Sequence[RecordT]
    do: Sequence[EffectT]
