"""What must always hold. Checked after every event in tests, so that a bug is met where it is made."""

from collections import Counter

from drqueue.master.core.invariants_depends import check_depends
from drqueue.master.core.layer import Layer
from drqueue.master.core.places_invariants import check_places
from drqueue.master.core.state import FarmState, Job


def check(state: FarmState) -> None:
    """AssertionError, with a sentence, on the first thing that does not hold."""
    for job in state.jobs.values():
        _check_job(state, job)
    for slave in state.slaves.values():
        slots = [attempt.slot for attempt in slave.live.values()]
        assert len(set(slots)) == len(slots), f"slave {slave.name}: two attempts have one slot"
        assert sum(1 << slot for slot in slots) == slave.slots, f"slave {slave.name}: its slots are wrong"
        ahead = {key: attempt for key, attempt in slave.live.items() if attempt.ahead}
        assert ahead == slave.ahead, f"slave {slave.name}: what was sent ahead is counted wrongly"
        assert all(a.slave is slave for a in slave.live.values()), f"slave {slave.name}: a stranger's attempt"
        assert state.identities[slave.identity] is slave
        if slave.link is None:
            assert not slave.live or slave.id in state.silent, f"slave {slave.name}: silent unnoticed"
        else:
            assert state.links[slave.link] is slave
            assert slave.id not in state.silent
    for link, slave in state.links.items():
        assert slave.link == link, f"link {link} is not slave {slave.name}'s"
    names = Counter(slave.name for slave in state.slaves.values())
    assert all(count == 1 for count in names.values()), f"slave names are not unique: {names}"
    for key, attempt in state.attempts.items():
        assert attempt.key == key
        assert attempt.slave.live.get(key) is attempt, f"attempt {key}: its slave does not know it"
        assert state.jobs.get(key.job) is attempt.layer.job, f"attempt {key}: of a job that is gone"
        assert attempt.orphan == (key in attempt.layer.dying), f"attempt {key}: dying is wrong"
        if not attempt.orphan:
            assert attempt.layer.live.get(attempt.index) is attempt, f"attempt {key}: not its frame's"
    unfinished = {job.id for job in state.jobs.values() if not job.finished and not job.deleted}
    assert unfinished == state.unfinished, "which jobs are not finished is wrong"
    held = sum(len(slave.live) for slave in state.slaves.values())
    assert held == len(state.attempts), f"{held} attempts on slaves, {len(state.attempts)} in all"
    _check_register(state)
    check_places(state)
    check_depends(state)
    for token, number in state.tokens.items():
        assert state.jobs[number].token == token


def _check_register(state: FarmState) -> None:
    register = state.register
    hashes: dict[str, str] = {}
    for account in (*register.accounts.values(), *register.pending.values()):
        for key in filter(None, (account.secret_hash, account.next_hash)):
            assert key not in hashes, f"accounts {hashes[key]} and {account.id} have the same secret"
            hashes[key] = account.id
        assert account.pending == (account.id in register.pending), f"account {account.id}: pending is wrong"
        assert (account.role == "node") == (account.kind == "node"), (
            f"account {account.id}: its role is wrong"
        )
    assert hashes == register.by_hash, "the index of secrets is wrong"
    assert not register.accounts.keys() & register.pending.keys()
    assert all(line.uses_left > 0 for line in register.lines.values()), "a line that is used up is kept"
    nodes = Counter(a.name for a in register.accounts.values() if a.kind == "node")
    assert all(count == 1 for count in nodes.values()), f"nodes' names are not unique: {nodes}"
    bound = {slave.account: slave for slave in state.slaves.values() if slave.account}
    assert len(bound) == sum(1 for slave in state.slaves.values() if slave.account), (
        "an account has two slaves"
    )
    assert bound == state.bound, "which slave is bound to which account is wrong"
    assert bound.keys() <= register.accounts.keys(), "a slave belongs to an account that is gone"
    for slave in state.slaves.values():
        assert slave.link is not None or not slave.may_keep, (
            f"slave {slave.name}: logs of a link that is gone"
        )


def _check_job(state: FarmState, job: Job) -> None:
    live = sum(len(layer.live) for layer in job.layers)
    assert live == job.live, f"job {job.id}: {job.live} live counted, {live} are"
    hungry = any(layer.waiting for layer in job.layers)
    assert hungry == job.hungry == (job.id in state.hungry), f"job {job.id}: hungry is wrong"
    dying = {key for layer in job.layers for key in layer.dying}
    orphans = {key for key, a in state.attempts.items() if a.orphan and a.layer.job is job}
    assert dying == orphans, f"job {job.id}: orphans {orphans}, and {dying} are known"
    for layer in job.layers:
        _check_layer(job, layer)


def _check_layer(job: Job, layer: Layer) -> None:
    where = f"job {job.id} layer {layer.index}"
    sets = [set(positions) for _name, positions in layer.sets()]
    sets += [set(layer.live), set(layer.delayed), set(layer.held)]
    total = sum(len(one) for one in sets)
    union = set().union(*sets)
    assert total == len(union), f"{where}: a frame is in two states"
    assert union == set(range(layer.size)), f"{where}: {layer.size - len(union)} frames are in no state"
    by_name = dict(layer.sets())
    for name, base in layer.bases():
        assert set(base) <= set(by_name[name]), f"{where}: base {name} says more than is so"
    for index, attempt in layer.live.items():
        assert attempt.index == index
        assert not attempt.orphan
        assert attempt.key.attempt <= layer.top, f"{where}: top is too low"
