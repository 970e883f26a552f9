"""The master's core against its model, while anything happens: verbs, exits, silence, crashes, old backups.

Nodes here are what real ones promise to be, and liars in one rule. The master may be killed after what it
decided was committed and said, after it was committed alone, and before; and a backup may take its place.
"""

from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drqueue.master.core.effects import Unlink
from drqueue.master.core.events import ClientAsked, Event, SlaveLinked, SlaveSaid, SlaveUnlinked, Stopping
from drqueue.master.core.records import MetaRecord
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Held, Orders, Report, Started
from drqueue.proto.messages import FrameVerb, JobVerb, Refusal, SlaveVerb, Submit, Submitted
from drqueue.proto.model import Exit, Needs, RunOrder
from drqueue.proto.sharing_messages import PutLimit
from tests.builders import ADMIN, LOCAL_NODE, WALL, CoreFarm, a_hello, a_job, badly, well
from tests.master.model import Frame, Job, Model
from tests.master.watched import Watched

NODES = {"a": 2, "b": 3, "c": 4}
LEASE_S = 300.0
SIZE = 5
some = st.integers(0, 50)
anyone = st.sampled_from(sorted(NODES))
ends = st.sampled_from(
    [well(), well(), badly(), badly(), Exit(reason="lost"), Exit(reason="stopped", signal=15)]
)


@dataclass
class Node:
    """A slave as it really is."""

    link: int | None = None
    running: dict[AttemptKey, RunOrder] = field(default_factory=dict)
    ended: dict[AttemptKey, Exit] = field(default_factory=dict)
    heard_at: float = 0.0
    grant_s: float = 0.0


