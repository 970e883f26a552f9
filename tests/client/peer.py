"""A scripted master, or slave's control port, on a Unix socket: says what a test tells it to say."""

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import trio

from drqueue.channel import Channel, LinkClosed
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Beat, Hi, Rejected, Welcome
from drqueue.proto.messages import Request
from drqueue.proto.model import MachineInfo, MachineLoad, SlaveLimits
from drqueue.proto.views import Counts, FrameView, JobView, SlaveView
from drqueue.unixpath import bind_unix

Reply = Callable[[Channel, Any], object]
P = TypeVar("P", bound="Peer")


class Peer:
    """`on[Kind]` answers requests of a kind: it gets the channel and the request; `heard` keeps them all."""

    def __init__(self, path: str, peer: str = "master") -> None:
        self.path = path
        self.peer = peer
        self.heard: list[Request] = []
        self.on: dict[type, Reply] = {}
        self.links: list[Channel] = []
        self.reject: Rejected | None = None
        self.news = trio.Event()
        self.stopped = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.heard]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; looked at whenever something is heard."""
        while not condition():
            self.news = trio.Event()
            await self.news.wait()

    def drop_links(self) -> None:
        for channel in self.links:
            channel.close()
        self.links.clear()

    async def serve(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until `stop`; may be called again for a restarted peer."""
        self._scope = trio.CancelScope()
        sock = self.listen()
        sock.setblocking(False)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    while True:
                        await trio.lowlevel.wait_readable(sock)
                        link, _ = sock.accept()
                        nursery.start_soon(self._link, Channel(link))
        finally:
            sock.close()
            self.drop_links()
            self.stopped.set()

    def stop(self) -> None:
        """End; `stopped` tells when."""
        self.stopped = trio.Event()
        self._scope.cancel()

    def listen(self) -> socket.socket:
        """The socket that it listens on."""
        return bind_unix(self.path)

    async def greet(self, channel: Channel) -> bool:
        """Hear the first words of whoever dialled, and answer them; False where that was all."""
        if self.reject is not None:
            assert isinstance(await channel.receive(), Hi)
            channel.send(self.reject)
            return False
        welcome = Welcome(version=1, peer=self.peer, software="test")  # type: ignore[arg-type]
        await channel.answer(Answerer(welcome, ["client"]))
        return True

    async def _link(self, channel: Channel) -> None:
        async with channel:
            self.links.append(channel)
            try:
                if not await self.greet(channel):
                    return
                while True:
                    message = await channel.receive()
                    if isinstance(message, Beat):
                        continue
                    assert isinstance(message, Request)
                    self.heard.append(message)
                    reply = self.on.get(type(message))
                    answer = reply(channel, message) if reply is not None else None
                    if isinstance(answer, Request):
                        channel.send(answer)
                    self.news.set()
            except LinkClosed:
                return


@asynccontextmanager
async def serving(*peers: Peer) -> Any:
    """The peers listen inside."""
    async with trio.open_nursery() as nursery:
        for peer in peers:
            await nursery.start(peer.serve)
        yield nursery
        nursery.cancel_scope.cancel()


@contextmanager
def in_thread(path: str, on: dict[type, Reply]) -> Iterator[Peer]:
    """A scripted master in a thread of its own, for what blocks."""
    with served_in_thread(lambda: Peer(path)) as peer:
        peer.on = on
        yield peer


@contextmanager
def served_in_thread(make: Callable[[], P]) -> Iterator[P]:
    """The peer that `make` makes, served in a thread of its own."""
    made: list[tuple[P, trio.lowlevel.TrioToken]] = []
    ready = threading.Event()

    async def main() -> None:
        peer = make()
        async with trio.open_nursery() as nursery:
            await nursery.start(peer.serve)
            made.append((peer, trio.lowlevel.current_trio_token()))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(20)
    peer, token = made[0]
    try:
        yield peer
    finally:
        token.run_sync_soon(peer.stop)
        thread.join(20)
        assert not thread.is_alive()


async def soon(work: Awaitable[Any]) -> Any:
    """The result, within 20 s."""
    with trio.fail_after(20):
        return await work


def job_view(number: int = 1, state: str = "ACTIVE", **changed: Any) -> JobView:
    given: dict[str, Any] = {
        "id": number,
        "name": f"job{number}",
        "owner": "ann",
        "project": "",
        "state": state,
        "priority": 500,
        "pool": "Default",
        "counts": Counts(total=10, done=10 if state == "FINISHED" else 3, running=2),
        "chunk_counts": Counts(total=10, done=10 if state == "FINISHED" else 3, running=2),
        "progress": 1.0 if state == "FINISHED" else 0.3,
        "submitted_at": 1000.0,
        "started_at": 1001.0,
        "finished_at": 0.0,
        "eta_at": 0.0,
        "mean_frame_s": 1.5,
        "cpu_s": 4.0,
        "max_running": 0,
        "max_per_slave": 0,
        "not_before": 0.0,
        "depends": (),
        "blocked_hosts": (),
        "on_unreachable": "lease",
        "layers": ("main",),
    }
    return JobView(**{**given, **changed})


def frame_view(number: int = 1, state: str = "RUNNING", **changed: Any) -> FrameView:
    given: dict[str, Any] = {
        "job": 1,
        "layer": 0,
        "layer_name": "main",
        "index": number - 1,
        "number": number,
        "last": number,
        "count": 1,
        "state": state,
    }
    return FrameView(**{**given, **changed})


def slave_view(name: str = "s1", control: str = "", **changed: Any) -> SlaveView:
    given: dict[str, Any] = {
        "id": 0,
        "name": name,
        "state": "idle",
        "linked": True,
        "cores": 4,
        "memory_mb": 1000,
        "cores_used": 0,
        "memory_used_mb": 0,
        "limits": SlaveLimits(),
        "machine": MachineInfo(hostname="host", os="linux"),
        "load": MachineLoad(),
        "control": control,
        "last_heard_at": 1000.0,
    }
    return SlaveView(**{**given, **changed})
