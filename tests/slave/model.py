"""What a slave must do, told once more in plain dictionaries: what its core is compared with.

Rules of this file: nothing of the core is used, only the words of the protocol. Each method is something that
happened; `began` and `over` stand around the events of one step. What the slave must do then is gathered
in the lists of `Expected`, which whoever drives both compares with what the core did.
"""

from dataclasses import dataclass, field
from math import inf

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Exit, RunOrder

TOLD_AFTER_S = 0.1
KILLED_AGAIN_S = 5.0
#: Between TERM and KILL where a lease is over; and how late that may be noticed for there to be any such.
LEASE_GRACE_S, LEASE_LATE_S = 30.0, 60.0
#: A process may be there.
ALIVE = ("launching", "running")
USING = ("preparing", *ALIVE)
#: code, signal, reason
End = tuple[int | None, int | None, str]


@dataclass
class Held:
    """One attempt that was accepted and whose exit is not noted."""

    order: RunOrder
    phase: str = "queued"
    #: Whether its start is on record: a crash forgets what is not.
    told: bool = False
    due: float = inf
    since: float = inf
    birth: int = 0
    stop: str = ""
    grace_s: float = 0.0
    kill_at: float = inf
    end: End | None = None
    #: The end of its lease was acted upon.
    lapsed: bool = False


@dataclass
class Expected:
    """What one step must bring about."""

    hello: list[tuple[AttemptKey, bool]] | None = None
    unlinked: bool = False
    acts: list[tuple[str, AttemptKey]] = field(default_factory=list)
    started: list[AttemptKey] = field(default_factory=list)
    exited: list[tuple[AttemptKey, End]] = field(default_factory=list)
    left_farm: bool = False
    all_ended: bool = False


