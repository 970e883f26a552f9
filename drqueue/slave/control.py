"""The slave's own port: clients enable, limit, ask and kill directly, whether the master is there or not.

Rules: a Unix socket (0600) in the state directory, so that only the farm's user can connect. At most
MAX_CLIENTS links; one more is told to come back later. Whatever one client does, others are served.
"""

import os
import socket

import trio

from drqueue import log
from drqueue.channel import Channel, LinkClosed
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.handshake import Answerer
from drqueue.proto.messages import PROTOCOL_NEWEST, Beat, Message, Request, Welcome
from drqueue.slave.requests import Requests

SOCKET = "control.sock"
MAX_CLIENTS = 64
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
        finally:
            self._clients -= 1

    async def _converse(self, channel: Channel) -> None:
        try:
            if await channel.answer(Answerer(self._welcome, {"client"})) is None:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.pump)
                await self._read(channel, nursery)
                nursery.cancel_scope.cancel()
        except LinkClosed:
            return
        except RemoteProtocolError as error:
            log.warning("a client's link was closed", why=error)

    async def _read(self, channel: Channel, nursery: trio.Nursery) -> None:
        requests = self._requests.for_link(nursery, channel.send)
        try:
            while True:
                message: Message = await channel.receive()
                if isinstance(message, Request):
                    requests.handle(message)
                elif isinstance(message, Beat) and message.echo:
                    channel.send(Beat())
        except LinkClosed:
            return
        except (RemoteProtocolError, LocalProtocolError) as error:
            log.warning("a client's link was closed", why=error)
