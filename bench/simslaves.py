"""Simulated slaves, many in one process, on real links: `python -m bench.simslaves`, asked on stdin (JSON).

They say what real ones say: Hello with all they hold, Beats, Status, what started and what is over, told anew
on every link until it is noted. Each runs what it is ordered for a while (0: over at once), in no process.
Lost links are dialled again as `drqueue.slave.link` does it. Prints a line of JSON every TELL_S: how many are
registered, how many frame events were told (started or over), CPU seconds so far.
"""

import random
import resource
import socket
import sys
import time
from collections import Counter
from heapq import heappop, heappush
from itertools import count
from math import inf

import msgspec
import trio
from msgspec import Struct

from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.dialling import CONNECT_S, open_channel
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Beat,
    Exited,
    Held,
    Hello,
    LogKept,
    Message,
    Orders,
    Registered,
    Report,
    Started,
    Status,
)
from drqueue.proto.model import Exit, LogEnds, MachineInfo, MachineLoad, SlaveLimits
from drqueue.slave.link import BACKOFF_FIRST_S, BACKOFF_MOST_S, LINE_S
from drqueue.tls import TlsSession, client_context

TELL_S = 0.2
#: As the slave's setting of this name.
REPORT_S = 15.0
#: How often it is looked whose Beat or Status is due.
_TICK_S = 0.05
#: What every frame writes.
_LOG = LogEnds(size=300, head=b"sample\n" * 42 + b"saved\n")


class Asked(Struct, frozen=True):
    """What to simulate: a slave for each secret, dialling `host` (an absolute path: a Unix socket).

    `frame_s`: how long a frame takes on average. `first`: how many there are in other processes before these.
    `cut_s`: how long a link lasts on average before the slave drops it; 0: for ever.
    """

    host: str
    port: int
    pin: str
    secrets: tuple[str, ...]
    slots: int
    frame_s: float
    first: int = 0
    cut_s: float = 0.0


class Told(Struct, frozen=True):
    """What is printed now and then, of all slaves of the process."""

    registered: int = 0
    events: int = 0
    cpu_s: float = 0.0
    failed: dict[str, int] = {}


class Sums:
    """What is told of all together."""

    def __init__(self) -> None:
        self.registered = 0
        self.events = 0
        #: Why dials came to nothing, and how often.
        self.failed: Counter[str] = Counter()


