"""Outcome: what one step of a core asks for. First keep `save`, then, and only then, do `do`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

RecordT = TypeVar("RecordT")
EffectT = TypeVar("EffectT")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[RecordT, EffectT]):
    """Records to keep, and effects to perform once they are kept."""

    save: Sequence[RecordT]
    do: Sequence[EffectT]
