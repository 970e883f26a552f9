"""Amounts that add up exactly: whole thousandths inside, whole numbers or fractions for people. PURE."""

from collections import Counter
from collections.abc import Iterable

THOUSAND = 1000


def milli(amount: float) -> int:
    """An amount in thousandths; whatever is asked for at all is at least one."""
    if type(amount) is int:
        return amount * THOUSAND if amount > 0 else 0
    return max(1, round(amount * THOUSAND)) if amount > 0 else 0


def plain(thousandths: int) -> int | float:
    """An amount as people write it."""
    whole, rest = divmod(thousandths, THOUSAND)
    return thousandths / THOUSAND if rest else whole


def total(amounts: Iterable[dict[str, int | float]]) -> dict[str, int | float]:
    """The sums of named amounts."""
    sums: Counter[str] = Counter()
    for named in amounts:
        for name, amount in named.items():
            sums[name] += milli(amount)
    return {name: plain(sums[name]) for name in sorted(sums)}