class Model:
    """A slave of `cores` cores."""

    def __init__(self, cores: int, grace_s: float) -> None:
        self.cores = cores
        self.grace_s = grace_s
        self.now = 0.0
        self.farm, self.epoch, self.life = "", 0, ""
        self.linked = self.registered = self.leaving = self.left_told = False
        self.heard_at = self.grant_s = self.hello_at = self.linked_at = self.silent_s = 0.0
        self.held: dict[AttemptKey, Held] = {}
        #: What runs and is not held.
        self.strangers: set[AttemptKey] = set()
        #: In the order in which they were over.
        self.ended: list[AttemptKey] = []
        self.fresh_life = True
        self.out = Expected()

    # -- around the events of a step --------------------------------------------------------------------

    def began(self, now: float) -> None:
        """A step begins: what was under way before a crash goes on, leases that are over end."""
        self.now, self.silent_s, self.out = now, now - self.heard_at, Expected()
        if self.fresh_life:
            self.fresh_life = False
            for key, one in self.held.items():
                if one.phase == "preparing":
                    self.out.acts.append(("prepare", key))
                elif one.phase == "running":
                    one.since = min(now, one.birth / 100)
                if one.phase in ALIVE and one.stop:
                    self._terminate(key, one)
        self.leases()

    def leases(self) -> None:
        """Leases that are over end their attempts, and soon."""
        for key, one in list(self.held.items()):
            over_s = self.now - self.lease_end(one)
            if over_s >= 0:
                grace_s = 0.0 if over_s > LEASE_LATE_S else LEASE_GRACE_S
                one.lapsed = True
                if not self.stop(key, "lease", min(grace_s, self.grace_s)):
                    one.kill_at = min(one.kill_at, self.now + grace_s)

    def over(self) -> Expected:
        """The step ends: other deadlines pass, what has room starts, news are told."""
        self.leases()
        for key, one in list(self.held.items()):
            limit = one.order.timeout_s
            if one.phase in ALIVE and not one.stop and limit and one.since + limit <= self.now:
                self.stop(key, "timeout")
            if one.phase in ALIVE and one.stop and one.kill_at <= self.now:
                self.out.acts.append(("kill", key))
                one.kill_at = self.now + KILLED_AGAIN_S
        for key, one in self.held.items():
            if one.phase == "running" and not one.told and one.due <= self.now:
                one.told = True
                self.out.started.append(key)
        for key, one in self.held.items():
            if one.phase != "queued":
                continue
            used = self.used
            if used and used + one.order.cores > self.cores:
                break
            one.phase = "preparing" if one.order.outputs else "launching"
            self.out.acts.append(("prepare" if one.order.outputs else "start", key))
        if not self.registered:
            self.out.started, self.out.exited = [], []
        if self.leaving and not self.left_told and not self.used:
            self.left_told = self.out.all_ended = True
        return self.out

    @property
    def used(self) -> float:
        """Cores that are taken."""
        return sum(one.order.cores for one in self.held.values() if one.phase in USING)

    def lease_end(self, one: Held) -> float:
        """When an attempt is to end for the master's silence."""
        if one.order.on_unreachable == "hold" or one.lapsed or one.phase in ("verifying", "ended"):
            return inf
        ends = [self.heard_at + max(one.order.lease_s, self.grant_s)]
        if self.hello_at:
            # A master that came back may have heard the Hello, and no longer think of the grant.
            ends.append(self.hello_at + one.order.lease_s)
        return min(ends)

    # -- the link ---------------------------------------------------------------------------------------

    def links(self, farm: str, epoch: int, life: str) -> None:
        """A master answered."""
        self.linked = self.registered = False
        self.linked_at = self.now
        if self.strangers:
            self.out.unlinked = True
            return
        if self.farm and farm != self.farm:
            for key in list(self.held):
                self.stop(key, "stopped")
            if any(one.phase in ALIVE for one in self.held.values()):
                self.out.unlinked = True
                return
            self.out.acts += [("forget", key) for key in self.held]
            self.out.exited = []
            self.held, self.ended = {}, []
            self.farm, self.epoch, self.life = "", 0, ""
            self.out.left_farm = True
        elif epoch < self.epoch or (epoch == self.epoch and life and self.life not in ("", life)):
            self.out.unlinked = True
            return
        self.linked = True
        self._sees(farm, epoch, life)
        if self.grant_s and not self.hello_at:
            self.hello_at = self.now
        self.out.hello = [(key, one.phase == "ended") for key, one in self.held.items()]

    def _sees(self, farm: str, epoch: int, life: str) -> None:
        self.life = life or (self.life if epoch == self.epoch else "")
        self.farm, self.epoch = farm, epoch

    def next_deadline(self) -> float:
        """When something is due of itself."""
        dues = [inf]
        for one in self.held.values():
            dues.append(self.lease_end(one))
            if one.phase in ALIVE and one.stop:
                dues.append(one.kill_at)
            elif one.phase in ALIVE and one.order.timeout_s:
                dues.append(one.since + one.order.timeout_s)
            if one.phase == "running" and not one.told:
                dues.append(one.due)
        return min(dues)

    def unlinks(self) -> None:
        """The link is gone."""
        self.linked = self.registered = False

    def hears(self) -> None:
        """The master said something."""
        if self.registered:
            self.heard_at = self.now

    def registers(self) -> None:
        """The master knows what is held: all that it may have missed is told again."""
        if self.linked:
            self.registered, self.silent_s = True, self.now - self.linked_at
            self.grant_s = self.hello_at = 0.0
            self.hears()
            told = [k for k, one in self.held.items() if one.told and one.phase != "ended"]
            self.out.started = told
            self.out.exited = [(key, self._end(key)) for key in self.ended]

    def _end(self, key: AttemptKey) -> End:
        end = self.held[key].end
        assert end is not None
        return end

    def granted(self, lease_s: float) -> None:
        """The master goes away for at most that."""
        if self.registered:
            self.grant_s, self.heard_at = lease_s, self.now

    # -- orders -----------------------------------------------------------------------------------------

    def obeys(self, epoch: int) -> bool:
        """Orders of this epoch came; whether they count."""
        if not self.linked or epoch < self.epoch:
            return False
        if not self.registered:
            self.out.unlinked, self.linked = True, False
            return False
        self._sees(self.farm, epoch, "")
        self.hears()
        return True

    def accepts(self, order: RunOrder) -> None:
        """It is to run that."""
        if order.key in self.held:
            return
        if self.leaving or self.silent_s >= order.lease_s:
            self.out.exited.append((order.key, (None, None, "lost")))
        else:
            self.held[order.key] = Held(order)

    def asked_to_stop(self, key: AttemptKey, grace_s: float | None, unstarted: bool) -> None:
        """The master wants it ended; `unstarted`: only where it has not begun."""
        one = self.held.get(key)
        if one is None:
            self.out.exited.append((key, (None, None, "lost")))
        elif not unstarted or one.phase == "queued":
            self.stop(key, "stopped", grace_s)

    def notes(self, key: AttemptKey) -> None:
        """The master has the exit."""
        if key in self.ended:
            self.ended.remove(key)
            del self.held[key]
            self.out.acts.append(("forget", key))

    def leaves(self) -> None:
        """The daemon is to end with its frames."""
        self.leaving = True
        for key in list(self.held):
            self.stop(key, "shutdown")

    # -- what came of it --------------------------------------------------------------------------------

    def stop(self, key: AttemptKey, reason: str, grace_s: float | None = None) -> bool:
        """End an attempt, unless that is under way; the first reason stands."""
        one = self.held[key]
        if one.phase == "ended" or one.stop:
            return False
        if one.phase not in ALIVE:
            self._ends(key, (None, None, reason))
            return True
        one.stop, one.grace_s = reason, self.grace_s if grace_s is None else grace_s
        self._terminate(key, one)
        return True

    def _terminate(self, key: AttemptKey, one: Held) -> None:
        self.out.acts.append(("term", key))
        one.kill_at = self.now + one.grace_s

    def looked_before(self, key: AttemptKey) -> None:
        """How the outputs lie is known: it may start."""
        one = self.held.get(key)
        if one is not None and one.phase == "preparing":
            one.phase = "launching"
            self.out.acts.append(("start", key))

    def runs(self, key: AttemptKey, birth: int) -> None:
        """Its process runs."""
        one = self.held.get(key)
        if one is None:
            self.strangers.add(key)
            self.out.acts.append(("kill", key))
        elif one.phase == "launching":
            one.phase, one.birth, one.due = "running", birth, self.now + TOLD_AFTER_S
            one.since = min(self.now, birth / 100)
            if one.stop:
                self._terminate(key, one)

    def never_ran(self, key: AttemptKey, reason: str) -> None:
        """It could not be started."""
        self.strangers.discard(key)
        one = self.held.get(key)
        if one is None:
            self.out.acts.append(("forget", key))
        elif one.phase in USING:
            self._ends(key, (None, None, reason))

    def process_ended(self, key: AttemptKey, code: int | None, signal: int | None, reason: str) -> None:
        """Its process is gone."""
        self.strangers.discard(key)
        one = self.held.get(key)
        if one is None:
            self.out.acts.append(("forget", key))
        elif one.phase in ALIVE:
            end = (code, signal, one.stop or reason)
            if one.order.outputs and end == (0, None, ""):
                one.phase, one.end = "verifying", end
                self.out.acts.append(("verify", key))
            else:
                self._ends(key, end)

    def verified(self, key: AttemptKey, problem: str) -> None:
        """The outputs were looked at."""
        one = self.held.get(key)
        if one is not None and one.phase == "verifying":
            self._ends(key, (0, None, "missing-output" if problem else ""))

    def _ends(self, key: AttemptKey, end: End) -> None:
        one = self.held[key]
        one.phase, one.end, one.kill_at = "ended", end, inf
        self.ended.append(key)
        self.out.exited.append((key, end))
        if key in self.out.started:
            self.out.started.remove(key)

    # -- crashes ----------------------------------------------------------------------------------------

    def dies(self, *, rebooted: bool) -> None:
        """The daemon is killed, and starts again from what it kept; `rebooted`: so did its machine."""
        self.linked = self.registered = self.leaving = self.left_told = False
        self.fresh_life = True
        self.strangers.clear()
        for key, one in self.held.items():
            if one.phase == "ended":
                continue
            if rebooted:
                one.phase, one.end = "ended", (None, None, "lost")
                self.ended.append(key)
            elif one.phase == "queued":
                one.phase = "preparing" if one.order.outputs else "launching"
            elif one.phase in ("running", "verifying"):
                one.phase = "running" if one.told else "launching"
            if one.phase != "ended":
                one.end, one.due, one.since, one.lapsed = None, inf, inf, False
        if rebooted:
            self.grant_s = self.hello_at = 0.0


def end_of(exit_: Exit) -> End:
    """What the model says of an exit."""
    return exit_.code, exit_.signal, exit_.reason
