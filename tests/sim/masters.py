"""The master's shell around the real core, without IO: its engine, its slaves' links, and its state folder.

It imitates `drqueue.master`'s shells: rows are durable before anything that follows from them is said; while
the disk is full the commit under way is tried again, and all else waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from msgspec import structs

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, Effect, Tell, Unlink
from drqueue.master.core.events import (
    ClientAsked,
    ClockRead,
    Event,
    SlaveLinked,
    SlaveSaid,
    SlaveUnlinked,
    Stopping,
)
from drqueue.master.core.records import AnyRecord, MetaRecord
from drqueue.master.core.turn import Policy
from drqueue.master.storage import StorageFull
from drqueue.master.storage.memory import MemoryStorage
from drqueue.outcome import Outcome
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import (
    Beat,
    Held,
    Hello,
    HelloMore,
    LimitsNow,
    LogKept,
    Message,
    Orders,
    Registered,
    Rejected,
    Report,
    Status,
    Welcome,
)
from drqueue.proto.messages import Refusal, Request
from tests.builders import LOCAL_NODE
from tests.sim.books import Book, Violation
from tests.sim.invariants import Watch
from tests.sim.wires import End

if TYPE_CHECKING:
    from tests.sim.farm import Farm

CLOCK_S = 10.0
RETRY_S = 1.0
RESTART_S = 5.0
HELLO_S = 30.0
#: How long a master that leaves waits for its disk.
GOODBYE_S = 2.0
#: So many ids farm.json reserves at once.
RESERVED = 1000


@dataclass(slots=True)
class Backup:
    """A copy of a database, and its book."""

    storage: MemoryStorage
    book: Book


class Site:
    """A master's state folder: database and farm.json, and the master that runs on it, if one does."""

    def __init__(
        self, farm: "Farm", storage: MemoryStorage, book: Book, epoch: int = 0, ids: int = 0
    ) -> None:
        self.farm = farm
        self.storage = storage
        self.book = book
        self.epoch = epoch
        #: Above all ids of jobs and slaves that were handed out.
        self.ids = ids
        #: The longest grant of a master that left, as far as slaves may still count on it.
        self.granted_s = 0.0
        self.master: Master | None = None
        #: The database was taken from a backup, and no master has run on it since.
        self.restored = False

    def commit(self, records: Sequence[AnyRecord]) -> None:
        """StorageFull changes nothing."""
        self.storage.commit(records)
        for record in records:
            match record:
                case MetaRecord(name="next_job" | "next_slave", value=value) if int(value) > self.ids:
                    self.ids = int(value) + RESERVED
                case MetaRecord(name="lease_grant", value=value):
                    self.granted_s = float(value)
                case _:
                    pass

    def start(self) -> None:
        """Start a master, if none runs."""
        if self.master is not None:
            return
        if self.storage.refuse is not None:
            # It has no room for its epoch, ends, and is started again.
            self.farm.after(RESTART_S, lambda: self.start() if self in self.farm.sites else None)
            return
        self.epoch += 1
        if self.restored:
            bounds = (MetaRecord("next_job", str(self.ids)), MetaRecord("next_slave", str(self.ids)))
            self.storage.commit(bounds)
        self.master = Master(self.farm, self)
        self.restored = False

    def backup(self) -> Backup:
        """A copy of the database as it is."""
        return Backup(_copied(self.storage), self.book.copied(self.book.line))

    def restore(self, backup: Backup) -> None:
        """Put a backup in the database's place; no master may run."""
        assert self.master is None
        self.storage, self.book = _copied(backup.storage), backup.book.copied(self.book.line)
        self.restored = True

    def copied(self, line: int) -> "Site":
        """A copy of the whole folder."""
        site = Site(self.farm, _copied(self.storage), self.book.copied(line), self.epoch, self.ids)
        site.granted_s = self.granted_s
        return site


def _copied(storage: MemoryStorage) -> MemoryStorage:
    """Rows are never changed in place; the dicts around them are."""
    copy = MemoryStorage()
    for name, value in vars(storage).items():
        setattr(copy, name, _copied_dict(value) if isinstance(value, dict) else value)
    copy.refuse = None
    return copy


def _copied_dict(rows: dict[object, object]) -> dict[object, object]:
    copy = rows.copy()
    for key, value in copy.items():
        if isinstance(value, dict):
            copy[key] = _copied_dict(value)
    return copy


