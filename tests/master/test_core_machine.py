"""The master's core against a farm of imaginary slaves to which everything happens, at random.

The slaves here are what real ones promise to be: they hold what they were told to run until its exit is
noted, kill by their own leases, and lose words when a link drops. `CoreFarm` checks all invariants after
each step, and that a restart changes nothing; this adds that no two slaves ever run the same picture (P4),
that nothing is done twice, and that all ends once everybody is well again (P2).
"""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drqueue.master.core.events import SlaveUnlinked, Stopping
from drqueue.master.core.records import AttemptRecord
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Grant, Held, Message, Orders
from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, Refusal
from drqueue.proto.model import Depend, Exit, JobChange, Needs, RunOrder
from tests.builders import WALL, CoreFarm, a_job, a_layer, badly, well

NAMES = ("a", "b", "c")
LEASE_S = 300.0
RANGES = ("1-4", "3-9", "1-9x2", "4-1", "2,7", "1-12", "1-20")
#: So short that further frames are sent ahead.
BRIEF = well(ended_at=WALL + 0.1)
ranges = st.sampled_from(RANGES)
anyone = st.sampled_from(NAMES)
some = st.integers(0, 50)


@dataclass
class Node:
    """A slave as it really is, which the master only hears of."""

    name: str
    cores: int
    link: int | None = None
    running: dict[AttemptKey, RunOrder] = field(default_factory=dict)
    ended: dict[AttemptKey, Exit] = field(default_factory=dict)
    heard_at: float = 0.0
    grant_s: float = 0.0

    def held(self) -> list[Held]:
        """What it says that it holds."""
        return [Held(k) for k in self.running] + [Held(k, ended=True) for k in self.ended]


