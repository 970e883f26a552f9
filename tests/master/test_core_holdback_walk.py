"""A database restored from a backup (F16), and slaves that do as they like with what began since (I3)."""

import random

import pytest

from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held
from tests.builders import CoreFarm, a_job
from tests.master.test_core_holdback import LEASE, restored


class Lost:
    """A slave that runs frames which the restored master knows nothing of, and ends them as slaves do."""

    def __init__(self, farm: CoreFarm, name: str, leases: dict[AttemptKey, float], heard: float) -> None:
        self.farm, self.name, self.leases, self.heard = farm, name, leases, heard
        self.runs = set(leases)
        self.link: int | None = None
        self.stopping: dict[AttemptKey, float] = {}
        self.tell: set[AttemptKey] = set()

    def ends(self, key: AttemptKey) -> float:
        """When it has ended that by itself: its lease, a late look, and a grace."""
        return self.heard + self.leases[key] + 60

    def live(self) -> None:
        """What passed meanwhile: graces of what it was told to stop, and leases."""
        now = self.farm.now
        if self.link is not None:
            self.heard = now
        for key in list(self.runs):
            if self.stopping.get(key, now + 1) <= now or (self.link is None and self.ends(key) <= now):
                self.runs.discard(key)
                self.tell.add(key)
                if self.link is not None:
                    self.farm.exited(self.link, key)

    def dial(self, of_jobs: dict[int, float], grace: float, deaf: bool) -> None:
        """Hello, with which a grant ends; `deaf`: the link breaks before the word to stop comes."""
        held = [*(Held(key) for key in self.runs), *(Held(key, ended=True) for key in self.tell)]
        self.link = self.farm.link(self.name, held=held)
        self.heard = self.farm.now
        self.leases = {key: of_jobs[key.job] for key in self.leases}
        if deaf:
            self.drop()
            return
        for key, _why in self.farm.stops(self.link):
            self.stopping.setdefault(key, self.farm.now + grace)
        for key in self.tell:
            self.farm.exited(self.link, key)

    def drop(self) -> None:
        assert self.link is not None
        self.farm.unlink(self.link)
        self.link = None


@pytest.mark.parametrize("seed", range(30))
def test_f16_i3_whatever_slaves_of_the_lost_time_do_no_frame_runs_twice(seed: int) -> None:
    rng = random.Random(seed)
    before = CoreFarm(Policy(lease_s=60.0), check_every=10)
    of_jobs = {job: rng.choice([60.0, 600.0, LEASE]) for job in range(3)}
    for lease in of_jobs.values():
        before.submit(a_job("1-3", lease_s=lease))
    granted = rng.choice([0.0, 0.0, 7200.0])
    farm = restored(before, granted_s=granted)
    lost = []
    for name in "abc":
        keys = [order.key for order in before.orders(before.link(name, cores=3))]
        leases = {key: max(granted, of_jobs[key.job]) for key in keys}
        lost.append(Lost(farm, name, leases, farm.now - rng.uniform(0, 30)))
    free = farm.link("free", cores=64)
    ordered: set[tuple[int, int]] = set()
    for turn in range(400):
        pause, slave = rng.choice([1.0, 20.0, 200.0]), rng.choice(lost)
        if slave.runs and slave.link is None and rng.random() < 0.6:
            # Just before it ends something by itself.
            pause = max(0.5, min(map(slave.ends, slave.runs)) - farm.now - rng.uniform(0, 20))
        farm.wait(pause)
        for each in lost:
            each.live()
        if slave.link is not None and rng.random() < 0.4:
            slave.drop()
        elif slave.link is None and turn < 60 and rng.random() < 0.7:
            slave.dial(of_jobs, rng.uniform(0, 300), rng.random() < 0.5)
        for order in farm.orders(free):
            frame = order.key.job, order.key.frame
            running = {(key.job, key.frame) for each in lost for key in each.runs}
            assert frame not in running, f"{order.key} starts while it runs"
            assert frame not in ordered
            ordered.add(frame)
        if len(ordered) == 9:
            break
    assert len(ordered) == 9
    assert farm.core.state.holdback is None
