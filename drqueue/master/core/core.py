"""The master's core: `step` takes events and the time, and says what to save and then to do.

Every event in order, then every deadline that passed, then one scheduling pass if something asked
for one. The engine is its only caller.
"""

from collections.abc import Collection, Sequence
from heapq import heappop
from typing import Final

from drqueue.master.core import dates, depends, holdback, jobs, on_slave
from drqueue.master.core.accounts import THE_MASTER, drop_old, end_gone, show_secret
from drqueue.master.core.effects import Effect
from drqueue.master.core.events import (
    ClientAsked,
    ClockRead,
    Event,
    JoinAsked,
    Noticed,
    SecretShown,
    SlaveLinked,
    SlaveSaid,
    SlaveUnlinked,
    Stopping,
)
from drqueue.master.core.folding import AT_ONCE, AT_ONCE_IDLE, fold
from drqueue.master.core.on_client import on_asked
from drqueue.master.core.on_join import on_join
from drqueue.master.core.records import AccountRecord, AnyRecord, LayerTotals, MetaRecord, Saved
from drqueue.master.core.restore import leap, restore
from drqueue.master.core.rights import refusal
from drqueue.master.core.schedule import schedule
from drqueue.master.core.state import FarmState
from drqueue.master.core.trouble import forgive, next_forgiven
from drqueue.master.core.turn import Policy, Turn
from drqueue.outcome import Outcome
from drqueue.proto.link_messages import Grant
from drqueue.proto.messages import Request
from drqueue.proto.roles import Who

#: At most this many finished jobs are purged in one step.
_PURGE_AT_ONCE: Final = 10
#: What users and projects had of late is saved so often, in seconds.
_KEEP_USAGE_S: Final = 600.0