class Farm(RuleBasedStateMachine):
    """Everything that may happen to a farm."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = CoreFarm(check_every=4)
        self.nodes = {name: Node(name, cores=2 + i) for i, name in enumerate(NAMES)}
        self.jobs: list[int] = []
        self.over: set[AttemptKey] = set()

    @initialize(frames=ranges)
    def begin(self, frames: str) -> None:
        self.link("a")
        self.submit(frames, 1, 500, False, "lease", None)

    # -- clients --------------------------------------------------------------------------------------

    @rule(
        frames=ranges,
        chunk=st.integers(1, 3),
        priority=st.sampled_from([400, 500]),
        two=st.booleans(),
        how=st.sampled_from(["lease", "lease", "hold"]),
        parent=st.none() | some,
    )
    def submit(self, frames: str, chunk: int, priority: int, two: bool, how: str, parent: int | None) -> None:
        layers = [a_layer(frames, chunk=chunk, retries=1, name="render", needs=Needs(cores=1 + chunk % 2))]
        if two:
            layers.append(a_layer("1-2", name="comp", after=("render",), retries=0))
        depends = ()
        if parent is not None and (job := self.some_job(parent)) is not None:
            depends = (Depend(job, "ended" if two else "done"),)
        spec = a_job(
            layers=tuple(layers),
            priority=priority,
            depends=depends,
            lease_s=LEASE_S,
            on_unreachable=how,
            max_running=3 if two else 0,
        )
        self.jobs.append(self.farm.submit(spec))

    def some_job(self, number: int) -> int | None:
        known = [j for j in self.jobs if j in self.farm.core.state.jobs]
        known = [j for j in known if not self.farm.core.state.jobs[j].deleted]
        return known[number % len(known)] if known else None

    @rule(number=some, verb=st.sampled_from(["stop", "hard-stop", "continue", "continue", "rerun"]))
    def job_verb(self, number: int, verb: str) -> None:
        job = self.some_job(number)
        if job is not None:
            self.farm.verb(job, verb)

    @rule(number=some, chance=st.integers(0, 3))
    def delete(self, number: int, chance: int) -> None:
        job = self.some_job(number)
        if job is not None and not chance:
            self.farm.verb(job, "delete")

    @rule(
        number=some,
        verb=st.sampled_from(["kill", "requeue", "finish"]),
        frames=ranges,
        now=st.booleans(),
    )
    def frame_verb(self, number: int, verb: str, frames: str, now: bool) -> None:
        job = self.some_job(number)
        if job is not None:
            self.farm.ask(FrameVerb(rq=0, job=job, verb=verb, frames=frames, now=now))  # type: ignore[arg-type]

    @rule(number=some, frames=ranges, chunk=st.integers(1, 3))
    def rerange(self, number: int, frames: str, chunk: int) -> None:
        job = self.some_job(number)
        if job is not None:
            self.farm.change(job, frames=frames, chunk=chunk)

    @rule(number=some, parent=some)
    def depend(self, number: int, parent: int) -> None:
        job, other = self.some_job(number), self.some_job(parent)
        if job is not None and other is not None:
            answer = self.farm.ask(ChangeJob(rq=0, job=job, change=JobChange(depends=(Depend(other),))))
            assert isinstance(answer, Refusal) or other != job

    # -- slaves ---------------------------------------------------------------------------------------

    @rule(name=anyone)
    def link(self, name: str) -> None:
        node = self.nodes[name]
        if node.link is None:
            node.link = self.farm.link(name, held=node.held(), cores=node.cores)
            node.heard_at, node.grant_s = self.farm.now, 0.0

    @rule(name=anyone, late=st.floats(0, 30), reads=st.booleans())
    def unlink(self, name: str, late: float, reads: bool) -> None:
        node = self.nodes[name]
        if node.link is not None:
            if reads:
                self.read(name)
            node.heard_at = self.farm.now
            self.farm.step(SlaveUnlinked(node.link, max(0.0, self.farm.now - late)))
            node.link = None

    @rule(name=anyone)
    def read(self, name: str) -> None:
        """It reads what it was told, and obeys (stops are answered later)."""
        node = self.nodes[name]
        if node.link is not None:
            for message in self.farm.said.pop(node.link, []):
                self.obey(node, message)
            node.heard_at = self.farm.now

    def obey(self, node: Node, message: Message) -> None:
        if isinstance(message, Grant):
            node.grant_s = message.lease_s
        if not isinstance(message, Orders):
            return
        for key in message.noted:
            assert key not in node.running
            node.ended.pop(key, None)
        for run in message.run:
            node.running[run.key] = run
        for stop in message.stop:
            if stop.unstarted and stop.key in list(node.running)[: node.cores]:
                continue  # it runs already
            if stop.key in node.running:
                del node.running[stop.key]
                node.ended[stop.key] = badly(reason="stopped", signal=15)
            elif stop.key not in node.ended:
                node.ended[stop.key] = Exit(reason="lost", text="it does not run")

    @rule(
        name=anyone, number=some, result=st.sampled_from([BRIEF, BRIEF, well(), badly(), Exit(reason="lost")])
    )
    def end_one(self, name: str, number: int, result: Exit) -> None:
        node = self.nodes[name]
        if node.running:
            key = sorted(node.running)[number % len(node.running)]
            del node.running[key]
            node.ended[key] = result

    @rule(name=anyone, twice=st.booleans())
    def report(self, name: str, twice: bool) -> None:
        """It tells all exits that were not noted to it, perhaps not for the first time."""
        node = self.nodes[name]
        if node.link is not None:
            for _ in range(1 + twice):
                for key, result in list(node.ended.items()):
                    self.farm.exited(node.link, key, result)
            if node.running:
                self.farm.started(node.link, *node.running)

    @rule(name=anyone)
    def reboot(self, name: str) -> None:
        """Power cut: everything is gone, also what it did not report yet."""
        node = self.nodes[name]
        self.unlink(name, 0.0, False)
        node.running.clear()
        node.ended.clear()

    @rule(name=anyone)
    def declare_dead(self, name: str) -> None:
        """An operator knows that it is switched off."""
        node = self.nodes[name]
        if node.link is None and any(s.name == name for s in self.farm.core.state.slaves.values()):
            node.running.clear()
            self.farm.slave_verb(name, "declare-dead")

    # -- time and the master --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0, 400.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; a slave out of reach kills what it runs when its lease is over."""
        for node in self.nodes.values():
            if node.link is not None:
                node.heard_at = self.farm.now + seconds
            elif self.farm.now + seconds >= node.heard_at + max(LEASE_S, node.grant_s):
                for key in list(node.running):
                    if node.running[key].on_unreachable == "hold":
                        continue
                    del node.running[key]
                    node.ended[key] = Exit(reason="lease")
        self.farm.wait(seconds)

    def all_links_drop(self) -> None:
        for node in self.nodes.values():
            node.link = None

    @rule(reads=st.booleans())
    def crash(self, reads: bool) -> None:
        if reads:
            for name in NAMES:
                self.read(name)
        self.all_links_drop()
        self.farm.restart()

    @rule()
    def stop_well(self) -> None:
        self.farm.step(Stopping(3600.0))
        for name in NAMES:
            self.read(name)
        self.all_links_drop()
        self.farm.restart()

    # -- what must hold -------------------------------------------------------------------------------

    @invariant()
    def no_two_slaves_run_the_same_picture(self) -> None:
        seen: dict[tuple[int, int, int], str] = {}
        for node in self.nodes.values():
            for key, run in node.running.items():
                for number in range(run.start, run.start + run.step * run.count, run.step):
                    picture = (key.job, key.layer, number)
                    assert picture not in seen, f"{picture} runs on {seen[picture]} and as {key}"
                    seen[picture] = f"{node.name} as {key}"

    @invariant()
    def every_attempt_ends_once(self) -> None:
        for row in self.farm.saved:
            if isinstance(row, AttemptRecord) and row.outcome:
                assert row.key not in self.over
                self.over.add(row.key)
        self.farm.saved.clear()

    @invariant()
    def counts_add_up(self) -> None:
        for job in self.farm.jobs():
            counts = job.counts
            parts = (
                counts.waiting + counts.blocked + counts.assigned + counts.running
                + counts.done + counts.failed + counts.cancelled
            )  # fmt: skip
            assert parts == counts.total

    @precondition(lambda self: self.jobs)
    @rule()
    def heal(self) -> None:
        """Everybody links, obeys and renders well: then every job that may run is finished."""
        for name in NAMES:
            self.link(name)
        state = self.farm.core.state
        for job in list(state.jobs.values()):
            if job.stopped and not job.deleted:
                self.farm.ask(JobVerb(rq=0, job=job.id, verb="continue"))
        for _ in range(200):
            before = self.farm.now
            for node in self.nodes.values():
                self.read(node.name)
                for key in list(node.running):
                    del node.running[key]
                    node.ended[key] = BRIEF
                self.report(node.name, False)
                self.read(node.name)
            nodes = self.nodes.values()
            if not any(n.running or n.ended or self.farm.said.get(n.link or 0) for n in nodes):
                wake = self.farm.core.next_wakeup()
                if wake is None:
                    break
                self.wait(max(0.0, wake - before) + 0.001)
        else:
            raise AssertionError("it never comes to rest")
        assert not state.attempts
        for job in state.jobs.values():
            assert not job.deleted, "nothing of it runs: it is gone"
            if job.waits_for or any(layer.blocked for layer in job.layers):
                continue
            assert job.shown_state == "FINISHED", f"job {job.id} is {job.shown_state}"

    def teardown(self) -> None:
        if self.jobs:
            self.heal()


Farm.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # making a long story short takes minutes
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestFarm = Farm.TestCase
