"""What one attempt takes of a slave, in units that add up exactly: thousandths, whole MB, whole devices."""

from functools import lru_cache
from typing import NamedTuple

from msgspec import msgpack

from drqueue.proto.model import Needs

THOUSAND = 1000


def milli(amount: float) -> int:
    """An amount in thousandths."""
    return amount * THOUSAND if isinstance(amount, int) else round(amount * THOUSAND)


def plain(thousandths: int) -> int | float:
    """An amount as people write it."""
    whole, rest = divmod(thousandths, THOUSAND)
    return thousandths / THOUSAND if rest else whole


class Ask(NamedTuple):
    """Amounts that are taken together: `cores` and each of `amounts` in thousandths."""

    cores: int = THOUSAND
    memory_mb: int = 0
    gpus: int = 0
    gpu_memory_mb: int = 0
    disk_mb: int = 0
    amounts: tuple[tuple[str, int], ...] = ()


def asks_of(needs: Needs) -> tuple[Ask, ...]:
    """What an attempt may take: the first amounts of its needs, then their alternatives."""
    return _asks(msgpack.encode(needs))


@lru_cache(4096)
def _asks(packed: bytes) -> tuple[Ask, ...]:
    needs = msgpack.decode(packed, type=Needs)
    first = Ask(
        milli(needs.cores),
        needs.memory_mb,
        needs.gpus,
        needs.gpu_memory_mb,
        needs.disk_mb,
        _amounts(needs.amounts),
    )
    return (
        first,
        *(
            Ask(
                milli(other.cores),
                first.memory_mb if other.memory_mb is None else other.memory_mb,
                other.gpus,
                other.gpu_memory_mb,
                first.disk_mb if other.disk_mb is None else other.disk_mb,
                _amounts(other.amounts),
            )
            for other in needs.alternatives
        ),
    )


def _amounts(named: dict[str, int | float]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, milli(amount)) for name, amount in named.items() if amount))
