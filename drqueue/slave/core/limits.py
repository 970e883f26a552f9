"""Changing a slave's limits, with a sentence for what cannot be. PURE."""

import re
from math import isfinite

import msgspec
from msgspec import UNSET

from drqueue.proto.model import LimitsChange, SlaveLimits
from drqueue.slave.nimby import parse_time_of_day

MAX_POOLS = 64
_POOL = re.compile(r"[^\s,=:/]{1,63}")


def changed_limits(limits: SlaveLimits, change: LimitsChange) -> SlaveLimits | str:
    """The limits with this change, or what is wrong with it. 0 or less... are kept as they are given."""
    pools = _changed_pools(limits.pools, change)
    if isinstance(pools, str):
        return pools
    if isinstance(change.max_load, float) and not isfinite(change.max_load):
        return "max_load must be a number"
    if isinstance(change.autoenable, str):
        try:
            parse_time_of_day(change.autoenable)
        except ValueError as error:
            return str(error)
    wanted = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    del wanted["join"], wanted["leave"]
    return msgspec.structs.replace(limits, **wanted | {"pools": pools})


def _changed_pools(pools: tuple[str, ...], change: LimitsChange) -> tuple[str, ...] | str:
    """All replaced first, then joined, then left; each once, in order. May end in none at all."""
    base = pools if change.pools is UNSET else change.pools
    given = (*(() if change.pools is UNSET else base), *change.join, *change.leave)
    bad = [pool for pool in given if not _POOL.fullmatch(pool)]
    if bad:
        return f"{bad[0]!r} is no name of a pool: 1 to 63 characters, no blanks and none of , = : /"
    both = [pool for pool in change.join if pool in change.leave]
    if both:
        return f"pool {both[0]!r} cannot be joined and left in one change"
    absent = [pool for pool in change.leave if pool not in base]
    if absent:
        return f"this slave is not in pool {absent[0]!r}, so it cannot leave it"
    wanted = tuple([pool for pool in dict.fromkeys((*base, *change.join)) if pool not in change.leave])
    if len(wanted) > MAX_POOLS:
        return f"a slave is in at most {MAX_POOLS} pools, not {len(wanted)}"
    return wanted