class _Link:
    """The master's end of a slave's link."""

    def __init__(self, end: End, number: int) -> None:
        self.end = end
        self.number = number
        self.hello: Hello | None = None
        self.held: list[Held] = []
        self.linked = self.registered = False
        self.linked_at = 0.0
        #: The latest moment at which the slave said something that came.
        self.seen = 0.0
        self.orders = 0

    def beat(self, *, echo: bool = False) -> None:
        """This side is there; once the slave is registered, with the last of its words that came."""
        self.end.send([Beat(echo=echo, seen=self.seen if self.registered else 0)])


class Master:
    """One life of the master: the real core, and what `drqueue.master` puts around it."""

    def __init__(self, farm: "Farm", site: Site) -> None:
        self.farm = farm
        self.site = site
        self.book = site.book
        self.epoch = site.epoch
        self.alive = True
        self.crash_at = ""
        self._offset = farm.rng.uniform(1.0, 1e6)
        self._policy = Policy(
            farm="farm",
            epoch=self.epoch,
            software="sim",
            lease_s=farm.lease_s,
            requeue_fast_s=farm.requeue_fast_s,
            keep_s=0.0,
            backoff=Backoff(2.0, 20.0),
            beat_s=farm.beat_s,
            silence_s=3 * farm.beat_s,
        )
        self.core = Core(
            self._policy,
            site.storage.load(),
            self.clock(),
            farm.wall(),
            from_backup=site.restored,
            granted_s=site.granted_s,
        )
        life = f"{farm.rng.getrandbits(64):016x}"
        self._answerer = Answerer(
            Welcome(version=1, software="sim", farm="farm", epoch=self.epoch, life=life), ("client", "slave")
        )
        self._links: dict[int, _Link] = {}
        self._ends: list[End] = []
        self._numbers = count(1)
        self._inbox: list[Event] = []
        self._busy = self._stepping = self._leaving = False
        self._timer = 0
        self._watch = Watch(self.core)
        farm.trace("master starts", self.epoch)
        self._watch.look_at_all()
        self._tick()
        farm.after(farm.beat_s, self._beat)

    def clock(self) -> float:
        """Its own clock, which began somewhere."""
        return self.farm.now + self._offset

    @property
    def committed(self) -> bool:
        """All that the core knows is on disk."""
        return not self._busy

    def put(self, event: Event) -> None:
        """Something happened."""
        if self.alive:
            self._inbox.append(event)
            self._wake()

    def die(self) -> None:
        """kill -9: every link breaks, what was not committed is lost."""
        self.alive = False
        self.farm.trace("master dies")
        for end in self._ends:
            end.close()

    def leave(self, grant_s: float) -> None:
        """TERM: leases are stretched, then it goes; a disk that does not answer is not waited for."""
        self.put(Stopping(grant_s))
        self._leaving = True
        self.farm.after(GOODBYE_S, lambda: self._crash() if self.alive and self._busy else None)

    def _tick(self) -> None:
        if self.alive:
            self.put(ClockRead(self.farm.wall()))
            self.farm.after(CLOCK_S, self._tick)

    # -- the engine -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._busy and not self._stepping:
            self._stepping = True
            self.farm.after(0.0, self._step)

    def _arm(self) -> None:
        wake = self.core.next_wakeup()
        if wake is not None:
            self._timer += 1
            timer = self._timer
            self.farm.after(
                max(0.0, wake - self.clock()) + 1e-6, lambda: self._wake() if timer == self._timer else None
            )

    def _step(self) -> None:
        self._stepping = False
        if not self.alive or self._busy:
            return
        farm = self.farm
        events, self._inbox = self._inbox, []
        outcome = self.core.step(events, self.clock())
        farm.steps += 1
        farm.trace("master", events, outcome.save, outcome.do)
        self._watch.look(outcome)
        wake = self.core.next_wakeup()
        if wake is not None and wake <= self.clock() - 1e-3:
            raise Violation("a deadline of the master that passed was not met")
        if outcome.save and self.crash_at == "before commit":
            self._crash()
            return
        if not outcome.save:
            self._perform(events, outcome)
            return
        self._busy = True
        slow = farm.rng.uniform(0.2, 5.0) if farm.slow_disk else 0.003
        farm.after(slow, lambda: self._commit(events, outcome))

    def _commit(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> None:
        if not self.alive:
            # Killed while the disk was at it: it may be there all the same, or not.
            if self.farm.rng.random() < 0.5 and self.site.master is None and self.site.book is self.book:
                self._write(events, outcome)
            return
        if not self._write(events, outcome):
            self.farm.after(RETRY_S, lambda: self._commit(events, outcome))
            return
        if self.crash_at == "after commit":
            self._crash()
            return
        self._perform(events, outcome)

    def _write(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> bool:
        try:
            self.site.commit(outcome.save)
        except StorageFull:
            return False
        refused = {
            do.client for do in outcome.do if isinstance(do, Answer) and isinstance(do.message, Refusal)
        }
        done = [e for e in events if isinstance(e, ClientAsked) and e.client not in refused]
        self.book.committed(outcome.save, done, self.core.state)
        return True

    def _crash(self, away_s: float = 0.0) -> None:
        self.farm.crash_master(self.site, away_s)

    def _perform(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> None:
        self._busy = False
        for effect in outcome.do:
            match effect:
                case Tell(number, message):
                    link = self._links.get(number)
                    if link is not None:
                        if isinstance(message, Orders):
                            link.orders += 1
                            message = structs.replace(message, nth=link.orders)
                        link.end.send([message])
                        if isinstance(message, Registered):
                            link.registered = True
                            self._said(link, link.linked_at)
                        if isinstance(message, Orders) and message.run:
                            self._ordered(link)
                case Unlink(number, code, text, retry):
                    link = self._links.get(number)
                    if link is not None:
                        link.end.send([Rejected(code=code, text=text, retry=retry)])
                        self._close(link)
                case Answer(client, answer):
                    self.farm.answer(client, answer, self.book)
                case _:
                    pass  # nobody here watches, reads mail or joins
            if self.crash_at == "mid effects":
                self._crash()
                return
        if self._inbox:
            self._wake()
        elif self._leaving:
            # What was said is with the kernel: it arrives, then the links end.
            self._crash(self.farm.rng.choice((1.0, 30.0, 220.0)))
            return
        self._arm()

    def _ordered(self, link: _Link) -> None:
        for host in self.farm.hosts:
            if host.sleeps_at_order and link.hello is not None and link.hello.name == host.name:
                seconds, host.sleeps_at_order = host.sleeps_at_order, 0.0
                host.fall_asleep(seconds)

    # -- slaves' links --------------------------------------------------------------------------------

    def accept(self, end: End) -> None:
        """A slave dials."""
        self._ends.append(end)
        link = _Link(end, next(self._numbers))

        def greeted(message: Message) -> None:
            _hi, reply = self._answerer.greeted(message)
            end.send([reply])
            end.established()
            end.on_message = lambda message: self._hello(link, message)

        end.on_message = greeted
        end.on_closed = lambda: self._closed(link)
        self.farm.after(HELLO_S, lambda: None if link.linked else end.close())

    def _hello(self, link: _Link, message: Message) -> None:
        match message:
            case Hello():
                link.hello, link.held = message, [*message.held]
                more = message.more
            case HelloMore():
                link.held += message.held
                more = message.more
            case _:
                # As its shell would, for any words before Hello.
                self.farm.trace("no hello", type(message).__name__)
                link.end.close()
                return
        if not more:
            assert link.hello is not None
            link.linked = True
            link.linked_at, link.seen = self.farm.now, link.hello.at
            self._links[link.number] = link
            link.end.on_message = lambda message: self._hear(link, message)
            self.put(SlaveLinked(link.number, link.hello, tuple(link.held), LOCAL_NODE))

    def _hear(self, link: _Link, message: Message) -> None:
        if link.registered:
            self._said(link, self.farm.now)
        match message:
            case Report() | Status() | LimitsNow() | LogKept():
                self.put(SlaveSaid(link.number, message))
            case Beat(echo=echo, at=at):
                link.seen = max(link.seen, at)
                if echo:
                    link.beat()
            case Request():
                pass
            case _:
                raise AssertionError(f"a slave does not say {message}")

    def _said(self, link: _Link, at: float) -> None:
        assert link.hello is not None
        whose = (self.book.line, link.hello.identity)
        self.farm.said_at[whose] = max(at, self.farm.said_at.get(whose, 0.0))

    def _close(self, link: _Link) -> None:
        link.end.close()
        self._closed(link)

    def _closed(self, link: _Link) -> None:
        if self._links.pop(link.number, None) is not None:
            self.put(SlaveUnlinked(link.number, link.end.last_received + self._offset))

    def _beat(self) -> None:
        if not self.alive:
            return
        for link in [*self._links.values()]:
            silent = self.farm.now - link.end.last_received
            if silent > 3 * self.farm.beat_s:
                self._close(link)
            else:
                link.beat(echo=silent > self.farm.beat_s)
        self.farm.after(self.farm.beat_s, self._beat)
