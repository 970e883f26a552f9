"""Nothing that could run is left waiting, whatever opened the way: what wakes lanes, told one by one and by
walks."""

import random
from typing import Any

import pytest

from drqueue.master.core import rooms
from drqueue.master.core.events import ClientAsked, SlaveSaid, SlaveUnlinked
from drqueue.master.core.places_invariants import check_settled
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Held, LimitsNow, Orders, Report, Status
from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, SlaveVerb
from drqueue.proto.model import (
    Alternative,
    Exit,
    JobChange,
    JobSpec,
    LayerDepend,
    MachineInfo,
    MachineLoad,
    Needs,
    Offers,
    Share,
    SlaveLimits,
)
from drqueue.proto.sharing_messages import DropLimit, PutLimit, PutPool, PutShare
from tests.builders import ADMIN, WALL, CoreFarm, a_job, a_layer, badly, well


def two_pools(amount: int) -> tuple[CoreFarm, int, int]:
    """A user may be on one machine only, and is on one of another pool; their frame waits for the other."""
    farm = CoreFarm()
    farm.ask(PutLimit(rq=0, name="user:a", amount=amount, scope="slaves"))
    night = farm.link("night", limits=SlaveLimits(pools=("night",)), cores=1)
    day = farm.link("day", cores=1)
    farm.submit(a_job("1", owner="a", pool="night"))
    farm.submit(a_job("1", owner="a"))
    assert not farm.orders(day)
    return farm, night, day


def test_a_seat_of_a_user_that_comes_free_elsewhere_is_taken() -> None:
    farm, night, day = two_pools(1)
    farm.exited(night, farm.order_first(night))
    assert farm.order(day).key.job == 1


def test_a_seat_of_a_user_that_is_added_is_taken() -> None:
    farm, _night, day = two_pools(1)
    farm.ask(PutLimit(rq=0, name="user:a", amount=2))
    assert farm.order(day).key.job == 1


def test_of_slaves_that_come_free_at_once_the_one_with_room_is_found() -> None:
    farm = CoreFarm()
    links = [farm.link(name, cores=cores) for name, cores in (("s1", 1), ("s4", 4), ("s2", 2))]
    needs = [Needs(cores=cores) for cores in (4, 2, 1)]
    for need in needs:
        farm.submit(a_job("1", layer={"needs": need}))
    running = [(link, farm.order(link).key) for link in links]
    farm.submit(a_job("1", layer={"needs": Needs(cores=4)}))
    farm.step(*(SlaveSaid(link, Report(exited=(Exited(key, well()),))) for link, key in running))
    assert farm.order(links[1]).key.job == 3


def test_more_demands_than_are_kept_for_later_are_all_served() -> None:
    farm = CoreFarm(check_every=10_000)
    for number in range(300):
        farm.submit_unchecked(a_job("1", layer={"needs": Needs(memory_mb=number + 1)}))
    link = farm.link(cores=400, memory_mb=100_000)
    assert len(farm.orders(link)) == 300


def test_a_frame_that_is_finished_while_it_runs_lets_the_next_of_its_job_start() -> None:
    farm = CoreFarm()
    link = farm.link()
    farm.submit(a_job("1-2", max_running=1))
    assert farm.order(link).start == 1
    farm.frame(0, "finish", "1")
    assert farm.order(link).start == 2


def test_a_slave_forgotten_in_the_very_step_in_which_it_left_is_waited_for_no_more() -> None:
    farm = CoreFarm(Policy(farm="farm", sick_after=0))
    first = farm.link("s1", cores=1)
    farm.submit(a_job("1"))
    key = farm.order_first(first)
    second = farm.link("s2", cores=1)
    farm.submit(a_job("1", name="fill", blocked=("s1",), layer={"needs": Needs(memory_mb=1)}))
    farm.exited(first, key, badly())
    farm.wait(60)
    assert not farm.orders(first), "it waits for s2"
    verbs: Any = ("declare-dead", "forget")
    asked = [ClientAsked(1, SlaveVerb(rq=9, slave="s2", verb=verb), ADMIN) for verb in verbs]
    farm.step(SlaveUnlinked(second, farm.now), *asked)
    assert farm.order(first).key.job == 0


