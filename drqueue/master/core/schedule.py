"""One scheduling pass: which waiting frame goes next, and where.

Whose turn it is say `turns` and `fairness`; which of a layer's frames, its order; which slave, `rooms` (best
fit), asked for what `demand` and `placement` judge. A frame that failed on a slave goes to another one first,
for as long as there is another that could ever run it.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto

from drqueue.master.core.ahead import may_wait_ahead
from drqueue.master.core.amounts import Ask
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.demand import Demand
from drqueue.master.core.dispatch import Run, dispatch
from drqueue.master.core.lanes import Lane
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import Claim
from drqueue.master.core.placement import (
    acceptor,
    acceptor_of_seats,
    avoided,
    is_blocked,
    seats_only,
)
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState
from drqueue.master.core.turns import Turns

#: How many frames of brief layers wait at a slave beyond its places, and never more than it has places.
AHEAD_MOST = 8


class _Found(Enum):
    """What came of trying the layer that is next in a lane."""

    PLACED = auto()
    #: There is room, but not for this layer, its user, its project ...
    NOT_LAYER = auto()
    NOT_USER = auto()
    NOT_PROJECT = auto()
    #: ... or for nobody of the lane: no slave has any, or a limit is reached.
    NO_ROOM = auto()
    CLOSED = auto()


#: By whose limit is reached, the widest first.
_REACHED = (
    ("lane", _Found.CLOSED),
    ("pool", _Found.CLOSED),
    ("project", _Found.NOT_PROJECT),
    ("user", _Found.NOT_USER),
)


def schedule(
    state: FarmState, now: float, lease_s: float, run: Run, take_back: Callable[[Attempt], None]
) -> None:
    """Bind waiting frames to free places until one of the two runs out; then send brief ones ahead."""
    touched = list(state.rooms.grown.values())
    state.sharing.look(now)
    state.lanes.wake(state.rooms)
    touched += _fill(state, now, lease_s, run)
    if state.with_ahead:
        _take_back(state, take_back)
    if state.lanes.brief:
        _send_ahead(state, touched, now, lease_s, run)


def _fill(state: FarmState, now: float, lease_s: float, run: Run) -> list[Slave]:
    """The slaves that got frames."""
    lanes = state.lanes
    turns = Turns(lanes.ready, next(lanes.passes))
    touched: list[Slave] = []
    while (pick := turns.next()) is not None:
        lane = pick.lane
        found = _place(state, lane, pick.layer, now, lease_s, run, touched)
        match found:
            case _Found.PLACED:
                pass
            case _Found.NOT_LAYER:
                pick.pass_layer()
            case _Found.NOT_USER:
                pick.pass_user()
            case _Found.NOT_PROJECT:
                pick.pass_project(turns.number)
            case _Found.NO_ROOM | _Found.CLOSED:
                turns.pass_lane(lane)
                lanes.rest(lane, closed=found is _Found.CLOSED)
    for lane in list(lanes.ready):
        lanes.rest(lane)
    return touched


def _place(
    state: FarmState, lane: Lane, layer: Layer, now: float, lease_s: float, run: Run, touched: list[Slave]
) -> _Found:
    """Find a frame of the layer and a slave for it, and dispatch it."""
    rooms, demand = state.rooms, lane.demand
    asks: Sequence[Ask] = demand.asks
    claims = state.limits.of(layer)
    if claims:
        asks = [ask for ask in asks if all(_leaves(claim, ask) for claim in claims)]
        if len(asks) < len(demand.asks):
            reached = _reached(state, lane, claims)
            if not asks:
                return reached
    for nth, index in enumerate(_in_order(layer)):
        avoid = avoided(layer, index) if layer.history or layer.job.avoids else ()
        accept = acceptor(state, layer, avoid) if avoid or claims or layer.job.picky else None
        for ask in asks:
            slave = rooms.find(demand, ask, accept)
            if slave is not None:
                dispatch(state, layer, index, slave, ask, now, lease_s, run)
                touched.append(slave)
                return _Found.PLACED
        if not avoid or (not nth and not _has_room(state, layer, asks)):
            # What holds this one back holds back all of them.
            break
    for claim in claims:
        if claim.counter.scope == "slaves":
            state.lanes.wait_for(lane, claim.counter)
    if len(asks) == len(demand.asks) and not _has_room(state, layer, asks):
        return _Found.NO_ROOM
    return _Found.NOT_LAYER


def _has_room(state: FarmState, layer: Layer, asks: Sequence[Ask]) -> bool:
    """Whether some slave has room for frames of the layer's lane, be it this layer's or another's."""
    open_to_all = acceptor_of_seats(seats_only(state, layer))
    return any(state.rooms.find(layer.demand, ask, open_to_all) for ask in asks)


