"""One scheduling pass: which waiting frame goes next, and where.

Whose turn it is say `turns` and `fairness`; which of a layer's frames, its order; which slave, `rooms` (best
fit), asked for what `demand` and `placement` judge. A frame that failed on a slave goes to another one first,
for as long as there is another that could ever run it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto

from drqueue.master.core.ahead import may_wait_ahead
from drqueue.master.core.amounts import Ask
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.demand import Demand
from drqueue.master.core.dispatch import Run, dispatch
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import Claim, Counter
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


class _Held(Enum):
    """Who is held back by what holds back the layer whose turn it is, in its lane."""

    LAYER = auto()
    USER = auto()
    PROJECT = auto()
    #: Nobody of the lane has room anywhere, or (`LANE_CLOSED`) a limit of theirs is reached.
    LANE = auto()
    LANE_CLOSED = auto()


#: By whose limit is reached, the widest first.
_REACHED = (
    ("lane", _Held.LANE_CLOSED),
    ("pool", _Held.LANE_CLOSED),
    ("project", _Held.PROJECT),
    ("user", _Held.USER),
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
    touched: list[Slave] = []
    if not lanes.ready:
        return touched
    turns = Turns(lanes.ready, next(lanes.passes))
    for layer in turns:
        held = _place(state, layer, now, lease_s, run, touched)
        if held is None:
            continue
        if held is _Held.LAYER:
            turns.pass_layer(layer)
        elif held is _Held.USER:
            turns.pass_user(layer)
        elif held is _Held.PROJECT:
            turns.pass_project(layer)
        else:
            lane = layer.lane
            assert lane is not None
            turns.pass_lane(lane)
            lanes.rest(lane, closed=held is _Held.LANE_CLOSED)
    for lane in list(lanes.ready):
        lanes.rest(lane)
    return touched


def _place(
    state: FarmState, layer: Layer, now: float, lease_s: float, run: Run, touched: list[Slave]
) -> _Held | None:
    """Dispatch a frame of the layer; who is held back where it cannot be."""
    job, demand = layer.job, layer.demand
    asks: Sequence[Ask] = demand.asks
    seats: Sequence[Counter] = ()
    claims = state.limits.of(layer)
    if claims:
        seats = [claim.counter for claim in claims if claim.counter.scope == "slaves"]
        for claim in claims:
            asks = [ask for ask in asks if _leaves(claim, ask)]
        if len(asks) < len(demand.asks):
            reached = _reached(state, layer, claims)
            if not asks:
                return reached
    full = False
    for index in _in_order(layer):
        avoid = avoided(layer, index) if layer.history or job.avoids else ()
        accept = acceptor(job, avoid, seats) if avoid or seats or job.picky else None
        for ask in asks:
            slave = state.rooms.find(demand, ask, accept)
            if slave is not None:
                dispatch(state, layer, index, slave, ask, now, lease_s, run)
                touched.append(slave)
                return None
        full = accept is None
        if not avoid or not _has_room(state, layer, asks):
            # What holds this one back holds back all of them.
            break
    for counter in seats:
        state.lanes.wait_for(layer, counter)
    if len(asks) == len(demand.asks) and (full or not _has_room(state, layer, asks)):
        return _Held.LANE
    return _Held.LAYER


def _has_room(state: FarmState, layer: Layer, asks: Sequence[Ask]) -> bool:
    """Whether some slave has room for frames of the layer's lane, be it this layer's or another's."""
    open_to_all = acceptor_of_seats(seats_only(state, layer))
    return any(state.rooms.find(layer.demand, ask, open_to_all) for ask in asks)


def _in_order(layer: Layer) -> Iterable[int]:
    """Frames that may be placed, in their order: the first of those that keep away from the same slaves."""
    if layer.history or layer.dying:
        return _each_in_order(layer)
    first = layer.order.first(layer.waiting)
    return () if first is None else (first,)


def _each_in_order(layer: Layer) -> Iterator[int]:
    waiting, history = layer.waiting, layer.history
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


def _reached(state: FarmState, layer: Layer, claims: Sequence[Claim]) -> _Held:
    """Wait for all limits that are reached, and say whom that holds back."""
    asks = layer.demand.asks
    for claim in claims:
        if not all(_leaves(claim, ask) for ask in asks):
            state.lanes.wait_for(layer, claim.counter)
    for of, found in _REACHED:
        if any(c.of == of and not any(_leaves(c, ask) for ask in asks) for c in claims):
            return found
    return _Held.LAYER


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
    layers = iter(turns)
    for slave in touched:
        if slave.used_cores < slave.cores_most or slave.foreign or not slave.open:
            continue
        room = min(AHEAD_MOST, slave.cores_offered) - len(slave.ahead)
        fits: Layer | None = None
        while room > 0:
            layer = next(layers, None)
            if layer is None or layer.job.spec.priority != -first:
                return
            index = layer.order.first(layer.waiting)
            # Whatever is sent ahead in this pass changes nothing of the rest for a layer and a slave.
            may_wait = layer is fits or (may_wait_ahead(state, layer) and not layer.dying)
            if not may_wait or index is None or index in layer.history:
                lane = layer.lane
                assert lane is not None
                turns.pass_layer(layer)
                turns.pass_lane(lane)
                lane.end_pass()
                continue
            if layer is not fits:
                if slave.id not in layer.demand.able or is_blocked(slave, layer.job):
                    break
                fits = layer
            dispatch(state, layer, index, slave, layer.demand.asks[0], now, lease_s, run, ahead=True)
            room -= 1


def _take_back(state: FarmState, take_back: Callable[[Attempt], None]) -> None:
    """Where places are free and nothing waits for them, frames that wait ahead at full slaves may come."""
    find = state.rooms.find
    room: dict[int, int] = {}
    anywhere: dict[tuple[Demand, Ask], bool] = {}
    for slave in list(state.with_ahead.values()):
        for attempt in reversed(slave.ahead.values()):
            asked = (attempt.layer.demand, attempt.ask)
            if asked not in anywhere:
                anywhere[asked] = find(*asked) is not None
            found = find(*asked, _elsewhere(attempt, room)) if anywhere[asked] else None
            if found is None:
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
