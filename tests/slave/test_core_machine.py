"""The slave's core against its model, while anything happens in any order: orders, exits, silence, crashes.

The daemon may be killed after what it decided was kept and done, after it was kept alone, and before: what
comes back then must be what the model says, and do what the model does from there on.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import inf

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Orders, Stop
from drqueue.proto.model import RunOrder, SlaveLimits
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import AllEnded, Prepare, SayHello, Start, Unlink, Verify
from drqueue.slave.core.events import (
    Event,
    Granted,
    Heard,
    LeaveAsked,
    Linked,
    OrdersCame,
    OutputsSeen,
    RegisteredAs,
    Unlinked,
    Verified,
)
from drqueue.slave.core.invariants import check
from drqueue.slave.core.processes import (
    KEEPER_DIED,
    ForgetProcess,
    LaunchFailed,
    ProcessEnded,
    ProcessStarted,
    SignalTree,
)
from drqueue.slave.core.records import FarmLeft, MasterSeen, SpoolRecord
from drqueue.slave.core.restore import restore, snapshot
from drqueue.slave.core.state import State
from tests.slave.core_bench import BOOT, Bench, key
from tests.slave.model import Model, end_of

CORES, GRACE_S = 3, 10.0
#: The master's last word is kept at least so often while frames are held.
HEARD_KEPT_S = 60.0
some = st.integers(0, 20)
#: 0, mostly.
seldom = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
together = st.sampled_from([False, False, True])
often = st.sampled_from([True, True, False])


class Slave(RuleBasedStateMachine):
    """Everything that may happen to a slave."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(CORES)
        self.model = Model(CORES, GRACE_S)
        self.model.now = self.bench.now
        #: What its keeper knows: "starting", "alive", or how it ended.
        self.processes: dict[AttemptKey, str | tuple[int | None, int | None]] = {}
        self.pending: list[tuple[Event, Callable[[], object]]] = []
        self.identity = MasterSeen("", 0)
        self.orders: list[RunOrder] = []
        self.left: set[AttemptKey] = set()
        self.links = 0

    @initialize()
    def begin(self) -> None:
        self.links_to(0, 0, "a", False)
        self.registers(False)

    # -- both at once -----------------------------------------------------------------------------------

    def happens(self, event: Event, told: Callable[[], object], together: bool) -> None:
        """Something for both; `together`: in one step with what comes next."""
        self.pending.append((event, told))
        if not together:
            self.flush()

    def flush(self, *, perform: bool = True) -> None:
        """One step of both, which must come to the same."""
        pending, self.pending = self.pending, []
        self.model.began(self.bench.now)
        for _event, told in pending:
            told()
        expected = self.model.over()
        out = self.bench.step(*[event for event, _told in pending])
        for record in out.save:
            if isinstance(record, MasterSeen):
                self.identity = record
            elif isinstance(record, FarmLeft):
                self.identity = MasterSeen("", 0)
        hellos = [[(h.key, h.ended) for h in hello.held] for hello in self.bench.done(SayHello)]
        assert (hellos[-1] if hellos else None) == expected.hello
        assert bool(self.bench.done(Unlink)) == expected.unlinked
        assert any(isinstance(record, FarmLeft) for record in out.save) == expected.left_farm
        assert bool(self.bench.done(AllEnded)) == expected.all_ended
        assert sorted(self.acts()) == sorted(expected.acts)
        assert sorted(item.key for item in self.bench.starts()) == sorted(expected.started)
        assert [(item.key, end_of(item.exit)) for item in self.bench.exits()] == expected.exited
        self.same()
        if perform:
            self.perform()

    def acts(self) -> list[tuple[str, AttemptKey]]:
        """What the core wants done with processes and outputs."""
        acts = []
        for effect in self.bench.out.do:
            match effect:
                case Prepare(order):
                    acts.append(("prepare", order.key))
                case Start(order):
                    acts.append(("start", order.key))
                case Verify(order):
                    acts.append(("verify", order.key))
                case SignalTree(of, kill):
                    acts.append(("kill" if kill else "term", of))
                case ForgetProcess(of):
                    acts.append(("forget", of))
                case _:
                    pass
        return acts

    def same(self) -> None:
        """The core holds what the model holds, and wakes in time."""
        state, model = self.bench.state, self.model
        assert {k: one.phase.value for k, one in state.held.items()} == {
            k: one.phase for k, one in model.held.items()
        }
        assert list(state.ended) == model.ended
        assert state.cores_used == model.used
        assert (state.farm, state.epoch, state.life) == (model.farm, model.epoch, model.life)
        assert (self.identity.farm, self.identity.epoch, self.identity.life) == (
            state.farm, state.epoch, state.life,
        )  # fmt: skip
        assert state.linked == model.linked
        wake = self.bench.core.next_wakeup()
        assert (inf if wake is None else wake) <= model.next_deadline(), "it would wake too late"

    def perform(self) -> None:
        for what, of in self.acts():
            if what == "start":
                self.processes.setdefault(of, "starting")
            elif what == "forget":
                self.processes.pop(of, None)

    # -- the master -------------------------------------------------------------------------------------

    @rule(farm=seldom, epoch=seldom, life=st.sampled_from(["", "a", "a", "a", "b"]), together=together)
    def links_to(self, farm: int, epoch: int, life: str, together: bool) -> None:
        self.links += 1
        name = self.model.farm or "farm-0"
        if farm:
            name = "farm-1" if name == "farm-0" else "farm-0"
        number = max(1, self.model.epoch + epoch)
        event = Linked(self.links, name, number, life)
        self.happens(event, lambda: self.model.links(name, number, life), together)

    @rule(together=together)
    def registers(self, together: bool) -> None:
        if not self.model.registered:
            self.happens(RegisteredAs(3, "s"), self.model.registers, together)

    @rule(former=st.booleans())
    def unlinks(self, former: bool) -> None:
        if former:
            self.happens(Unlinked(self.links - 1), lambda: None, False)
        else:
            self.happens(Unlinked(self.links), self.model.unlinks, False)

    @rule()
    def hears(self) -> None:
        self.happens(Heard(), self.model.hears, False)

    @rule(lease_s=st.sampled_from([60.0, 3600.0]))
    def grants(self, lease_s: float) -> None:
        self.happens(Granted(lease_s), lambda: self.model.granted(lease_s), False)

    @rule(
        count=st.integers(1, 4),
        epoch=seldom,
        cores=st.sampled_from([1, 1, 2, 5, 0.5]),
        outputs=st.booleans(),
        how=st.sampled_from(["lease", "lease", "hold"]),
        timeout_s=st.sampled_from([0, 0, 0, 40]),
        lease_s=st.sampled_from([100.0, 1800.0]),
        up=often,
        together=together,
    )
    def runs(
        self, count: int, epoch: int, cores: float, outputs: bool, how: str, timeout_s: float,
        lease_s: float, up: bool, together: bool,
    ) -> None:  # fmt: skip
        if up:
            self.comes_up()
        frames = range(len(self.orders), len(self.orders) + count)
        new = [
            RunOrder(
                key=key(frame),
                start=frame,
                argv=("x",),
                cores=cores,
                outputs=("out.png",) if outputs else (),
                on_unreachable=how,  # type: ignore[arg-type]
                timeout_s=timeout_s,
                lease_s=lease_s,
            )
            for frame in frames
        ]
        self.orders += new
        self.ordered(epoch, new, (), (), together)

    @rule(number=some, together=together)
    def runs_again(self, number: int, together: bool) -> None:
        """An order that is on its way twice; such as are over and noted do not come again."""
        again = [order for order in self.orders if order.key in self.model.held]
        if again:
            self.ordered(0, [again[number % len(again)]], (), (), together)

    @rule(
        number=some,
        epoch=seldom,
        grace_s=st.sampled_from([None, None, 0.0, 60.0]),
        unstarted=st.booleans(),
        together=together,
    )
    def stops(self, number: int, epoch: int, grace_s: float | None, unstarted: bool, together: bool) -> None:
        held = sorted(self.model.held) or [key(999)]
        stop = Stop(held[number % len(held)], "so be it", grace_s, unstarted)
        self.ordered(epoch, (), (stop,), (), together)

    @rule(number=some, epoch=seldom, together=together)
    def notes(self, number: int, epoch: int, together: bool) -> None:
        """Exits are noted; perhaps not for the first time, nor such as were told."""
        known = [*self.model.ended, *self.model.ended, *self.model.held] or [key(0)]
        self.ordered(epoch, (), (), (known[number % len(known)],), together)

    def ordered(
        self,
        epoch: int,
        run: list[RunOrder] | tuple[()],
        stop: tuple[Stop, ...],
        noted: tuple[AttemptKey, ...],
        together: bool,
    ) -> None:
        number = max(0, self.model.epoch + epoch)

        def told() -> None:
            if self.model.obeys(number):
                for one in noted:
                    self.model.notes(one)
                for order in run:
                    self.model.accepts(order)
                for item in stop:
                    self.model.asked_to_stop(item.key, item.grace_s, item.unstarted)

        orders = Orders(epoch=number, run=tuple(run), stop=stop, noted=noted)
        self.happens(OrdersCame(orders), told, together)

    # -- processes --------------------------------------------------------------------------------------

    @rule(number=some, well=st.sampled_from([True, True, False]), together=together)
    def keeper_says(self, number: int, well: bool, together: bool) -> None:
        """A process starts, or ends."""
        if self.processes:
            self.goes_on(sorted(self.processes)[number % len(self.processes)], well, together)

    @rule(together=together)
    def keeper_says_all_again(self, together: bool) -> None:
        """What is known already, as after its daemon attached to it anew."""
        for of, known in list(self.processes.items()):
            if known == "alive":
                self.says_started(of, together)
            elif not isinstance(known, str):
                self.says_ended(of, known[0], known[1], "", together)

    def goes_on(self, of: AttemptKey, well: bool, together: bool) -> None:
        """A process starts, or ends; or its end is told again."""
        known = self.processes[of]
        if not isinstance(known, str):
            self.says_ended(of, known[0], known[1], "", together)
        elif known == "starting" and well:
            self.processes[of] = "alive"
            self.says_started(of, together)
        elif known == "starting":
            del self.processes[of]
            event = LaunchFailed(of, "no-command", "there is no x")
            self.happens(event, lambda: self.model.never_ran(of, "no-command"), together)
        else:
            code, signal = (0, None) if well else (None, 9)
            self.processes[of] = code, signal
            self.says_ended(of, code, signal, "", together)

    def says_started(self, of: AttemptKey, together: bool) -> None:
        birth = int(self.bench.now * 100)
        started = ProcessStarted(of, 100, birth, 5000.0)
        self.happens(started, lambda: self.model.runs(of, birth), together)

    def says_ended(
        self, of: AttemptKey, code: int | None, signal: int | None, reason: str, together: bool
    ) -> None:
        event = ProcessEnded(of, code, signal, 1.0, 1 << 20, 5000.0, 5001.0, 0, reason)
        self.happens(event, lambda: self.model.process_ended(of, code, signal, reason), together)

    @rule(
        much=st.integers(1, 20),
        well=st.sampled_from([True, True, False]),
        outputs=st.booleans(),
        timeout_s=st.sampled_from([0, 40]),
        noted=st.booleans(),
    )
    def works(self, much: int, well: bool, outputs: bool, timeout_s: float, noted: bool) -> None:
        """As on most days: it is linked, gets orders, and all that it holds goes on."""
        if sum(one.phase != "ended" for one in self.model.held.values()) < 2:
            self.runs(2, 0, 1, outputs, "lease", timeout_s, 100.0, up=True, together=False)
        self.comes_up()
        for _ in range(much):
            going = [key for key, one in self.model.held.items() if one.phase not in ("queued", "ended")]
            if not going:
                break
            of = going[-1]
            phase = self.model.held[of].phase
            if phase == "preparing":
                self.happens(OutputsSeen(of, {"out.png": None}), partial(self.model.looked_before, of), False)
            elif phase == "verifying":
                problem = "" if well else "it is empty"
                self.happens(Verified(of, problem), partial(self.model.verified, of, problem), False)
            elif of not in self.processes:
                self.what_nobody_knows_is_over()
            else:
                self.goes_on(of, well, False)
        if noted and self.model.ended:
            self.ordered(0, (), (), tuple(self.model.ended), False)

    def comes_up(self) -> None:
        """Its master is there, and knows it."""
        self.flush()
        if not self.model.registered:
            self.links_to(0, 0, "", False)
            self.registers(False)

    @rule()
    def what_nobody_knows_is_over(self) -> None:
        """What the daemon holds and its keeper does not know is told as over."""
        for of, one in list(self.model.held.items()):
            if one.phase in ("launching", "running") and of not in self.processes:
                self.says_ended(of, None, None, KEEPER_DIED, False)

    @rule(number=some, problem=st.sampled_from(["", "", "it is empty"]), together=together)
    def outputs_are_looked_at(self, number: int, problem: str, together: bool) -> None:
        held = sorted(self.model.held) or [key(0)]
        of = held[number % len(held)]
        if number % 2:
            held = [k for k in held if k in self.model.held and self.model.held[k].order.outputs] or held
            of = held[number % len(held)]
        self.happens(OutputsSeen(of, {"out.png": None}), lambda: self.model.looked_before(of), together)
        self.happens(Verified(of, problem), lambda: self.model.verified(of, problem), together)

    # -- time and crashes -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.05, 0.1, 1.0, 10.0, 50.0, 100.0, 2000.0]))
    def waits(self, seconds: float) -> None:
        self.flush()
        until = self.bench.now + seconds
        for _ in range(10_000):
            wake = self.bench.core.next_wakeup()
            if wake is None or wake > until:
                break
            self.bench.now = max(self.bench.now, wake)
            self.flush()
        else:
            raise AssertionError("it wakes for ever")
        self.bench.now = until
        self.flush()

    @rule(seconds=st.sampled_from([1.0, 200.0, 4000.0]))
    def sleeps(self, seconds: float) -> None:
        """The machine is suspended: what comes next is read before anything could pass."""
        self.bench.now += seconds

    @precondition(lambda self: len(self.model.held) > 3)
    @rule()
    def leaves(self) -> None:
        self.happens(LeaveAsked(), self.model.leaves, False)

    @rule(performed=st.booleans(), rebooted=st.sampled_from([False, False, False, True]))
    def crashes(self, performed: bool, rebooted: bool) -> None:
        """Killed once a step was kept, before or after its effects."""
        self.flush(perform=performed)
        self.comes_back(self.bench.kept, self.identity, rebooted)

    @rule(cut=some)
    def crashes_before_it_is_kept(self, cut: int) -> None:
        """Killed while what a step wants kept is written: as if the step had never been."""
        if not self.pending:
            return
        before, model, identity = list(self.bench.kept), deepcopy(self.model), self.identity
        ended = set(self.model.ended)
        pending, self.pending = self.pending, []
        noted = {k for event, _ in pending if isinstance(event, OrdersCame) for k in event.orders.noted}
        self.bench.step(*[event for event, _told in pending])
        if self.bench.kept[: len(before)] == before:
            new = self.bench.kept[len(before) :]
            torn = self.restored([*before, *new[: cut % (len(new) + 1)]], identity, BOOT)
            Core(torn, cores=CORES).step([], self.bench.now)
            check(torn)
            assert ended - noted <= torn.ended.keys(), "an exit was forgotten before it was noted"
        self.model = model
        self.comes_back(before, identity, False)

    def comes_back(self, kept: list[SpoolRecord], identity: MasterSeen, rebooted: bool) -> None:
        self.pending.clear()
        now, heard_at, model = self.bench.now, self.model.heard_at, self.model
        state = self.restored(kept, identity, "boot-2" if rebooted else BOOT)
        self.bench = Bench(CORES, state)
        self.bench.now = now
        self.bench.kept = snapshot(state, BOOT)
        self.identity = identity
        model.dies(rebooted=rebooted)
        if rebooted:
            self.processes.clear()
        else:
            # Nobody knows what it would have done: what of it is held is looked for by its keeper.
            still = any(one.phase != "ended" for one in model.held.values())
            assert not still or heard_at - HEARD_KEPT_S <= state.heard_at <= heard_at
            assert (state.grant_s, state.hello_at) == (model.grant_s, model.hello_at) or not still
        model.heard_at, model.grant_s, model.hello_at = state.heard_at, state.grant_s, state.hello_at
        model.now = now
        self.same_after_restart()

    def same_after_restart(self) -> None:
        state, model = self.bench.state, self.model
        assert {k: one.phase.value for k, one in state.held.items()} == {
            k: one.phase for k, one in model.held.items()
        }
        assert list(state.ended) == model.ended
        assert {k: end_of(one.exit) for k, one in state.ended.items() if one.exit} == {
            k: model.held[k].end for k in model.ended
        }
        assert state.cores_used == model.used
        assert {k: one.stop_reason for k, one in state.held.items() if one.phase.value != "ended"} == {
            k: one.stop for k, one in model.held.items() if one.phase != "ended"
        }

    def restored(self, kept: list[SpoolRecord], identity: MasterSeen, boot: str) -> State:
        return restore(
            kept,
            boot_id=boot,
            now=self.bench.now,
            limits=SlaveLimits(),
            farm=identity.farm,
            epoch=identity.epoch,
            life=identity.life,
        )


Slave.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # making a long story short takes minutes
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestSlave = Slave.TestCase
