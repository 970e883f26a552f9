"""The master's wiring and lifetime: state directory, core, engine, links, signals, graceful stop.

Start: lock and open the state, listen, restore the core, say READY. Stop (TERM or INT): leases are
stretched and that is committed and said, then the engine ends, then links and storage close. Frames
run on: no stop of the master ends one. USR1 asks for a backup at once.
"""

import gc
import resource
import secrets
import signal
import socket
import time
from collections.abc import Sequence
from functools import partial
from itertools import count

import trio
from msgspec import structs

import drqueue
from drqueue import engine, log, sdnotify
from drqueue.channel import Channel
from drqueue.checkup import listed
from drqueue.lag import LagProbe
from drqueue.master.admin import ADMIN_FILE, MAKER, NAME, anybody_joined, prepare, with_rows
from drqueue.master.certificate import load_or_make
from drqueue.master.clients import ClientLinks
from drqueue.master.core import holdback, queries
from drqueue.master.core.attempts import Backoff
from drqueue.master.core.core import Core
from drqueue.master.core.effects import (
    Answer,
    AnswerJoin,
    AskHistory,
    Audited,
    CutClients,
    Effect,
    MailFinished,
    Publish,
    Tell,
    Unlink,
    Warn,
)
from drqueue.master.core.events import ClockRead, Event, Noticed, Stopping
from drqueue.master.core.turn import Policy
from drqueue.master.desk import Desk
from drqueue.master.door import Door
from drqueue.master.examine import examine
from drqueue.master.gate import Caller, Gate, Serve, nothing_more
from drqueue.master.history import History
from drqueue.master.housekeeping import Housekeeping
from drqueue.master.hub import Hub
from drqueue.master.listening import listeners, other_addresses, place, reached_at
from drqueue.master.mailer import Mailer
from drqueue.master.past import fill_frames
from drqueue.master.slaves import SlaveLinks
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.sqlite import how_to_restore
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Join, Message, Welcome
from drqueue.proto.roles import Who
from drqueue.proto.tickets import KEY_BYTES
from drqueue.proto.views import Finding
from drqueue.settings import MasterSettings

_CLOCK_S = 5.0
_GOODBYE_S = 2.0
#: Who did what the master does of itself.
MYSELF = Who(name=MAKER, role="admin")


#: Little of what lives here is garbage that only a search finds, and one through all links takes long.
GC_THRESHOLD = (10_000, 5, 20)


def run(settings: MasterSettings, *, new_certificate: bool = False) -> None:
    """Run a master until it is told to stop. `new_certificate`: make one, though nodes or users know another.

    Raises StateError, StorageError, AccessError, SettingsError, OSError (a place to listen at is taken).
    """
    # Until its receiver stands: the check of a large database takes a while, and a signal would end it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _allow_all_files()
    gc.set_threshold(*GC_THRESHOLD)
    opened = open_state(settings.state_dir)
    try:
        with listeners(settings) as sockets:
            trio.run(serve, settings, opened, sockets, new_certificate)
    finally:
        opened.close()


