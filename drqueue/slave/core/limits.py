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
    if change.pools is not UNSET:
        bad = [pool for pool in change.pools if not _POOL.fullmatch(pool)]
        if bad:
            return f"{bad[0]!r} is no name of a pool: 1 to 63 characters, no blanks and none of , = : /"
        if len(change.pools) > MAX_POOLS:
            return f"a slave is in at most {MAX_POOLS} pools, not {len(change.pools)}"
    if isinstance(change.max_load, float) and not isfinite(change.max_load):
        return "max_load must be a number"
    if isinstance(change.autoenable, str):
        try:
            parse_time_of_day(change.autoenable)
        except ValueError as error:
            return str(error)
    wanted = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    if "pools" in wanted:
        wanted["pools"] = tuple(dict.fromkeys(wanted["pools"]))
    return msgspec.structs.replace(limits, **wanted)
