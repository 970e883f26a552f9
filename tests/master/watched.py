"""A master that is held to its model in each step: what happened is told to both, and they must agree."""

from collections.abc import Sequence
from dataclasses import replace

from drqueue.master.core.core import Core
from drqueue.master.core.effects import Effect, Tell
from drqueue.master.core.events import ClientAsked, Event, SlaveLinked, SlaveSaid, SlaveUnlinked, Stopping
from drqueue.master.core.invariants import check
from drqueue.master.core.turn import Policy
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Orders, Report
from drqueue.proto.messages import JobVerb
from drqueue.proto.sharing_messages import PutLimit
from tests.builders import WALL, CoreFarm
from tests.master.model import Model

FAST_S = 60.0


class Watched(CoreFarm):
    """A master that is held to its model in each step."""

    def __init__(self) -> None:
        self.model = Model(FAST_S)
        #: Whether work that waits is no mistake: the jobs of a backup.
        self.may_idle = False
        super().__init__(
            Policy(farm="farm", software="test", avoid_after=0, sick_after=0, requeue_fast_s=FAST_S)
        )
        self.model.dies(self.now)

    def step(self, *events: Event) -> Sequence[Effect]:
        self.model.began(self.now)
        for event in events:
            self.tell_model(event)
        self.model.deadlines()
        effects = super().step(*events)
        self.watch(effects)
        self.same()
        return effects

    def tell_model(self, event: Event) -> None:
        model = self.model
        match event:
            case SlaveUnlinked(link, heard):
                model.unlinks(link, heard)
            case SlaveSaid(link, Report() as report):
                for started in report.started:
                    model.started_one(link, started.key)
                for exited in report.exited:
                    model.exited(link, exited.key, exited.exit)
            case Stopping(grant_s):
                model.stops_well(grant_s)
            case ClientAsked(request=JobVerb() as asked):
                model.job_verb(asked.job, asked.verb)
            case ClientAsked(request=PutLimit() as asked):
                model.limit = int(asked.amount or 0)
            case SlaveLinked():
                running = {held.key for held in event.held if not held.ended}
                ended = {held.key for held in event.held if held.ended}
                model.links(event.link, event.hello.name, event.hello.cores, running, ended)
            case _:
                pass

    def watch(self, effects: Sequence[Effect]) -> None:
        model = self.model
        noted: list[tuple[int, AttemptKey]] = []
        stops: list[tuple[int, AttemptKey]] = []
        for effect in effects:
            if isinstance(effect, Tell) and isinstance(effect.message, Orders):
                assert effect.message.epoch == self.policy.epoch
                for run in effect.message.run:
                    model.orders(effect.link, run.key, run.cores, run.lease_s)
                stops += [(effect.link, stop.key) for stop in effect.message.stop]
                noted += [(effect.link, key) for key in effect.message.noted]
        for link, key in stops:
            model.says_stop(link, key)
        assert sorted(noted) == sorted(model.reported), (
            "exits are noted as often as they are told, and no others"
        )
        assert not model.unsaid_stops()
        if not self.may_idle and not model.stopping:
            assert not model.idle_in_vain()
            assert not model.passed_over()

    def same(self) -> None:
        """The core knows what the model knows."""
        state, model = self.core.state, self.model
        assert state.jobs.keys() == model.jobs.keys()
        assert state.attempts.keys() == model.attempts.keys()
        for number, job in model.jobs.items():
            layer = state.jobs[number].layers[0]
            for at, frame in enumerate(job.frames if not job.deleted else ()):
                shown, attempt = layer.state_of(at), layer.live.get(at)
                past = attempt or layer.history.get(at)
                assert frame.state == ("LIVE" if attempt else shown), f"frame {number}/{at} is {shown}"
                counted = past.requeued if past else 0
                assert counted == frame.requeued or frame.state == "DONE", f"frame {number}/{at}: {counted}"
            assert (state.jobs[number].stopped, state.jobs[number].deleted) == (job.stopped, job.deleted)
        for key, one in model.attempts.items():
            known = state.attempts[key]
            assert known.slave.name == one.slave
            assert known.running or not one.running
            assert (known.stop, known.again, known.orphan) == (one.stop, one.again, one.orphan)
        for slave in state.slaves.values():
            assert slave.cores_used == model.used(slave.name)

    def killed(self, storage: MemoryStorage, *, from_backup: bool = False) -> None:
        """The master is gone, and another starts on this."""
        self.policy = replace(self.policy, epoch=self.policy.epoch + 1)
        self.storage = storage
        self.said.clear()
        self.core = Core(self.policy, storage.load(), self.now, WALL + self.now, from_backup=from_backup)
        check(self.core.state)
        self.model.dies(self.now)
        self.same()
