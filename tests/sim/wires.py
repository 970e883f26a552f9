"""Imaginary cables: bytes of the real codec, in order, late, and lost where a cable is cut.

Rules: what is in flight when a cable is cut never arrives. A reset is noticed by both ends within a second
or so; a black hole by nobody, until silence gives it away. Each machine has two ways, up to the master and
down from it, which outlive its cables: a way may be clogged (all waits until it is free again) or grow slower
and slower, and while there is mischief it drops, doubles and swaps messages that count themselves.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from drqueue.proto.connection import Connection
from drqueue.proto.link_messages import Beat, Message, Orders, Report

#: What mischief may befall: the receiver is bound to notice that one is missing, or was there before.
COUNTED = (Orders, Report, Beat)


class Clock(Protocol):
    """What a wire needs of the farm."""

    now: float
    rng: Random

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds."""

    def latency(self) -> float:
        """How long a message takes by itself."""


class Way:
    """One direction of a machine's network."""

    def __init__(self, clock: Clock, arrive: Callable[[Callable[[], None]], None]) -> None:
        """`arrive` delivers: a machine that sleeps gets it when it wakes."""
        self._clock = clock
        self._arrive = arrive
        self._clogged = False
        self._waiting: list[Callable[[], None]] = []
        self._slower: tuple[float, float, float] | None = None
        #: The chance of a message to be dropped, doubled or swapped with the next.
        self.mischief = 0.0

    def delay(self) -> float:
        """How long what is sent now takes."""
        delay = self._clock.latency()
        if self._slower is not None:
            since, each_s, most_s = self._slower
            delay += min(most_s, each_s * (self._clock.now - since))
        return delay

    def is_disturbed(self) -> bool:
        """Not all comes at once, or not at all."""
        return self._clogged or self._slower is not None or self.mischief > 0

    def grow_slower(self, each_s: float, most_s: float) -> None:
        """From now on what is sent takes `each_s` longer with every second that passes, up to `most_s`."""
        self._slower = (self._clock.now, each_s, most_s)

    def clog(self) -> None:
        """Nothing comes through; nothing is lost."""
        self._clogged = True

    def mend(self) -> None:
        """As fast as it was, what waited first."""
        self._slower, self.mischief, self._clogged = None, 0.0, False
        waiting, self._waiting = self._waiting, []
        for what in waiting:
            self._arrive(what)

    def through(self, what: Callable[[], None]) -> None:
        """Something came to the end of this way."""
        if self._clogged:
            self._waiting.append(what)
        else:
            self._arrive(what)

    def disturb(self, messages: Sequence[Message], late: list[Message]) -> list[Message]:
        """What mischief makes of the messages of one write; `late` is what the next ones overtake."""
        rng, told = self._clock.rng, list[Message]()
        for message in messages:
            what = rng.random() if isinstance(message, COUNTED) else 1.0
            if what < self.mischief / 3:
                continue
            if what < 2 * self.mischief / 3:
                late.append(message)
                continue
            told.append(message)
            if what < self.mischief:
                told.append(message)
            told += late
            late.clear()
        return told


class End:
    """One end of a wire: sends messages, hands on the ones that come, learns of the other's end."""

    def __init__(self, clock: Clock, wire: "Wire", way: Way) -> None:
        self._clock = clock
        self._wire = wire
        self._way = way
        self._connection = Connection()
        self.peer: End
        self.open = True
        self.last_received = clock.now
        self._due = 0.0
        self._late: list[Message] = []
        self.on_message: Callable[[Message], None]
        self.on_read: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None]

    def established(self) -> None:
        """Full-size packets from now on."""
        self._connection.established()

    def send(self, messages: Sequence[Message]) -> None:
        """One write; a dead wire swallows it."""
        if self._way.mischief or self._late:
            messages = self._way.disturb(messages, self._late)
        data = b"".join([self._connection.send(message) for message in messages])
        if data and self.open and self._wire.whole:
            self._later(lambda: self.peer.receive(data))

    def close(self) -> None:
        """Give the wire up; the other end hears of it, behind all that was sent."""
        if self.open:
            self.open = False
            if self._wire.whole:
                self._later(self.peer.lose)

    def _later(self, what: Callable[[], None]) -> None:
        # A stream: nothing overtakes what was sent before it.
        self._due = max(self._due, self._clock.now + self._way.delay())
        self._clock.after(self._due - self._clock.now, lambda: self._way.through(what))

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        if not self.open or not self._wire.whole:
            return
        self.last_received = self._clock.now
        self._connection.receive(data)
        while self.open and isinstance(message := self._connection.next_message(), Message):
            self.on_message(message)
        if self.open:
            self.on_read()

    def lose(self) -> None:
        """This end learns that the wire is gone."""
        if self.open:
            self.open = False
            self.on_closed()


class Wire:
    """A cable and its two ends: `a` the machine's, `b` the master's."""

    def __init__(
        self, clock: Clock, up: Way, down: Way, arrive: Callable[[Callable[[], None]], None]
    ) -> None:
        """`arrive` tells the first end that a cable is cut."""
        self._clock = clock
        self._arrive = arrive
        self.whole = True
        self.a = End(clock, self, up)
        self.b = End(clock, self, down)
        self.a.peer, self.b.peer = self.b, self.a

    def cut(self, noticed: tuple[float, float] | None) -> None:
        """What is in flight is lost; each end notices after so many seconds, or (None) not at all."""
        self.whole = False
        if noticed is not None:
            self._clock.after(noticed[0], lambda: self._arrive(self.a.lose))
            self._clock.after(noticed[1], self.b.lose)