class SimSlave:
    """One slave: its link, and what it holds."""

    def __init__(self, number: int, secret: str, asked: Asked, sums: Sums, farm: "SimSlaves") -> None:
        self._number = number
        self._secret = secret
        self._asked = asked
        self._sums = sums
        self._farm = farm
        self._running: dict[AttemptKey, float] = {}
        self._over: dict[AttemptKey, Exited] = {}
        self.channel: Channel | None = None
        self.beat_s = 10.0
        self.beat_at = self.status_at = trio.current_time()

    async def run(self) -> None:
        """Keep a link up for ever."""
        await trio.sleep(random.uniform(0.0, BACKOFF_MOST_S))
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                with trio.move_on_after(self._lasts_s()):
                    if await self._one_link():
                        backoff_s = BACKOFF_FIRST_S
            except (OSError, LinkClosed, RemoteProtocolError, HandshakeRejected) as error:
                self._sums.failed[str(error)] += 1
            await trio.sleep(backoff_s * (0.5 + random.random()))
            backoff_s = min(2 * backoff_s, BACKOFF_MOST_S)

    def _lasts_s(self) -> float:
        return random.expovariate(1 / self._asked.cut_s) if self._asked.cut_s else inf

    async def _one_link(self) -> bool:
        """One link from the dial to its end; whether it came to be registered."""
        channel = await self._dial()
        async with channel, trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            registered = False
            try:
                await channel.dial(Dialler("slave", "bench", secret=self._secret))
                channel.send(self._hello())
                while True:
                    message = await channel.receive()
                    if isinstance(message, Registered):
                        registered = True
                        self._is_registered(channel, message)
                    elif isinstance(message, Orders):
                        self._obey(channel, message)
                    elif message == Beat(echo=True):
                        channel.send(Beat())
            except (LinkClosed, RemoteProtocolError, HandshakeRejected) as error:
                # Raised in here they would come as a group.
                self._sums.failed[str(error)] += 1
                return registered
            finally:
                if self.channel is channel:
                    self.channel = None
                    self._sums.registered -= 1
                nursery.cancel_scope.cancel()

    async def _dial(self) -> Channel:
        """A link from an address of its own, as `drqueue.dialling` opens one. Raises OSError."""
        asked = self._asked
        if not asked.port:
            return await open_channel(Address("unix", path=asked.host))
        mine = f"127.1.{self._number // 250}.{self._number % 250 + 1}"
        with trio.move_on_after(CONNECT_S) as limit:
            stream = await trio.open_tcp_stream(asked.host, asked.port, local_address=mine)
            limit.deadline = trio.current_time() + LINE_S
            session = TlsSession(client_context(), server_side=False)
            channel = Channel(socket.socket(fileno=stream.socket.detach()), "master")
            try:
                await channel.secure(session)
            except BaseException:
                channel.close()
                raise
            session.check_pin(asked.pin, asked.host)
            return channel
        raise TimeoutError("no answer in time")

    def _hello(self) -> Hello:
        name = f"sim-{self._number}"
        held = [Held(key) for key in self._running] + [Held(key, True) for key in self._over]
        return Hello(
            identity=f"{self._number:032x}",
            name=name,
            fingerprint=f"print-{self._number}",
            machine=MachineInfo(hostname=name, os="linux", boot_id="boot", cores_logical=self._asked.slots),
            limits=SlaveLimits(),
            cores=self._asked.slots,
            memory_mb=16_384,
            held=tuple(held),
        )

    def _is_registered(self, channel: Channel, message: Registered) -> None:
        now = trio.current_time()
        self.channel = channel
        self.beat_s = message.beat_s
        self.beat_at = now + self.beat_s
        self.status_at = now + random.uniform(0.0, REPORT_S)
        self._sums.registered += 1
        channel.send(Status(load=_load()))
        if self._over:
            _tell_over(channel, tuple(self._over.values()))

    def _obey(self, channel: Channel, orders: Orders) -> None:
        for key in orders.noted:
            self._over.pop(key, None)
        wall = time.time()
        started = [Started(order.key, wall, 4711) for order in orders.run]
        self._sums.events += len(started)
        if not self._asked.frame_s:
            self._end(channel, [(one.key, one.at) for one in started])
            return
        for one in started:
            self._running[one.key] = wall
            lasts_s = self._asked.frame_s * random.uniform(0.5, 1.5)
            self._farm.end_at(trio.current_time() + lasts_s, self, one.key)
        for stop in orders.stop:
            if stop.key in self._running and not stop.unstarted:
                self.is_over(stop.key)
        if started:
            channel.send(Report(started=tuple(started)))

    def is_over(self, key: AttemptKey) -> None:
        """A frame has been rendered."""
        started_at = self._running.pop(key, None)
        if started_at is not None:
            self._end(self.channel, [(key, started_at)])

    def _end(self, channel: Channel | None, ended: list[tuple[AttemptKey, float]]) -> None:
        wall = time.time()
        exits = tuple(
            Exited(key, Exit(code=0, started_at=at, ended_at=wall, cpu_s=wall - at, peak_mb=312.5))
            for key, at in ended
        )
        self._over.update((one.key, one) for one in exits)
        self._sums.events += len(exits)
        if channel is not None and exits:
            _tell_over(channel, exits)


def _tell_over(channel: Channel, exits: tuple[Exited, ...]) -> None:
    channel.send_many([Report(exited=exits), *[LogKept(key=one.key, ends=_LOG) for one in exits]])


def _load() -> MachineLoad:
    busy = random.random()
    return MachineLoad(load1=busy, load5=busy, load15=busy, cpu_percent=100 * busy, memory_free_mb=9000)


class SimSlaves:
    """All of a process, and what they share: clocks for what is due."""

    def __init__(self, asked: Asked) -> None:
        self.sums = Sums()
        self._due: list[tuple[float, int, SimSlave, AttemptKey]] = []
        self._ties = count()
        self._slaves = [
            SimSlave(number, secret, asked, self.sums, self)
            for number, secret in enumerate(asked.secrets, start=asked.first + 1)
        ]

    def end_at(self, when: float, slave: SimSlave, key: AttemptKey) -> None:
        """A frame will be over then."""
        heappush(self._due, (when, next(self._ties), slave, key))

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            for slave in self._slaves:
                nursery.start_soon(slave.run)
            nursery.start_soon(self._tell)
            while True:
                await trio.sleep(_TICK_S)
                now = trio.current_time()
                while self._due and self._due[0][0] <= now:
                    _when, _tie, slave, key = heappop(self._due)
                    slave.is_over(key)
                for slave in self._slaves:
                    self._say_what_is_due(slave, now)

    def _say_what_is_due(self, slave: SimSlave, now: float) -> None:
        said: list[Message] = []
        if slave.channel is None:
            return
        if now >= slave.beat_at:
            said.append(Beat())
            slave.beat_at = now + slave.beat_s
        if now >= slave.status_at:
            said.append(Status(load=_load()))
            slave.status_at = now + REPORT_S
        if said:
            slave.channel.send_many(said)

    async def _tell(self) -> None:
        while True:
            await trio.sleep(TELL_S)
            told = Told(self.sums.registered, self.sums.events, time.process_time(), self.sums.failed)
            print(msgspec.json.encode(told).decode(), flush=True)


def main() -> None:
    """Simulate until killed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asked = msgspec.json.decode(sys.stdin.readline(), type=Asked)
    trio.run(_serve, asked)


async def _serve(asked: Asked) -> None:
    await SimSlaves(asked).run()


if __name__ == "__main__":
    main()