class Farm(RuleBasedStateMachine):
    """Everything that may happen to a farm."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = Watched()
        self.model = self.farm.model
        self.nodes = {name: Node() for name in NODES}
        self.links = 0
        self.tokens = 0
        self.image: tuple[MemoryStorage, Model] | None = None

    @initialize()
    def begin(self) -> None:
        self.puts_limit(2)
        self.links_to("a")
        self.submits("lease", 1, 500, True, 0, 0, 0)
        self.submits("requeue-fast", 1, 500, False, 0, 0, 2)

    # -- clients ----------------------------------------------------------------------------------------

    @rule(amount=st.integers(0, 3))
    def puts_limit(self, amount: int) -> None:
        self.farm.ask(PutLimit(rq=0, name="seat", amount=amount))

    @rule(
        how=st.sampled_from(["lease", "lease", "hold", "requeue-fast"]),
        cores=st.integers(1, 3),
        priority=st.sampled_from([500, 500, 600]),
        limited=st.booleans(),
        most=st.sampled_from([0, 0, 2]),
        again=st.sampled_from([0, 0, 1]),
        retries=st.integers(0, 2),
    )
    def submits(
        self, how: str, cores: int, priority: int, limited: bool, most: int, again: int, retries: int
    ) -> None:  # fmt: skip
        if len(self.model.jobs) > 4:
            return
        self.tokens += not again
        token = f"token-{self.tokens:06d}"
        frames = [Frame() for _ in range(SIZE)]
        model = Job(token, cores, retries, priority, LEASE_S, how, most, limited, frames)
        layer = {
            "needs": Needs(cores=cores), "retries": retries, "limits": {"seat": 1} if limited else {},
        }  # fmt: skip
        spec = a_job(
            f"1-{SIZE}", layer=layer, priority=priority, on_unreachable=how, lease_s=LEASE_S, max_running=most
        )
        # Before the step, for its frames may be dispatched in it.
        expected = self.model.submit(model)
        answer = self.farm.ask(Submit(rq=0, token=token, spec=spec))
        assert isinstance(answer, Submitted), answer
        assert (answer.job, answer.again) == expected

    def some_job(self, number: int) -> int | None:
        known = [n for n, job in self.model.jobs.items() if not job.deleted]
        return known[number % len(known)] if known else None

    @rule(
        number=some,
        verb=st.sampled_from(["stop", "hard-stop", "continue", "continue", "rerun", "delete"]),
    )
    def job_verb(self, number: int, verb: str) -> None:
        job = self.some_job(number)
        if job is not None:
            self.farm.verb(job, verb)

    @rule(
        number=some,
        verb=st.sampled_from(["kill", "kill", "requeue", "finish"]),
        first=st.integers(1, SIZE),
        last=st.integers(1, SIZE),
        now=st.booleans(),
    )
    def frame_verb(self, number: int, verb: str, first: int, last: int, now: bool) -> None:
        job = self.some_job(number)
        if job is not None and first <= last:
            self.model.frame_verb(job, verb, range(first - 1, last), now)
            self.farm.ask(FrameVerb(rq=0, job=job, verb=verb, frames=f"{first}-{last}", now=now))  # type: ignore[arg-type]

    # -- slaves -----------------------------------------------------------------------------------------

    def held(self, name: str) -> tuple[Held, ...]:
        node = self.nodes[name]
        return (*(Held(k) for k in node.running), *(Held(k, ended=True) for k in node.ended))

    @rule(name=anyone)
    def links_to(self, name: str) -> None:
        node = self.nodes[name]
        self.links += 1
        link = self.links
        hello = a_hello(name, cores=NODES[name])
        effects = self.farm.step(SlaveLinked(link, hello, self.held(name), LOCAL_NODE))
        turned_away = any(isinstance(e, Unlink) and e.link == link for e in effects)
        assert turned_away == (node.link is not None)
        if node.link is None:
            node.link, node.heard_at, node.grant_s = link, self.farm.now, 0.0

    @rule(name=anyone, late=st.sampled_from([0.0, 20.0]), reads=st.booleans())
    def unlinks(self, name: str, late: float, reads: bool) -> None:
        node = self.nodes[name]
        if node.link is not None:
            if reads:
                self.reads(name)
            self.farm.step(SlaveUnlinked(node.link, max(0.0, self.farm.now - late)))
            node.link = None

    @rule(
        name=anyone,
        seconds=st.sampled_from([0.0, 100.0, 500.0]),
        verb=st.sampled_from(["", "hard-stop", "delete", "rerun", "kill", "finish"]),
        crashes=st.sampled_from([False, False, True]),
    )
    def is_away(self, name: str, seconds: float, verb: str, crashes: bool) -> None:
        """Its link drops under its frames, with a wish on its way that it never reads; then it is back."""
        self.links_to_all()
        for other in NODES:
            self.reads(other)
        jobs = sorted({key.job for key in self.nodes[name].running} & self.model.jobs.keys())
        jobs = [number for number in jobs if not self.model.jobs[number].deleted]
        for number in jobs[: bool(verb)]:
            if verb in ("kill", "finish"):
                self.model.frame_verb(number, verb, range(SIZE), False)
                asked = FrameVerb(rq=0, job=number, verb=verb, frames=f"1-{SIZE}")  # type: ignore[arg-type]
                self.farm.ask(asked)
            else:
                self.farm.verb(number, verb)
        if crashes:
            self.crashes(False)
        else:
            self.unlinks(name, 0.0, False)
        self.waits(seconds)
        self.links_to_all()

    def links_to_all(self) -> None:
        for name, node in self.nodes.items():
            if node.link is None:
                self.links_to(name)

    @rule(name=anyone)
    def reads(self, name: str) -> None:
        """It reads what it was told, and obeys (stops are answered later)."""
        node = self.nodes[name]
        if node.link is None:
            return
        node.heard_at = self.farm.now
        for message in self.farm.said.pop(node.link, []):
            if not isinstance(message, Orders):
                node.grant_s = getattr(message, "lease_s", node.grant_s)
                continue
            for key in message.noted:
                assert key not in node.running
                node.ended.pop(key, None)
            node.running |= {run.key: run for run in message.run}
            for stop in message.stop:
                if node.running.pop(stop.key, None) is not None:
                    node.ended[stop.key] = badly(reason="stopped", signal=15)
                elif stop.key not in node.ended:
                    node.ended[stop.key] = Exit(reason="lost", text="it does not run")

    @rule(number=some, result=ends)
    def one_ends(self, number: int, result: Exit) -> None:
        run = sorted((key, name) for name, node in self.nodes.items() for key in node.running)
        if run:
            key, name = run[number % len(run)]
            del self.nodes[name].running[key]
            self.nodes[name].ended[key] = result

    @rule(number=some, result=ends, twice=st.booleans(), all_at_once=st.booleans())
    def works(self, number: int, result: Exit, twice: bool, all_at_once: bool) -> None:
        """As on most days: everybody reads, one frame ends, and that is told."""
        for name in NODES:
            self.reads(name)
        self.one_ends(number, result)
        for name in NODES:
            self.reports(name, twice, all_at_once)

    @rule(name=anyone, twice=st.booleans(), all_at_once=st.booleans())
    def reports(self, name: str, twice: bool, all_at_once: bool) -> None:
        """It tells all exits that were not noted, perhaps not for the first time."""
        node = self.nodes[name]
        if node.link is None:
            return
        items = tuple(Exited(key, result) for key, result in node.ended.items())
        started = tuple(Started(key, WALL) for key in node.running)
        for _ in range(1 + twice):
            if all_at_once:
                self.farm.step(SlaveSaid(node.link, Report(started=started, exited=items)))
            else:
                for item in items:
                    self.farm.step(SlaveSaid(node.link, Report(exited=(item,))))

    @rule(name=anyone, number=some)
    def lies(self, name: str, number: int) -> None:
        """It tells the end of what is another's, or nobody's."""
        node = self.nodes[name]
        others = [key for key, attempt in self.model.attempts.items() if attempt.slave != name]
        others.append(AttemptKey(number, 0, 0, 7))
        if node.link is not None:
            key = others[number % len(others)]
            self.farm.step(SlaveSaid(node.link, Report(exited=(Exited(key, well()),))))

    @rule()
    def says_on_a_link_that_is_gone(self) -> None:
        link = self.links + 1000
        item = Exited(next(iter(self.model.attempts), AttemptKey(0, 0, 0, 1)), well())
        effects = self.farm.step(SlaveSaid(link, Report(exited=(item,))))
        assert [e.code for e in effects if isinstance(e, Unlink)] == ["say-hello"]

    @rule(name=anyone)
    def reboots(self, name: str) -> None:
        """Power cut: everything is gone, also what it did not report yet."""
        self.unlinks(name, 0.0, False)
        self.nodes[name].running.clear()
        self.nodes[name].ended.clear()

    @rule(name=anyone)
    def declared_dead(self, name: str) -> None:
        node = self.nodes[name]
        if name not in self.model.slaves:
            return
        request = SlaveVerb(rq=0, slave=name, verb="declare-dead")
        if node.link is not None:
            assert isinstance(self.farm.ask(request), Refusal)
        else:
            node.running.clear()
            self.farm.model.began(self.farm.now)
            self.model.declares_dead(name)
            self.farm.ask(request)

    # -- time and the master ----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0, 400.0, 2000.0]))
    def waits(self, seconds: float) -> None:
        """Time passes; a slave out of reach kills what it runs when its lease is over."""
        for node in self.nodes.values():
            if node.link is not None:
                node.heard_at = self.farm.now + seconds
            elif self.farm.now + seconds >= node.heard_at + max(LEASE_S, node.grant_s):
                for key in [k for k, run in node.running.items() if run.on_unreachable != "hold"]:
                    del node.running[key]
                    node.ended[key] = Exit(reason="lease")
        self.farm.wait(seconds)

    @rule(reads=st.booleans())
    def crashes(self, reads: bool) -> None:
        """Killed after a commit, before or after what was decided was said."""
        if reads:
            for name in NODES:
                self.reads(name)
        self.no_links()
        self.farm.killed(self.farm.storage)

    def no_links(self) -> None:
        for node in self.nodes.values():
            node.link = None

    @rule(name=anyone, number=some)
    def crashes_before_it_commits(self, name: str, number: int) -> None:
        """Killed in the middle of a step: it never was."""
        node, farm = self.nodes[name], self.farm
        job = self.some_job(number)
        events: list[Event] = []
        if node.link is not None:
            items = tuple(Exited(key, result) for key, result in node.ended.items())
            events.append(SlaveSaid(node.link, Report(exited=items)))
        if job is not None:
            request = JobVerb(rq=1, job=job, verb="delete" if number % 2 else "rerun")
            events.append(ClientAsked(1, request, ADMIN))
        farm.core.step(events, farm.now)
        self.no_links()
        farm.killed(farm.storage)

    @rule(grant_s=st.sampled_from([600.0, 3600.0]), late=st.none() | anyone)
    def stops_well(self, grant_s: float, late: str | None) -> None:
        self.farm.step(Stopping(grant_s))
        if late is not None:
            self.links_to(late)
        for name in NODES:
            self.reads(name)
        self.no_links()
        self.farm.killed(self.farm.storage)

    @rule()
    def backs_up(self) -> None:
        self.image = deepcopy((self.farm.storage, self.model))

    @precondition(lambda self: self.image is not None)
    @rule(chance=st.integers(0, 2))
    def is_restored(self, chance: int) -> None:
        """An older image takes the master's place, as the daemon starts it: no name is given out again."""
        if chance or self.image is None:
            return
        (storage, model), self.image = self.image, None
        model.next_job = self.model.next_job + 100
        model.given |= {k: max(n, model.given.get(k, 0)) for k, n in self.model.given.items()}
        storage.commit([MetaRecord("next_job", str(model.next_job))])
        self.farm.model = self.model = model
        self.farm.may_idle = True
        self.tokens += 1000
        self.no_links()
        self.farm.killed(storage, from_backup=True)

    @invariant()
    def no_two_run_the_same_frame(self) -> None:
        seen: dict[tuple[int, int], str] = {}
        for name, node in self.nodes.items():
            for key, run in node.running.items():
                if run.on_unreachable != "requeue-fast":
                    other = seen.setdefault((key.job, key.frame), f"{key} on {name}")
                    assert other == f"{key} on {name}", f"{key} runs on {name}, and so does {other}"

    def teardown(self) -> None:
        """Everybody links, obeys and renders well: then every job that may run is finished."""
        if self.farm.may_idle:
            return
        self.links_to_all()
        for number in list(self.model.jobs):
            if not self.model.jobs[number].deleted:
                self.farm.verb(number, "continue")
        self.puts_limit(3)
        for _ in range(300):
            for name, node in self.nodes.items():
                self.reads(name)
                node.ended |= dict.fromkeys(node.running, well())
                node.running.clear()
                self.reports(name, False, True)
                self.reads(name)
            busy = any(n.ended or n.running or self.farm.said.get(n.link or 0) for n in self.nodes.values())
            wake = self.farm.core.next_wakeup()
            if not busy:
                if wake is None:
                    break
                self.waits(max(0.0, wake - self.farm.now) + 0.001)
        else:
            raise AssertionError("it never comes to rest")
        assert not self.model.attempts
        assert all(job.finished for job in self.model.jobs.values())


def test_a_grant_outlives_whoever_comes_after_it_was_given() -> None:
    """The last who relied on the former grant is heard of while the master ends: the new one stands."""
    farm = CoreFarm()
    links = {name: farm.link(name) for name in ("a", "b")}
    farm.submit(a_job("1-8", lease_s=LEASE_S))
    held = {name: [Held(order.key) for order in farm.orders(link)] for name, link in links.items()}
    farm.stop_well(3600.0)
    farm.link("b", held=held["b"])
    farm.step(Stopping(3600.0))
    farm.link("a", held=held["a"])
    farm.restart()
    farm.wait(3000.0)
    assert farm.core.state.attempts.keys() == {one.key for name in held for one in held[name]}


Farm.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # making a long story short takes minutes
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestFarm = Farm.TestCase