class Core:
    """Decides which frame runs where. Start from what storage holds."""

    def __init__(
        self,
        policy: Policy,
        saved: Saved,
        now: float,
        wall: float,
        *,
        from_backup: bool = False,
        gone: Collection[str] = (),
        granted_s: float = 0.0,
    ) -> None:
        """`gone`: ids of accounts that ended, whatever is saved. `from_backup`: so is what is saved, and an
        earlier master let slaves go on without one for `granted_s` at most."""
        self._turn = Turn(policy)
        self._turn.state.now = now
        from_backup = from_backup or saved.meta.get(holdback.ROW) == holdback.JUST_NOW
        restore(
            self._turn.state,
            saved,
            now,
            wall,
            lease_s=policy.lease_s,
            granted_s=granted_s if from_backup else None,
        )
        self._turn.now = now
        if from_backup:
            leap(self._turn.state, policy.epoch)
            # By this its numbers are on record, too.
            self._turn.did(THE_MASTER, "restore the database from a backup")
        end_gone(self._turn, gone)
        self._stopping = False
        self._settle()

    @property
    def state(self) -> FarmState:
        """For reading: queries, invariants."""
        return self._turn.state

    @property
    def turn(self) -> Turn:
        """For the shells' own read-only look-ups between steps."""
        return self._turn

    def step(self, events: Sequence[Event], now: float) -> Outcome[AnyRecord, Effect]:
        """Take every event in order, then every deadline that passed, then schedule."""
        turn, state = self._turn, self._turn.state
        turn.now = state.now = now
        for event in events:
            match event:
                case SlaveSaid():
                    on_slave.on_said(turn, event)
                case ClientAsked():
                    # Whoever asks sees the end of what came before in this step.
                    self._settle()
                    on_asked(turn, event)
                case JoinAsked():
                    on_join(turn, event)
                case SecretShown():
                    show_secret(turn, event.account, event.secret_hash)
                case Noticed():
                    self._on_noticed(event)
                case SlaveLinked():
                    on_slave.on_linked(turn, event)
                case SlaveUnlinked():
                    on_slave.on_unlinked(turn, event)
                case ClockRead():
                    self._on_clock(event)
                case Stopping():
                    self._on_stopping(event)
        on_slave.pass_deadlines(turn)
        holdback.pass_deadlines(turn)
        forgive(turn)
        self._end_delays()
        self._settle()
        if state.want_schedule and not self._stopping:
            state.want_schedule = False
            schedule(state, now, turn.policy.lease_s, turn.run, turn.take_back)
        if state.foldable:
            fold(state, AT_ONCE)
        save, state.save = [*state.save, *_changed_totals(state)], []
        return Outcome(save, turn.take_effects())

    def peek(self, client: int, request: Request, who: Who) -> Sequence[Effect]:
        """Answer one of READS between steps (while a commit cannot end); changes nothing."""
        turn = Turn(self._turn.policy)
        turn.state, turn.now, turn.peeking = self._turn.state, self._turn.now, True
        on_asked(turn, ClientAsked(client, request, who))
        return turn.take_effects()

    def refusal(self, who: Who, request: Request) -> tuple[str, str] | None:
        """A code and a sentence where this is not to be done for them: for what the shell does itself."""
        return refusal(self._turn, who, request)

    def authenticate(self, secret_hash: str) -> AccountRecord | None:
        """The account whose secret has this hash; where it is the `next_hash`, a SecretShown is due."""
        account = self.state.register.with_hash(secret_hash)
        return None if account is None or account.pending else account

    def next_wakeup(self) -> float | None:
        """The earliest deadline: a lease's, back-off's or hold-back's end, a slave forgiven, a start time."""
        state = self._turn.state
        dues = [state.delays[0][0]] if state.delays else []
        some = (
            on_slave.next_deadline(self._turn),
            next_forgiven(state),
            state.holdback.next_deadline() if state.holdback is not None else None,
        )
        dues += [due for due in some if due is not None]
        dues += [state.jobs[number].spec.not_before - state.wall_offset for number in state.timed]
        return min(dues, default=None)

    def _on_noticed(self, event: Noticed) -> None:
        if event.outcome == "done":
            self._turn.did(event.who, event.what, event.text)
        else:
            self._turn.noticed(event.who, event.what, event.outcome, event.text, event.count)

    def _on_clock(self, event: ClockRead) -> None:
        state = self._turn.state
        state.wall_offset = event.wall - self._turn.now
        if state.dates.read(event.wall, self._turn.now):
            self._turn.warn(state.dates.doubt(self._turn.now))
        if self._turn.now - state.dates.kept_at >= dates.KEEP_S:
            self._keep_date()
        fold(state, AT_ONCE_IDLE)
        drop_old(self._turn)
        holdback.look_again(state)
        state.limits.prune()
        state.sharing.forget_idle(self._turn.now)
        if state.sharing.pools and self._turn.now - state.sharing.kept_at >= _KEEP_USAGE_S:
            self._keep_usage()
        state.audit.flush(self._turn.now, state.save)
        for number in sorted(state.timed):
            depends.recheck(self._turn, state.jobs[number])
        keep_s = self._turn.policy.keep_s
        if keep_s:
            for job in jobs.old(self._turn, keep_s)[:_PURGE_AT_ONCE]:
                jobs.delete(self._turn, job)

    def _on_stopping(self, event: Stopping) -> None:
        self._stopping = True
        state = self._turn.state
        state.stopping = True
        # Whoever has not been heard of in this life may still rely on what the former one granted.
        state.save.append(MetaRecord("lease_grant", str(max(event.grant_s, state.granted_s))))
        self._keep_usage()
        self._keep_date()
        for link in self._turn.state.links:
            self._turn.tell(link, Grant(lease_s=event.grant_s))

    def _keep_usage(self) -> None:
        state = self._turn.state
        state.save.append(MetaRecord("usage", state.sharing.kept(self._turn.now, self._turn.wall)))

    def _keep_date(self) -> None:
        state, now = self._turn.state, self._turn.now
        state.dates.kept_at = now
        state.save.append(MetaRecord(dates.ROW, str(state.dates.today(now))))

    def _end_delays(self) -> None:
        state, now = self._turn.state, self._turn.now
        while state.delays and state.delays[0][0] <= now:
            when, number, layer_index, index = heappop(state.delays)
            job = state.jobs.get(number)
            if job is not None and job.layers[layer_index].delayed.get(index) == when:
                job.layers[layer_index].due(index)
                state.want_schedule = True
        for number in sorted(state.timed):
            if state.jobs[number].spec.not_before <= self._turn.wall:
                depends.recheck(self._turn, state.jobs[number])

    def _settle(self) -> None:
        state = self._turn.state
        while state.unsettled:
            numbers, state.unsettled = sorted(state.unsettled), set()
            for number in numbers:
                job = state.jobs.get(number)
                if job is not None:
                    jobs.settle(self._turn, job)


def _changed_totals(state: FarmState) -> list[LayerTotals]:
    """The sums that changed in this step, once each."""
    summed, state.summed = state.summed, {}
    return [layer.totals() for layer in summed if layer.job.id in state.jobs]