def _allow_all_files() -> None:
    """As many files open as this process may have: every link is one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(
    settings: MasterSettings,
    opened: OpenState,
    sockets: Sequence[socket.socket],
    new_certificate: bool = False,
) -> None:
    """The master over an open state and listening sockets; returns after TERM or INT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        master = _Master(settings, opened, sockets, new_certificate)
        async with trio.open_nursery() as links:
            async with trio.open_nursery() as inner:
                for listener in sockets:
                    listener.setblocking(False)
                    inner.start_soon(master.gate.accept, listener, links)
                inner.start_soon(master.gate.tell)
                inner.start_soon(master.tick)
                inner.start_soon(master.housekeeping.purge)
                inner.start_soon(master.housekeeping.backups)
                inner.start_soon(master.mailer.run)
                inner.start_soon(master.watchdog)
                inner.start_soon(master.lag.run)
                inner.start_soon(master.slaves.beat)
                inner.start_soon(master.hub.run)
                inner.start_soon(master.run_engine)
                sdnotify.notify("READY=1", f"STATUS=epoch {opened.epoch}")
                log.event(
                    "master is up",
                    farm=opened.farm,
                    epoch=opened.epoch,
                    at=", ".join(map(place, sockets)),
                    pin=master.identity.pin,
                )
                if opened.restored:
                    log.event("the database was restored: ids go on above all that were handed out")
                    log.warning(
                        "the jobs of the backup are held back until nothing that began since can run, or "
                        "somebody vouches: see drqueue farm"
                    )
                    log.warning(
                        "lines not used yet are gone; roles and secrets are those of the backup: look at "
                        "drqueue user list and drqueue node list"
                    )
                if not opened.storage.checked:
                    log.event("the database is large: a backup, made now, checks its history")
                    master.housekeeping.back_up_now()
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

    def __init__(
        self,
        settings: MasterSettings,
        opened: OpenState,
        sockets: Sequence[socket.socket] = (),
        new_certificate: bool = False,
    ) -> None:
        self._settings = settings
        self._opened = opened
        #: Whether slaves may count on a grant that is noted beside the database.
        self._granted = opened.granted_s > 0
        self._places = [place(sock) for sock in sockets]
        saved = opened.storage.load()
        accounts = list(saved.accounts)
        known = not new_certificate and anybody_joined(accounts)
        self.identity = load_or_make(settings.state_dir, known=known)
        self._inbox: engine.Inbox[Event] = engine.Inbox()
        self._history = History(opened.storage)
        self.housekeeping = Housekeeping(settings, self._history, self.today)
        self.mailer = Mailer(settings.mail_command)
        software = f"drqueue {drqueue.__version__}"
        others_dial = reached_at(settings, sockets)
        self._dialled = others_dial.host
        self._also = other_addresses(settings, sockets, others_dial)
        line_note = (
            f"it names {self._dialled}, one of this machine's addresses: "
            f"`address` in the master's settings chooses another ({listed(self._also, 3)})"
        )
        policy = Policy(
            farm=opened.farm,
            epoch=opened.epoch,
            software=software,
            lease_s=settings.lease_s,
            requeue_fast_s=settings.requeue_fast_s,
            keep_s=settings.keep_days * 86400.0,
            backoff=Backoff(settings.backoff_s, settings.backoff_max_s),
            avoid_after=settings.avoid_after,
            forgive_s=settings.forgive_s,
            sick_after=settings.sick_after,
            beat_s=settings.beat_s,
            silence_s=settings.silence_s,
            artist_max_priority=settings.artist_max_priority,
            line_host=others_dial.host if others_dial.port else "",
            line_port=others_dial.port,
            line_pin=self.identity.pin,
            line_note=line_note if self._also else "",
            ticket_seed=secrets.token_bytes(KEY_BYTES),
        )
        wall = time.time()
        admin = prepare(settings.state_dir, accounts, opened.farm, others_dial, self.identity.pin, wall)
        # What is saved, as it will be once the first admin's account is.
        saved = structs.replace(saved, accounts=with_rows(accounts, admin.save))
        try:
            self._core = Core(
                policy,
                saved,
                trio.current_time(),
                wall,
                from_backup=opened.restored,
                gone=opened.gone,
                granted_s=opened.granted_s,
            )
        except ValueError as error:
            # Whole rows, but not rows that a master wrote together.
            path = opened.storage.path
            raise StorageCorrupt(f"{path} is damaged: {error}; {how_to_restore(path)}") from error
        if admin.save:
            # The core has read all that there was; from now on there may be more.
            opened.storage.commit(admin.save)
            self._inbox.put(Noticed(MYSELF, f"user {NAME}: new access, in {ADMIN_FILE}", "done"))
        admin.write()
        self.hub = Hub(lambda: self._core.state, lambda views: fill_frames(self._history, views))
        self.slaves = SlaveLinks(self._inbox, settings.beat_s, settings.silence_s)
        self._desk = Desk(self._history, self._examine, self.housekeeping.back_up_for_somebody)
        self.lag = LagProbe()
        self._clients = ClientLinks(
            self._inbox, self._core, self.slaves, self.hub, self._history, self._desk, self.lag
        )
        welcome = Welcome(
            version=1,
            peer="master",
            software=software,
            farm=opened.farm,
            epoch=opened.epoch,
            life=secrets.token_hex(8),
        )
        self._door = Door(
            Answerer(welcome, ("client", "slave")),
            lambda: self._core.state.register,
            self._inbox,
            settings.local_roles,
        )
        self.gate = Gate(self._admit, self._noticed, self.identity.context())
        self._numbers = count(1)
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
            case AnswerJoin():
                self._door.answer_join(effect)
            case CutClients():
                self._clients.cut(effect)
            case Audited():
                self._desk.audited()
            case Warn():
                log.warning(effect.text, **dict(effect.fields))

    def _after_turn(self) -> None:
        self._turns += 1
        self._turned.set()

    async def say_goodbye(self, grant_s: float) -> None:
        """Stretch leases, durably and said to every slave, within a few seconds."""
        with trio.move_on_after(_GOODBYE_S) as patience:
            grant_s = await self._note_grant(grant_s)
        if patience.cancelled_caught:
            log.warning("leases are not stretched: the disk did not answer in time")
            grant_s = 0.0
        self._inbox.put(Stopping(grant_s))
        with trio.move_on_after(_GOODBYE_S) as patience:
            while len(self._inbox):
                self._turned = trio.Event()
                await self._turned.wait()
        if patience.cancelled_caught:
            log.warning("leases are not stretched: the disk did not answer in time")
        await self.slaves.flush(_GOODBYE_S)
        await self._clients.flush(_GOODBYE_S)

    async def _note_grant(self, grant_s: float) -> float:
        """Note it beside the database, which may be restored to a state of before it; 0 where that fails."""
        try:
            await trio.to_thread.run_sync(self._opened.note_grant, grant_s, abandon_on_cancel=True)
        except StorageError as error:
            log.warning("leases are not stretched", why=error)
            return 0.0
        return grant_s

    async def _forget_grant(self) -> None:
        """Once no slave can count on what an earlier master granted, a restore need not wait for that."""
        state = self._core.state
        if not self._granted or state.granted_s or state.holdback is not None:
            return
        try:
            await trio.to_thread.run_sync(self._opened.forget_grant)
        except StorageError as error:
            log.warning("cannot note that a grant is over", why=error)
        else:
            self._granted = False

    # -- clocks -----------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Tell the core the wall clock, at once and then every few seconds."""
        while True:
            self._inbox.put(ClockRead(time.time()))
            await trio.sleep(_CLOCK_S)
            await self._forget_grant()

    def today(self) -> float:
        """The date by which old things go, whatever the wall clock says now."""
        return self._core.state.dates.today(trio.current_time())

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

    async def _admit(self, channel: Channel, message: Message, caller: Caller) -> Serve | None:
        """Judge a link's first message; how it is served from then on."""
        if isinstance(message, Join):
            return nothing_more if await self._door.join(channel, message, caller) else None
        entered = await self._door.enter(channel, message, caller)
        if entered is None:
            return None
        hi, who = entered
        if hi.role == "slave":
            return partial(self.slaves.serve, next(self._numbers), channel, who, hi.software)
        return partial(self._clients.serve, channel, hi, who)

    def _noticed(self, address: str, what: str, times: int) -> None:
        """What failed before anybody was trusted, for the audit."""
        stranger = Who(name="", role="viewer", peer=address)
        self._inbox.put_if_room(Noticed(stranger, "open a link", "failed", what, times))

    # -- examination --------------------------------------------------------------------------------------

    async def _examine(self) -> tuple[Finding, ...]:
        state = self._core.state
        wall = time.time()
        return await examine(
            self._settings,
            listening=self._places,
            pin=self.identity.pin,
            certificate=self.identity.certificate,
            key=self.identity.key,
            alarm=self._history.alarm,
            slaves=[queries.slave_view(slave) for slave in state.slaves.values()],
            software={slave.name: self.slaves.software(link) for link, slave in list(state.links.items())},
            pending=len(state.register.pending),
            lines=sum(line.expires_at >= wall for line in state.register.lines.values()),
            revoked=[slave.name for slave in state.slaves.values() if slave.was_revoked],
            dialled=self._dialled,
            also=self._also,
            links=len(self.slaves) + len(self._clients),
            holdback=holdback.view(state),
            doubt=state.dates.doubt(trio.current_time()),
        )
