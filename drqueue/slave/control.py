"""The slave's own port: clients enable, limit, ask and kill directly, whether the master is there or not.

Rules: a Unix socket (0600) in the state directory, so that only the farm's user can connect. At most
MAX_CLIENTS links; one more is told to come back later. Whatever one client does, others are served: one
that says nothing for SILENCE_S is closed, one that does not read its answers is not read either.
"""

import os
import socket
from math import inf

import trio

from drqueue import log
from drqueue.channel import Channel, LinkClosed
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import PROTOCOL_NEWEST, Beat, Message, Welcome
from drqueue.proto.messages import Request
from drqueue.slave.requests import Requests

SOCKET = "control.sock"
MAX_CLIENTS = 64
#: A client says a word every 10 s; one that says none for so long is gone.
SILENCE_S = 30.0
#: A client with this many bytes of answers unsent is not read until it has fetched them.
LAG_BYTES = 1024 * 1024
#: Pause after the system had no descriptor or memory left for a new link.
EXHAUSTED_S = 1.0


class Control:
    """Serves clients on a listening socket."""

    def __init__(self, listener: socket.socket, requests: Requests, software: str) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._requests = requests
        self._welcome = Welcome(version=PROTOCOL_NEWEST, peer="slave", software=software)
        self._clients = 0

    async def run(self) -> None:
        """Accept links until cancelled; the listening socket is closed then."""
        try:
            await self._accept()
        finally:
            self._listener.close()

    async def _accept(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._listener)
                try:
                    sock, _ = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    log.warning("a client's link was not taken", error=os.strerror(error.errno or 0))
                    await trio.sleep(EXHAUSTED_S)
                    continue
                channel = Channel(sock, "client")
                if self._clients >= MAX_CLIENTS:
                    channel.reject("busy", f"{MAX_CLIENTS} clients are linked already", retry=True)
                    continue
                self._clients += 1
                nursery.start_soon(self._serve, channel)

    async def _serve(self, channel: Channel) -> None:
        try:
            async with channel:
                await self._converse(channel)
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the slave down)
            log.error("a bug ended a client's link", exc=error)
        finally:
            self._clients -= 1

    async def _converse(self, channel: Channel) -> None:
        try:
            if await channel.answer(Answerer(self._welcome, {"client"})) is None:
                return
        except LinkClosed:
            return
        except RemoteProtocolError as error:
            log.warning("a client broke the protocol in the handshake", error=error)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            nursery.start_soon(channel.watch_silence, SILENCE_S)
            await self._read(channel, nursery)
            nursery.cancel_scope.cancel()

    async def _read(self, channel: Channel, nursery: trio.Nursery) -> None:
        requests = self._requests.for_link(nursery, channel.send)
        try:
            while True:
                message: Message = await channel.receive()
                if isinstance(message, Request):
                    requests.handle(message)
                    await self._requests.wait_room()
                elif isinstance(message, Beat):
                    if message.echo:
                        channel.send(Beat())
                else:
                    raise RemoteProtocolError(f"a client does not say {type(message).__name__}")
                if channel.queued > LAG_BYTES:
                    await channel.wait_flushed(inf)
        except LinkClosed:
            return
        except RemoteProtocolError as error:
            log.warning("a client broke the protocol", error=error)