def test_a_frame_that_has_no_other_slave_left_goes_before_those_that_have() -> None:
    farm = CoreFarm(Policy(farm="farm", avoid_after=2, sick_after=0))
    first, second = farm.link("s1", cores=1), farm.link("s2", cores=1)
    farm.submit(a_job("1-6", layer={"order": "reverse"}))
    (six,), (five,) = farm.orders(first), farm.orders(second)
    farm.exited(first, six.key, badly())
    farm.exited(first, farm.order(first).key, badly())
    farm.exited(second, five.key, badly())
    assert not farm.orders(first), "the job avoids it"
    farm.change(0, order="forward")
    farm.wait(20)
    # The others may wait for s2; frame 5 has failed there.
    assert farm.order(first).start == 5


# -- walks -------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
LIMITS = ("nuke", "seat", "user:u1", "user:*", "project:p1", "project:*", "pool:Default", "pool:*")


class Walk:
    """Everything that may open or close a way for a frame, in an order that a seed gives."""

    def __init__(self, seed: int) -> None:
        self.roll = random.Random(seed)
        self.farm = CoreFarm(Policy(farm="farm", avoid_after=2, forgive_s=300, sick_after=3))
        self.links: dict[str, int] = {}
        self.running: dict[str, list[AttemptKey]] = {name: [] for name in NAMES}

    def one(self, *of: Any) -> Any:
        return self.roll.choice(of)

    def offer(self, name: str) -> dict[str, Any]:
        one = self.one
        return {
            "cores": one(1, 2, 4, 8),
            "memory_mb": one(1000, 8192),
            "machine": MachineInfo(hostname=one("h1", name), os=one("linux", "irix"), boot_id=one("1", "2")),
            "limits": self.limits(),
            "offers": Offers(disk_mb=one(0, 5000), amounts=one({}, {"ram": 2}), tags=one((), ("t",))),
        }

    def limits(self) -> SlaveLimits:
        one = self.one
        return SlaveLimits(
            enabled=one(True, True, True, False),
            pools=one(("Default",), ("Default", "x"), ("x",)),
            max_cpus=one(None, None, 2),
            max_load=one(None, 1.0),
        )

    def needs(self) -> Needs:
        one = self.one
        other = Alternative(cores=one(1, 2), memory_mb=one(0, 900), disk_mb=one(0, 0, 3000))
        return Needs(
            cores=one(1, 1, 2, 0.5, 4),
            memory_mb=one(0, 500, 4000),
            disk_mb=one(0, 0, 3000),
            amounts=one({}, {}, {"ram": 1}),
            tags=one((), (), ("t",)),
            alternatives=one((), (), (other,)),
        )

    def spec(self) -> JobSpec:
        one = self.one
        depends = one((), (), (LayerDepend(frames="previous"),))
        limits = one({}, {}, {"nuke": 1}, {"seat": 1}, {"nuke": 2, "seat": 1})
        layer = a_layer(one("1", "1-3", "1-9"), needs=self.needs(), limits=limits, depends=depends)
        return a_job(
            layers=(layer,),
            owner=one("u1", "u2"),
            project=one("", "p1"),
            pool=one("Default", "Default", "x"),
            priority=one(400, 500),
            max_running=one(0, 0, 2),
            max_per_slave=one(0, 0, 1),
            blocked=one((), (), ("a",)),
            lease_s=300,
        )

    def job(self) -> int:
        found = [job.id for job in self.farm.core.state.jobs.values() if not job.deleted]
        return self.roll.choice(found) if found else self.submit()

    # -- what may happen ------------------------------------------------------------------------------

    def submit(self) -> int:
        return self.farm.submit(self.spec())

    def link(self) -> None:
        name = self.one(*NAMES)
        if name not in self.links:
            held = [Held(key) for key in self.running[name]]
            self.links[name] = self.farm.link(name, held=held, **self.offer(name))

    def unlink(self) -> None:
        name = self.one(*NAMES)
        self.read(name)
        if name in self.links:
            self.farm.unlink(self.links.pop(name))
            self.running[name] = self.one([], self.running[name])

    def read(self, name: str) -> None:
        link = self.links.get(name)
        for message in self.farm.said.pop(link, []) if link is not None else ():
            if isinstance(message, Orders):
                self.running[name] += [run.key for run in message.run]
                stopped = [stop.key for stop in message.stop]
                self.running[name] = [key for key in self.running[name] if key not in stopped]
                for key in stopped:
                    assert link is not None
                    self.farm.exited(link, key, Exit(reason="stopped", signal=15))

    def end(self) -> None:
        name = self.one(*NAMES)
        self.read(name)
        if name in self.links and self.running[name]:
            key = self.running[name].pop(self.roll.randrange(len(self.running[name])))
            brief = well(ended_at=WALL + 0.1)
            self.farm.exited(self.links[name], key, self.one(brief, brief, well(), badly(), badly()))

    def says(self) -> None:
        name = self.one(*NAMES)
        if name in self.links:
            said = (LimitsNow(limits=self.limits()), Status(load=MachineLoad(load1=self.one(0, 1, 20))))
            self.farm.step(SlaveSaid(self.links[name], self.one(*said)))

    def change(self) -> None:
        one = self.one
        fields = one(
            {"priority": one(400, 600)}, {"pool": one("Default", "x")}, {"max_running": one(0, 1)},
            {"max_per_slave": one(0, 1)}, {"block": ("a",)}, {"unblock": ("a",)}, {"needs": self.needs()},
            {"project": one("", "p1")}, {"limits": one({}, {"nuke": 1})}, {"layer_depends": ()},
            {"frames": one("1-4", "3-9"), "chunk": one(1, 2)}, {"next": "2"},
        )  # fmt: skip
        self.farm.ask(ChangeJob(rq=0, job=self.job(), change=JobChange(**fields)))

    def verb(self) -> None:
        job = self.job()
        verbs = ("stop", "hard-stop", "continue", "continue", "continue", "rerun", "delete")
        of_frames = ("kill", "requeue", "finish", "next")
        self.farm.ask(
            self.one(
                JobVerb(rq=0, job=job, verb=self.one(*verbs)),
                FrameVerb(rq=0, job=job, verb=self.one(*of_frames), frames="1-4", now=self.one(True, False)),
                SlaveVerb(rq=0, slave=self.one(*NAMES), verb=self.one("heal", "forget")),
            )
        )

    def share(self) -> None:
        one = self.one
        name, scope = one(*LIMITS), one("attempts", "cores", "slaves")
        burst = Share(of="project", name="p1", pool="x", burst=one(None, 1, 3), minimum=one(0, 1))
        self.farm.ask(
            one(
                PutLimit(
                    rq=0, name=name, amount=one(0, 1, 2, 5), scope="slaves" if name == "seat" else scope
                ),
                PutLimit(
                    rq=0, name=name, amount=one(0, 1, 2, 5), scope="slaves" if name == "seat" else scope
                ),
                DropLimit(rq=0, name=name),
                PutShare(rq=0, share=burst),
                PutPool(rq=0, name=one("Default", "x"), policy=one("fair", "fifo")),
            )
        )

    def time(self) -> None:
        if self.one(True, True, True, False):
            self.farm.wait(self.one(1, 10, 400))
            self.farm.read_clock()
        else:
            for name in NAMES:
                self.read(name)
            self.links.clear()
            self.farm.restart()

    def go(self, steps: int) -> None:
        some = [self.submit, self.change, self.share, self.link, self.end, self.end, self.end, self.says]
        some += [*some, self.verb, self.unlink, self.time]
        for _ in range(steps):
            self.roll.choice(some)()
            if not self.farm.core.state.want_schedule:
                check_settled(self.farm.core.state)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_nothing_waits_that_could_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else a farm that small never looks anything up.
    monkeypatch.setattr(rooms, "_FEW", 0 if seed % 2 else 8)
    Walk(seed).go(150)
