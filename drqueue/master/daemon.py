"""The master's wiring and lifetime: state directory, core, engine, links, signals, graceful stop.

Start: lock and open the state, restore the core, listen, say READY. Stop (TERM or INT): leases are
stretched and that is committed and said, then the engine ends, then links and storage close. Frames
run on: no stop of the master ends one. USR1 asks for a backup at once.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from itertools import count

import trio

import drqueue
from drqueue import engine, log, sdnotify
from drqueue.channel import Channel, LinkClosed
from drqueue.master.clients import ClientLinks
from drqueue.master.core.attempts import Backoff
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, AskHistory, Effect, MailFinished, Publish, Tell, Unlink
from drqueue.master.core.events import ClockRead, Event, Stopping
from drqueue.master.core.turn import Policy
from drqueue.master.door import local_roles, local_who, login_name, peer_uid
from drqueue.master.history import History
from drqueue.master.housekeeping import Housekeeping
from drqueue.master.hub import Hub
from drqueue.master.mailer import Mailer
from drqueue.master.past import fill_frames
from drqueue.master.slaves import SlaveLinks
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Welcome
from drqueue.proto.roles import Who
from drqueue.settings import MasterSettings
from drqueue.unixpath import bind_unix

_CLOCK_S = 5.0
_GOODBYE_S = 2.0
#: Links at once; far above what a farm has, below what descriptors allow.
_LINKS_MOST = 20_000


def run(settings: MasterSettings) -> None:
    """Run a master until it is told to stop; raises StateError, StorageError, OSError (the socket)."""
    # Until its receiver stands: the check of a large database takes a while, and a signal would end it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    opened = open_state(settings.state_dir)
    try:
        listener = bind_unix(settings.socket, settings.socket_mode)
        try:
            trio.run(serve, settings, opened, [listener])
        finally:
            listener.close()
            os.unlink(settings.socket)
    finally:
        opened.close()


async def serve(settings: MasterSettings, opened: OpenState, listeners: Sequence[socket.socket]) -> None:
    """The master over an open state and listening sockets; returns after TERM or INT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        master = _Master(settings, opened)
        async with trio.open_nursery() as links:
            async with trio.open_nursery() as inner:
                for listener in listeners:
                    listener.setblocking(False)
                    inner.start_soon(master.accept, listener, links)
                inner.start_soon(master.tick)
                inner.start_soon(master.housekeeping.purge)
                inner.start_soon(master.housekeeping.backups)
                inner.start_soon(master.mailer.run)
                inner.start_soon(master.watchdog)
                inner.start_soon(master.slaves.beat)
                inner.start_soon(master.hub.run)
                inner.start_soon(master.run_engine)
                sdnotify.notify("READY=1", f"STATUS=epoch {opened.epoch}")
                log.event("master is up", farm=opened.farm, epoch=opened.epoch, socket=settings.socket)
                if opened.restored:
                    log.event("the database was restored: ids go on above all that were handed out")
                async for number in signals:
                    if number == signal.SIGUSR1:
                        master.housekeeping.back_up_now()
                        continue
                    log.event("master stops", signal=signal.Signals(number).name)
                    break
                sdnotify.notify("STOPPING=1")
                await master.say_goodbye(settings.upgrade_lease_s)
                inner.cancel_scope.cancel()
            links.cancel_scope.cancel()
    log.event("master is down")


