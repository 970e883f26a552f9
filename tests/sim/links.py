"""A simulated slave's link to its master: dials, says Hello, hears, keeps the beat; as the real one does."""

from typing import TYPE_CHECKING

from msgspec import structs

from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.link_messages import (
    Beat,
    Grant,
    Held,
    Hello,
    HelloMore,
    Message,
    Orders,
    Registered,
    Rejected,
    Report,
)
from drqueue.proto.messages import KillAttempts, Request, SetLimits
from drqueue.proto.model import MachineInfo
from drqueue.slave.core.events import Asked, Granted, Heard, Linked, OrdersCame, RegisteredAs, Unlinked
from tests.sim.wires import End

if TYPE_CHECKING:
    from tests.sim.masters import Master
    from tests.sim.slaves import Daemon

SILENCE_S = 30.0
HELD_PART = 3  # small, so that Hello comes in parts here, too


class SlaveLink:
    """The link of one life of a daemon, and those after it."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.host = daemon.host
        self.farm = daemon.farm
        self._link = 0
        self._end: End | None = None
        self._master: Master | None = None
        self._out: list[Message] = []
        self.registered = self._plain = False
        #: The core took on the master at the other end.
        self._taken = False
        #: It says which of this slave's words came; the latest of them in what is being read.
        self._confirms = False
        self._seen = 0.0
        self._reports = 0
        self._backoff_s = 0.2
        self._beat_s, self._silence_s = 10.0, SILENCE_S
        self._beat_at = self._received = self._welcomed_at = self._read_at = 0.0

    # -- for the daemon -------------------------------------------------------------------------------

    def die(self) -> None:
        """The daemon is killed."""
        if self._end is not None:
            self._end.close()

    def put(self, link: int, message: Message) -> None:
        """Say something with the next `flush`, if it is for the link that stands."""
        if link == self._number:
            if isinstance(message, Report) and (message.started or message.exited):
                self._reports += 1
                message = structs.replace(message, nth=self._reports)
            self._out.append(message)

    def flush(self) -> None:
        """One write for all that was put."""
        if self._out:
            out, self._out = self._out, []
            if self._end is not None:
                self._end.send(out)

    def tell(self, message: Message) -> None:
        """Say something that may get lost, at once."""
        if self.registered and self._end is not None:
            self._end.send([message])

    def unlink(self, link: int, why: str) -> None:
        """The core gives a link up."""
        if link == self._number and self._end is not None:
            self._drop(why)

    @property
    def _number(self) -> int:
        return self._link if self._end is not None else 0

    def say_hello(self, link: int, held: tuple[Held, ...]) -> None:
        """The core took the master on: all that is held, in parts."""
        if link != self._number:
            return
        assert self._master is not None
        self._taken = True
        self.farm.oracle.obeys(self.host, self._master)
        if self.host.granted_s and not self.host.hello_at:
            self.host.hello_at = self.host.boot_clock()
        parts = [held[at : at + HELD_PART] for at in range(0, len(held), HELD_PART)] or [()]
        self._out.append(
            Hello(
                identity=self.host.folder.identity,
                fingerprint=self.host.folder.fingerprint,
                name=self.host.name,
                machine=MachineInfo(hostname=self.host.name, os="linux", boot_id=self.host.boot_id),
                limits=self._daemon.core.state.limits,
                cores=self.host.cores,
                memory_mb=4096,
                held=parts[0],
                more=len(parts) > 1,
                at=self.host.boot_clock(),
            )
        )
        for at, part in enumerate(parts[1:], start=2):
            self._out.append(HelloMore(held=part, more=at < len(parts)))

    def dial(self) -> None:
        """Try to reach a master, once."""
        if not self._daemon.alive or self._end is not None:
            return
        reached, dialled_at = self.farm.connect(self.host), self.host.boot_clock()
        if reached is None:
            self._dial_later(0.0)
            return
        end, master = reached
        dialler = Dialler("slave", "sim", self.host.name)

        def closed() -> None:
            if self._daemon.alive and self._end is None:
                self._dial_later(0.0)

        def answered(message: Message) -> None:
            if not self._daemon.alive:
                return
            try:
                welcome = dialler.answered(message)
            except HandshakeRejected as no:
                end.close()
                self._dial_later(0.0 if no.retry else 60.0)
                return
            if self.host.boot_clock() - dialled_at > SILENCE_S:
                # It slept during the handshake.
                end.close()
                self._dial_later(0.0)
                return
            end.established()
            self._link += 1
            self._end, self._master = end, master
            self._out.clear()
            self._reports, self._seen, self._confirms = 0, 0.0, False
            end.on_message = self._heard
            end.on_read = self._read
            end.on_closed = lambda: self._lost(end)
            self._beat_s, self._silence_s = 10.0, SILENCE_S
            self._received = self.host.mono()
            self._beat_at = self._received + self._beat_s
            self._welcomed_at = self._read_at = self.host.boot_clock()
            self._daemon.put(Linked(self._link, welcome.farm, welcome.epoch, welcome.life))
            self._watch(end)

        end.on_message, end.on_closed = answered, closed
        end.send([dialler.hi])

        def too_long() -> None:
            if self._daemon.alive and end.open and self._end is not end:
                end.close()
                closed()

        self.host.after(10.0, too_long)

    def _dial_later(self, pause_s: float) -> None:
        pause = max(pause_s, self._backoff_s) * (0.5 + self.farm.rng.random())
        self._backoff_s = min(2 * self._backoff_s, 10.0)
        self.host.after(pause, self.dial)

    def _heard(self, message: Message) -> None:
        host = self.host
        before, self._read_at = self._read_at, host.boot_clock()
        if self._read_at - before > self._silence_s:
            self._drop("nothing was read for long")
            return
        self._received = host.mono()
        if self.registered and not self._confirms:
            host.hears(self._read_at)
        match message:
            case Orders(run=run):
                assert self._master is not None
                for order in run:
                    if order.key not in self._daemon.core.state.held:
                        host.ordered_by[order.key] = self._master.book
                host.noted_by |= dict.fromkeys(message.noted, self._master.book)
                self._daemon.put(OrdersCame(message))
                return
            case Registered(slave=slave, name=name):
                self._beat_s, self._silence_s = message.beat_s, message.silence_s
                self.registered = True
                host.linked_at = self.farm.now
                self._backoff_s = 0.2
                self._confirms = message.seen > 0
                host.hears(message.seen or self._read_at, granted_s=0.0)
                host.hello_at = 0.0
                self._daemon.put(RegisteredAs(slave, name, message.seen))
                return
            case Grant(lease_s=lease_s):
                if self._taken:
                    host.hears(self._read_at, granted_s=lease_s)
                self._daemon.put(Granted(lease_s))
                return
            case Rejected(retry=retry):
                self._drop("rejected", 0.0 if retry else 60.0)
                return
            case Beat(echo=echo, seen=seen):
                if self.registered and self._confirms:
                    host.hears(seen)
                self._seen = max(self._seen, seen)
                if echo:
                    self._beat()
            case SetLimits() | KillAttempts():
                self._daemon.put(Asked(None, message))
            case Request():
                pass
            case _:
                raise AssertionError(f"a master does not say {message}")
        self._plain = True

    def _read(self) -> None:
        if self._plain:
            self._plain = False
            self._daemon.put(Heard(self._seen))
            self._seen = 0.0

    def _beat(self) -> None:
        if self._end is not None:
            self._end.send([Beat(at=self.host.boot_clock())])

    def _watch(self, end: End) -> None:
        if not self._daemon.alive or self._end is not end:
            return
        now = self.host.mono()
        if now >= self._received + self._silence_s - 1e-6:
            self._drop("the master was silent")
            return
        if now >= self._beat_at - 1e-6:
            self._beat()
            self._beat_at = now + self._beat_s
        due = min(self._beat_at, self._received + self._silence_s)
        self.host.after(max(due - now, 0.0) + 1e-6, lambda: self._watch(end))

    def _lost(self, end: End) -> None:
        if self._daemon.alive and self._end is end:
            self._drop("the link is gone")

    def _drop(self, why: str, pause_s: float = 0.0) -> None:
        end, self._end = self._end, None
        assert end is not None
        end.close()
        self.registered = self._taken = False
        self.farm.trace("slave unlinks", self.host.name, why)
        self._daemon.put(Unlinked(self._link))
        self._dial_later(pause_s)
