"""Changing a slave's limits, with a sentence for what cannot be. PURE."""

from math import isfinite

from msgspec import UNSET

from drqueue.proto.model import LimitsChange, SlaveLimits
from drqueue.proto.rules import changed
from drqueue.slave.nimby import parse_time_of_day

MAX_POOLS = 64


def changed_limits(limits: SlaveLimits, change: LimitsChange) -> SlaveLimits | str:
    """The limits with this change, or what is wrong with it. 0 or less... are kept as they are given."""
    problem = _wrong_pools(limits.pools, change)
    if problem:
        return problem
    if isinstance(change.max_load, float) and not isfinite(change.max_load):
        return "max_load must be a number"
    if isinstance(change.autoenable, str):
        try:
            parse_time_of_day(change.autoenable)
        except ValueError as error:
            return str(error)
    wanted = changed(limits, change)
    if len(wanted.pools) > MAX_POOLS:
        return f"a slave is in at most {MAX_POOLS} pools, not {len(wanted.pools)}"
    return wanted


def _wrong_pools(pools: tuple[str, ...], change: LimitsChange) -> str:
    base = pools if change.pools is UNSET else change.pools
    given = (*(() if change.pools is UNSET else base), *change.join, *change.leave)
    if not given:
        return ""
    from drqueue.proto.checks import POOL_NAME  # with all that is said of jobs: seldom wanted here

    bad = [pool for pool in given if not POOL_NAME.fullmatch(pool)]
    if bad:
        return f"{bad[0]!r} is no name of a pool: 1 to 63 characters, no blanks and none of , = : /"
    both = [pool for pool in change.join if pool in change.leave]
    if both:
        return f"pool {both[0]!r} cannot be joined and left in one change"
    absent = [pool for pool in change.leave if pool not in base]
    return f"this slave is not in pool {absent[0]!r}, so it cannot leave it" if absent else ""
