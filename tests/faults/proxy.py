"""A proxy between two daemons that does to their link what bad networks do, on Unix sockets and TCP.

    async with Proxy("unix:master.sock", "unix:proxy.sock") as proxy:
        proxy.up.hold()            # nothing arrives at the master any more: a cut in one direction
        proxy.down.delay(dice)     # each piece comes so many seconds late, in order
        proxy.cut("rst")           # every connection, at once

`up` is what goes to the target, `down` what comes from it; both are of all connections, those to come
included. Each `Session` remembers what went through, so that it can be said again on another connection.

Rules: bytes are changed by `packets` alone, which sees whole packets of the plain protocol. Order is kept
unless `packets` changes it. What is held is kept, and goes on with `pass_`.
"""

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Literal, Self

import trio

from drqueue.unixpath import bind_unix, connect_unix

HEADER = 4
CHUNK = 65536
#: Bytes of one direction that a session remembers.
TAPPED_MOST = 8 << 20

Rewrite = Callable[[bytes], list[bytes]]


class Direction:
    """What is done to one direction of all connections."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self._open.set()
        self._delay: Callable[[], float] = lambda: 0.0
        self._rate = inf
        self.packets: Rewrite | None = None
        """Given a whole packet, its header included: what to send in its place, in order."""

    def pass_(self) -> None:
        """No more holding, delay or throttle; what was held goes on."""
        self._delay, self._rate = lambda: 0.0, inf
        self._open.set()

    def hold(self) -> None:
        """Let nothing through: a black hole, whose sender is told nothing."""
        if self._open.is_set():
            self._open = trio.Event()

    def delay(self, seconds: Callable[[], float]) -> None:
        """Let each piece arrive that much later, but never before the one before it."""
        self._delay = seconds

    def throttle(self, bytes_per_s: float) -> None:
        """Let no more through than this."""
        self._rate = bytes_per_s

    def due(self, size: int) -> float:
        """When a piece that comes now is to go on (trio's clock)."""
        return trio.current_time() + self._delay() + size / self._rate

    async def wait_open(self) -> None:
        """Return once nothing is held."""
        while not self._open.is_set():
            await self._open.wait()


class Session:
    """One connection: both of its sockets, and what went through."""

    def __init__(self, near: trio.socket.SocketType, far: trio.socket.SocketType) -> None:
        self.near = near
        self.far = far
        self.said_up = bytearray()
        self.said_down = bytearray()
        self.over = trio.CancelScope()

    def close(self, how: Literal["rst", "fin"]) -> None:
        """End it on both sides; on a Unix socket a reset is what unread bytes make of an end."""
        # First: whoever waits for a socket that is closed under it is in trouble.
        self.over.cancel()
        for sock in (self.near, self.far):
            if how == "rst" and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


class Proxy:
    """Listens at `at` and connects to `target` for each who comes; both are unix:PATH or HOST:PORT."""

    def __init__(self, target: str, at: str = "127.0.0.1:0") -> None:
        self.target = target
        self._at = at
        self.up = Direction()
        self.down = Direction()
        self.sessions: list[Session] = []
        """All there ever were, oldest first."""
        self.refusing = False
        """Whether who comes is turned away at once, as by a host that is not there."""
        self.impersonating: bytes | None = None
        """What is said to who comes, in place of connecting them: an old session's other side."""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._listener = _listen(self._at)
        self._stack.callback(self._listener.close)
        self._nursery.start_soon(self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._stack.__aexit__(kind, value, trace)

    @property
    def address(self) -> str:
        """Where it listens."""
        if self._at.startswith("unix:"):
            return self._at
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def live(self) -> list[Session]:
        """The connections that stand."""
        return [session for session in self.sessions if session.near.fileno() >= 0]

    def cut(self, how: Literal["rst", "fin"] = "rst") -> int:
        """End every connection; how many there were."""
        live = self.live
        for session in live:
            session.close(how)
        return len(live)

    def half_close(self, up: bool) -> None:
        """Tell the receiving end of one direction that no more will come; the other direction goes on."""
        for session in self.live:
            with contextlib.suppress(OSError):
                (session.far if up else session.near).shutdown(socket.SHUT_WR)

    def heal(self) -> None:
        """As a good network again."""
        self.refusing = False
        self.impersonating = None
        for direction in (self.up, self.down):
            direction.packets = None
            direction.pass_()

    async def replay(self, data: bytes, quiet_s: float = 0.5) -> bytes:
        """Say these bytes to the target on a connection of their own; what it answers until it is quiet."""
        heard = bytearray()
        with await _connect(self.target) as sock, contextlib.suppress(OSError):
            for at in range(0, len(data), CHUNK):
                await _send_all(sock, data[at : at + CHUNK])
            while True:
                with trio.move_on_after(quiet_s) as quiet:
                    part = await sock.recv(CHUNK)
                    heard += part
                if quiet.cancelled_caught or not part:
                    break
        return bytes(heard)

    async def _accept(self) -> None:
        while True:
            near, _ = await self._listener.accept()
            if self.refusing:
                near.close()
                continue
            if self.impersonating is not None:
                self._nursery.start_soon(_impersonate, near, self.impersonating)
                continue
            try:
                far = await _connect(self.target)
            except OSError:
                near.close()
                continue
            session = Session(near, far)
            self.sessions.append(session)
            self._nursery.start_soon(self._serve, session)

    async def _serve(self, session: Session) -> None:
        try:
            with session.over:
                async with trio.open_nursery() as nursery:
                    for ends in (
                        (session.near, session.far, self.up, session.said_up),
                        (session.far, session.near, self.down, session.said_down),
                    ):
                        pump = _Pump(*ends, session.over)
                        nursery.start_soon(pump.read)
                        nursery.start_soon(pump.write)
        finally:
            session.near.close()
            session.far.close()


class _Pump:
    """One direction of one connection."""

    def __init__(
        self,
        source: trio.socket.SocketType,
        sink: trio.socket.SocketType,
        direction: Direction,
        tapped: bytearray,
        over: trio.CancelScope,
    ) -> None:
        self._source = source
        self._sink = sink
        self._direction = direction
        self._tapped = tapped
        self._over = over
        self._queue: deque[tuple[float, bytes]] = deque()
        self._news = trio.Event()
        self._ended = False

    async def read(self) -> None:
        """Queue what the source says until it says no more."""
        rest, last = b"", 0.0
        while not self._ended:
            try:
                data = await self._source.recv(CHUNK)
            except OSError:
                data = b""
            self._tapped += data[: max(0, TAPPED_MOST - len(self._tapped))]
            pieces, rest = _pieces(rest + data, self._direction.packets)
            if not data and rest:
                pieces.append(rest)
            for piece in pieces:
                last = max(last, self._direction.due(len(piece)))
                self._queue.append((last, piece))
            self._ended = not data
            self._news.set()

    async def write(self) -> None:
        """Carry the queue to the sink, then end it; a sink that takes nothing any more ends both ways."""
        try:
            while self._queue or not self._ended:
                await self._direction.wait_open()
                if not self._queue:
                    self._news = trio.Event()
                    await self._news.wait()
                    continue
                due, data = self._queue[0]
                await trio.sleep_until(due)
                await self._direction.wait_open()
                await _send_all(self._sink, data)
                self._queue.popleft()
            self._sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._over.cancel()


async def _impersonate(near: trio.socket.SocketType, data: bytes) -> None:
    """Say that, and nothing more, for as long as somebody listens."""
    with near, contextlib.suppress(OSError):
        await _send_all(near, data)
        while await near.recv(CHUNK):
            pass


def _pieces(data: bytes, rewrite: Rewrite | None) -> tuple[list[bytes], bytes]:
    """What to send on, and what is not whole yet."""
    if rewrite is None:
        return ([data] if data else []), b""
    pieces: list[bytes] = []
    while len(data) >= HEADER:
        end = HEADER + int.from_bytes(data[:HEADER], "big")
        if len(data) < end:
            break
        pieces += rewrite(data[:end])
        data = data[end:]
    return pieces, data


async def _send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        sent += await sock.send(data[sent:])


def _listen(at: str) -> trio.socket.SocketType:
    if at.startswith("unix:"):
        sock = bind_unix(at.removeprefix("unix:"), 0o600)
    else:
        host, _, port = at.rpartition(":")
        sock = socket.create_server((host, int(port)))
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


async def _connect(target: str) -> trio.socket.SocketType:
    if target.startswith("unix:"):
        sock = connect_unix(target.removeprefix("unix:"), blocking=False)
        return trio.socket.from_stdlib_socket(sock)
    host, _, port = target.rpartition(":")
    made = trio.socket.socket()
    try:
        await made.connect((host, int(port)))
    except BaseException:
        made.close()
        raise
    return made