def _in_order(layer: Layer) -> Iterator[int]:
    """Frames that may be placed, in their order: the first of those that keep away from the same slaves."""
    waiting, history = layer.waiting, layer.history
    if not history and not layer.dying:
        first = layer.order.first(waiting)
        if first is not None:
            yield first
        return
    told: set[tuple[int, ...]] = set()
    for index in layer.order.each(waiting):
        past = history.get(index)
        avoid = past.avoid if past is not None else ()
        if avoid in told or (layer.dying and layer.is_dying(index)):
            continue
        told.add(avoid)
        yield index
        if not avoid:
            break
    # Most frames have no past: there is no need to look at them all.
    for index, past in history.items():
        new = past.avoid and past.avoid not in told and index in waiting
        if new and not (layer.dying and layer.is_dying(index)):
            told.add(past.avoid)
            yield index


def _leaves(claim: Claim, ask: Ask) -> bool:
    """Whether the limit leaves room for an attempt that takes this, somewhere."""
    counter = claim.counter
    if counter.scope == "slaves" and counter.machines and counter.amount is not None:
        return True
    return counter.has(counter.units(ask, claim.each))


def _reached(state: FarmState, lane: Lane, claims: Sequence[Claim]) -> _Found:
    """Wait for all limits that are reached, and say whom that holds back."""
    asks = lane.demand.asks
    for claim in claims:
        if not all(_leaves(claim, ask) for ask in asks):
            state.lanes.wait_for(lane, claim.counter)
    for of, found in _REACHED:
        if any(c.of == of and not any(_leaves(c, ask) for ask in asks) for c in claims):
            return found
    return _Found.NOT_LAYER


# -- frames that wait at slaves ---------------------------------------------------------------------------


def _send_ahead(state: FarmState, touched: list[Slave], now: float, lease_s: float, run: Run) -> None:
    """A few frames of brief layers wait at slaves that are full, so that none idles for a round trip.

    Only of jobs of the highest priority that waits, only frames without a history that take nothing but cores
    and memory, and not where a limit counts them: a frame that waits ahead must never be missed elsewhere for
    long.
    """
    lanes = state.lanes
    first = min(min(lane.levels) for lane in lanes.by_key.values())
    turns = Turns([lane for lane in lanes.brief if first in lane.levels], next(lanes.passes))
    for slave in touched:
        room = min(AHEAD_MOST, slave.cores_offered) - len(slave.ahead)
        if not slave.open or slave.foreign or slave.used_cores < slave.cores_most:
            continue
        while room > 0:
            pick = turns.next()
            if pick is None or pick.layer.job.spec.priority != -first:
                return
            lane, layer = pick.lane, pick.layer
            index = layer.order.first(layer.waiting)
            if not may_wait_ahead(state, layer) or index is None or index in layer.history or layer.dying:
                pick.pass_layer()
                lane.end_pass()
                turns.pass_lane(lane)
            elif slave.id not in lane.demand.able or is_blocked(slave, layer.job):
                break
            else:
                dispatch(state, layer, index, slave, lane.demand.asks[0], now, lease_s, run, ahead=True)
                room -= 1


def _take_back(state: FarmState, take_back: Callable[[Attempt], None]) -> None:
    """Where places are free and nothing waits for them, frames that wait ahead at full slaves may come."""
    room: dict[int, int] = {}
    full: set[tuple[Demand, Ask]] = set()
    for slave in list(state.with_ahead.values()):
        for attempt in reversed(slave.ahead.values()):
            asked = (attempt.layer.demand, attempt.ask)
            if asked in full:
                break
            found = state.rooms.find(*asked, _elsewhere(attempt, room))
            if found is None:
                if state.rooms.find(*asked) is None:
                    full.add(asked)
                break
            room[found.id] = room.get(found.id, 0) + attempt.ask.cores
            take_back(attempt)


def _elsewhere(attempt: Attempt, taken: dict[int, int]) -> Callable[[Slave], bool]:
    """Other slaves that have room for it beside what was taken of them already."""
    job, cores = attempt.layer.job, attempt.ask.cores

    def accept(slave: Slave) -> bool:
        left = slave.free_cores - taken.get(slave.id, 0)
        return slave is not attempt.slave and left >= cores and not is_blocked(slave, job)

    return accept
