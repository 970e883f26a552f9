"""Rules that both ends follow: what a change makes of a slave's limits, which exit is a success, how many
frames a dependency waits for. PURE."""

from math import ceil

from msgspec import UNSET, structs

from drqueue.proto.model import ANY, Exit, ExitCodes, LimitsChange, SlaveLimits

_SINGLE_POOLS = ("join", "leave")


def changed(limits: SlaveLimits, change: LimitsChange) -> SlaveLimits:
    """The limits after a change: all of `pools` first, then the single ones joined, then those left."""
    given = {
        name: value
        for name, value in structs.asdict(change).items()
        if value is not UNSET and name not in _SINGLE_POOLS
    }
    pools = dict.fromkeys((*given.get("pools", limits.pools), *change.join))
    given["pools"] = tuple([pool for pool in pools if pool not in change.leave])
    return structs.replace(limits, **given)


def merged(first: LimitsChange | None, then: LimitsChange) -> LimitsChange:
    """One change that does what both do, one after the other."""
    if first is None:
        return then
    given = {name: value for name, value in structs.asdict(then).items() if value is not UNSET}
    if "pools" not in given:
        given["join"] = tuple(
            dict.fromkeys([*(pool for pool in first.join if pool not in then.leave), *then.join])
        )
        given["leave"] = tuple(
            dict.fromkeys([*(pool for pool in first.leave if pool not in then.join), *then.leave])
        )
    return structs.replace(first, **given)


def needed(limits: SlaveLimits, change: LimitsChange) -> LimitsChange:
    """The change without leaving pools that the slave is not in, which it would refuse."""
    pools = limits.pools if change.pools is UNSET else change.pools
    return structs.replace(change, leave=tuple([pool for pool in change.leave if pool in pools]))


def succeeded(exit_: Exit, codes: ExitCodes) -> bool:
    """Whether a command ended by itself, with a code that means success."""
    if exit_.reason or exit_.signal is not None or exit_.code is None:
        return False
    return codes == ANY or exit_.code in codes


def frames_wanted(total: int, frames: str, percent: float) -> int:
    """How many of a layer's or a job's `total` frames whoever depends on `frames` of them waits for."""
    if frames == "any":
        return min(1, total)
    if frames != "percent":
        return total
    from fractions import Fraction  # slaves know these rules too, and need it never

    # The percentage as it is written: 1.1 in binary would ask for 12 of 1000 frames.
    return ceil(total * Fraction(str(percent)) / 100)