class _Master:
    """What the tasks share."""

    def __init__(self, settings: MasterSettings, opened: OpenState) -> None:
        self._inbox: engine.Inbox[Event] = engine.Inbox()
        self._history = History(opened.storage)
        self.housekeeping = Housekeeping(settings, self._history)
        self.mailer = Mailer(settings.mail_command)
        software = f"drqueue {drqueue.__version__}"
        self._answerer = Answerer(
            Welcome(version=1, peer="master", software=software, farm=opened.farm, epoch=opened.epoch),
            ("client", "slave"),
        )
        policy = Policy(
            farm=opened.farm,
            epoch=opened.epoch,
            software=software,
            lease_s=settings.lease_s,
            requeue_fast_s=settings.requeue_fast_s,
            keep_s=settings.keep_days * 86400.0,
            backoff=Backoff(settings.backoff_s, settings.backoff_max_s),
            beat_s=settings.beat_s,
            silence_s=settings.silence_s,
        )
        self._core = Core(
            policy,
            opened.storage.load(),
            trio.current_time(),
            time.time(),
            from_backup=opened.restored,
        )
        self.hub = Hub(lambda: self._core.state, lambda views: fill_frames(self._history, views))
        self.slaves = SlaveLinks(self._inbox, settings.beat_s, settings.silence_s)
        self._clients = ClientLinks(self._inbox, self._core, self.slaves, self.hub, self._history)
        self._numbers = count(1)
        self._roles = local_roles(settings.local_roles)
        self._open_links = 0
        self._turned = trio.Event()
        self._turns = 0

    # -- the engine -----------------------------------------------------------------------------------

    async def run_engine(self) -> None:
        await engine.run(self._core, self._inbox, self._history.commit, self._perform, flush=self._after_turn)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Tell():
                self.slaves.tell(effect)
            case Answer():
                self._clients.answer(effect)
            case Publish():
                self.hub.publish(effect)
            case AskHistory():
                self._clients.ask_history(effect)
            case Unlink():
                self.slaves.unlink(effect)
            case MailFinished():
                self.mailer.send(effect)

    def _after_turn(self) -> None:
        self._turns += 1
        self._turned.set()

    async def say_goodbye(self, grant_s: float) -> None:
        """Stretch leases, durably and said to every slave, within a few seconds."""
        self._inbox.put(Stopping(grant_s))
        with trio.move_on_after(_GOODBYE_S) as patience:
            while len(self._inbox):
                self._turned = trio.Event()
                await self._turned.wait()
        if patience.cancelled_caught:
            log.warning("leases are not stretched: the disk did not answer in time")
        await self.slaves.flush(_GOODBYE_S)
        await self._clients.flush(_GOODBYE_S)

    # -- clocks -----------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Tell the core the wall clock, at once and then every few seconds."""
        while True:
            self._inbox.put(ClockRead(time.time()))
            await trio.sleep(_CLOCK_S)

    async def watchdog(self) -> None:
        """Ping systemd while the engine turns; a full disk is no reason to be killed."""
        interval = sdnotify.watchdog_interval()
        if interval is None:
            return
        seen = -1
        while True:
            if self._turns != seen or self._history.alarm:
                sdnotify.notify("WATCHDOG=1")
            seen = self._turns
            # At least one turn, the clock's, falls into every wait.
            await trio.sleep(max(interval, _CLOCK_S + 1))

    # -- links ------------------------------------------------------------------------------------------

    async def accept(self, listener: socket.socket, links: trio.Nursery) -> None:
        """Take every link that comes."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # Out of descriptors: those in use come back when links close.
                log.warning("cannot accept a link", why=error)
                await trio.sleep(0.1)
                continue
            if self._open_links >= _LINKS_MOST:
                sock.close()
                continue
            links.start_soon(self._link, sock)

    async def _link(self, sock: socket.socket) -> None:
        self._open_links += 1
        try:
            channel = Channel(sock)
            uid = peer_uid(sock)
            who = local_who(uid, login_name(uid), os.geteuid(), self._roles)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.pump)
                try:
                    await self._serve_link(channel, who)
                except LinkClosed as end:
                    log.debug("a link ended in the handshake", why=end)
                except RemoteProtocolError as error:
                    log.warning("a peer broke the protocol in the handshake", error=error)
                finally:
                    channel.close()
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the farm down)
            log.error("a bug ended a link", exc=error)
        finally:
            self._open_links -= 1

    async def _serve_link(self, channel: Channel, who: Who) -> None:
        hi = await channel.answer(self._answerer)
        if hi is None:
            with trio.move_on_after(_GOODBYE_S):
                await channel.wait_flushed(_GOODBYE_S)
        elif hi.role == "slave":
            await self.slaves.serve(next(self._numbers), channel, who)
        else:
            await self._clients.serve(channel, hi, who)
