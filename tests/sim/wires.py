"""Imaginary cables: bytes of the real codec, in order, late, and lost where a cable is cut.

Rules: what is in flight when a cable is cut never arrives. A reset is noticed by both ends within a second
or so; a black hole by nobody, until silence gives it away.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from drqueue.proto.connection import Connection
from drqueue.proto.link_messages import Message


class Clock(Protocol):
    """What a wire needs of the farm."""

    now: float

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds."""


class End:
    """One end of a wire: sends messages, hands on the ones that come, learns of the other's end."""

    def __init__(
        self,
        clock: Clock,
        wire: "Wire",
        arrive: Callable[[Callable[[], None]], None],
    ) -> None:
        self._clock = clock
        self._wire = wire
        self._arrive = arrive
        self._connection = Connection()
        self.peer: End
        self.open = True
        self.last_received = clock.now
        self._due = 0.0
        self.on_message: Callable[[Message], None]
        self.on_read: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None]

    def established(self) -> None:
        """Full-size packets from now on."""
        self._connection.established()

    def send(self, messages: Sequence[Message]) -> None:
        """One write; a dead wire swallows it."""
        data = b"".join([self._connection.send(message) for message in messages])
        if self.open and self._wire.whole:
            self._later(lambda: self.peer.receive(data))

    def close(self) -> None:
        """Give the wire up; the other end hears of it, behind all that was sent."""
        if self.open:
            self.open = False
            if self._wire.whole:
                self._later(self.peer.lose)

    def _later(self, what: Callable[[], None]) -> None:
        # A stream: nothing overtakes what was sent before it.
        self._due = max(self._due, self._clock.now + self._wire.latency())
        self._clock.after(self._due - self._clock.now, lambda: self.peer._arrive(what))

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
    """A cable and its two ends."""

    def __init__(
        self,
        clock: Clock,
        latency: Callable[[], float],
        arrive: Callable[[Callable[[], None]], None],
    ) -> None:
        """`arrive` delivers at the first end: a machine that sleeps gets it when it wakes."""
        self._clock = clock
        self.latency = latency
        self._arrive = arrive
        self.whole = True
        self.a = End(clock, self, arrive)
        self.b = End(clock, self, lambda what: what())
        self.a.peer, self.b.peer = self.b, self.a

    def cut(self, noticed: tuple[float, float] | None) -> None:
        """What is in flight is lost; each end notices after so many seconds, or (None) not at all."""
        self.whole = False
        if noticed is not None:
            self._clock.after(noticed[0], lambda: self._arrive(self.a.lose))
            self._clock.after(noticed[1], self.b.lose)
