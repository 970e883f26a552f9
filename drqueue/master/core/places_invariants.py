"""What must always hold of resources, limits, shares and lanes; `invariants.check` calls it after every
event."""

from collections import Counter

from drqueue.master.core.demand import lacks
from drqueue.master.core.layer import Layer
from drqueue.master.core.placement import why_never
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState


def check_places(state: FarmState) -> None:
    """AssertionError, with a sentence, on the first thing that does not hold."""
    state.rooms.refresh()
    for slave in state.slaves.values():
        _check_slave(state, slave)
    _check_limits(state)
    _check_shares(state)
    for job in state.jobs.values():
        for layer in job.layers:
            _check_layer(state, layer)
    waiting = Counter(x.lane for job in state.jobs.values() for x in job.layers if x.lane is not None)
    for lane in state.lanes.by_key.values():
        assert lane.waiting == waiting[lane] > 0, f"lane {lane.number}: it counts {lane.waiting} layers"
    lanes = state.lanes.ready.keys() | state.lanes.resting.keys()
    held = {lane for counter in state.limits.counters.values() for lane in counter.lanes}
    assert waiting.keys() == lanes | held, "a lane is waited for by nobody, or forgotten"
    assert not state.lanes.ready.keys() & state.lanes.resting.keys()


def _check_slave(state: FarmState, slave: Slave) -> None:
    here = [attempt for attempt in slave.live.values() if not attempt.ahead]
    cores = sum(a.ask.cores for a in here)
    assert cores == slave.used_cores, f"slave {slave.name}: {slave.used_cores} booked, {cores} used"
    memory = sum(a.ask.memory_mb for a in here)
    assert memory == slave.used_memory_mb, f"slave {slave.name}: memory is booked wrongly"
    disk = sum(a.ask.disk_mb for a in here)
    assert disk == slave.used_disk_mb, f"slave {slave.name}: disk is booked wrongly"
    devices = [index for a in here for index in a.gpus]
    assert len(set(devices)) == len(devices), f"slave {slave.name}: two attempts have one GPU"
    assert sum(1 << index for index in devices) == slave.used_gpus, f"slave {slave.name}: GPUs are wrong"
    amounts: Counter[str] = Counter()
    for attempt in here:
        amounts.update(dict(attempt.ask.amounts))
    assert dict(amounts) == slave.used_amounts, f"slave {slave.name}: amounts are booked wrongly"
    free = slave.cores_most - slave.foreign * 1000 - cores
    assert slave.free_cores == free, f"slave {slave.name}: {slave.free_cores} free, really {free}"
    assert slave.foreign == slave.foreign_cores(), f"slave {slave.name}: others' cores are wrong"
    assert slave.place == state.rooms.place_of(slave), f"slave {slave.name}: it stands in the wrong place"
    for demand in state.demands.by_key.values():
        able = demand.never(slave) is None
        assert able == (slave.id in demand.able), f"slave {slave.name}: able is wrong for {demand.key}"


def _check_limits(state: FarmState) -> None:
    used: Counter[str] = Counter()
    machines: dict[str, Counter[str]] = {}
    for attempt in state.attempts.values():
        assert not (attempt.ahead and attempt.held), f"attempt {attempt.key} waits, and holds limits"
        for counter, count in attempt.held:
            assert state.limits.counters.get(counter.name) is counter, f"limit {counter.name}: forgotten"
            used[counter.name] += counter.units(attempt.ask, count)
            machines.setdefault(counter.name, Counter())[attempt.machine] += 1
    for name, counter in state.limits.counters.items():
        if counter.scope == "slaves":
            assert counter.machines == machines.get(name, {}), f"limit {name}: its machines are wrong"
            assert counter.used == 1000 * len(counter.machines), f"limit {name}: its seats are wrong"
        else:
            assert counter.used == used[name], f"limit {name}: {counter.used} counted, {used[name]} used"


def _check_shares(state: FarmState) -> None:
    running: Counter[tuple[str, ...]] = Counter()
    for attempt in state.attempts.values():
        if not attempt.ahead:
            assert attempt.pool is not None
            assert attempt.parties is not None
            project, user = attempt.parties
            pool = attempt.pool.name
            for key in ((pool,), (pool, project.name), (pool, project.name, user.name)):
                running[key] += attempt.ask.cores
    for pool_ in state.sharing.pools.values():
        assert pool_.running == running.pop((pool_.name,), 0), f"pool {pool_.name}: running is wrong"
        for project in pool_.projects.values():
            name = (pool_.name, project.name)
            assert project.running == running.pop(name, 0), f"project {name}: running is wrong"
            for user in project.users.values():
                assert user.running == running.pop((*name, user.name), 0), f"user {user.name} of {name}"
    assert not +running, f"running cores belong to nobody: {running}"


def _check_layer(state: FarmState, layer: Layer) -> None:
    where = f"job {layer.job.id} layer {layer.index}"
    waits = bool(layer.waiting) and not layer.blocked and layer.job.open
    assert waits == (layer.lane is not None), f"{where}: waits {waits}, but its lane is {layer.lane}"
    assert layer.demand.key == (layer.job.spec.pool, layer.demand.key[1])
    assert layer.demand.needs == layer.spec.needs, f"{where}: its demand is another's"
    if layer.lane is not None:
        assert layer.lane.demand is layer.demand
        assert layer.queue is not None, f"{where}: it stands in no queue"


def check_settled(state: FarmState) -> None:
    """After a scheduling pass: nothing that waits could run somewhere now. A slow look at every pair."""
    for job in state.jobs.values():
        for layer in job.layers:
            if layer.waiting and not layer.blocked and job.open:
                for avoid in _avoided(layer):
                    for slave in state.slaves.values():
                        where = f"job {job.id} layer {layer.index} could run on {slave.name}"
                        assert not _could_run(state, layer, avoid, slave), where


def _avoided(layer: Layer) -> set[frozenset[int]]:
    """The sets of slaves that frames of a layer which wait for a place keep away from."""
    dying, found = layer.waiting_for_dying(), set()
    for index in layer.waiting:
        if index not in dying:
            past = layer.history.get(index)
            avoid = frozenset((*(past.avoid if past is not None else ()), *layer.job.avoids))
            others = [s for s in layer.job.state.slaves.values() if s.id not in avoid]
            elsewhere = any(why_never(slave, layer) is None for slave in others)
            found.add(avoid if elsewhere else frozenset())
    return found


def _could_run(state: FarmState, layer: Layer, avoid: frozenset[int], slave: Slave) -> bool:
    job = layer.job
    most = job.spec.max_per_slave
    if slave.id in avoid or why_never(slave, layer) is not None:
        return False
    if most and slave.count_of(job.id) >= most:
        return False
    return any(
        lacks(slave, ask) is None
        and all(
            claim.counter.has(claim.counter.units(ask, claim.each), slave.machine_name)
            for claim in state.limits.of(layer)
        )
        for ask in layer.demand.asks
    )
